//! The encrypted store, one system call after the other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Error, ErrorKind, GetOptions, ListOptions, Metadata,
    Page, PutMode, PutOptions, Result, Secret, SecretBytes, SecretPath,
};

use crate::change;
use crate::config;
use crate::cursor::Cursor;
use crate::error::corrupt_key;
use crate::identity::Identity;
use crate::keys::StoreKey;
use crate::list;
use crate::lock::Lock;
use crate::names::Naming;
use crate::record::{MAX_FILE, Meta, Records};
use crate::store::{Engine, Reader, not_root};
use crate::tree::Folder;
use crate::{MAX_VALUE, admin};

pub(crate) const KEY_FILE: &str = "store.key.age";
pub(crate) const SECRETS: &str = "secrets";
pub(crate) const MAX_KEY_FILE: usize = 64 * 1024;
const NAMING: Naming = Naming::Marked;

/// An encrypted store.
#[derive(Debug)]
pub(crate) struct Encrypted {
    settings: config::Encrypted,
    key: Mutex<Option<Unwrapped>>,
}

/// The store key, kept once it was unwrapped, and the file it was in: another store can take the
/// place of this one while we run.
#[derive(Debug)]
struct Unwrapped {
    key: Arc<StoreKey>,
    file: Vec<u8>,
}

/// A store that has been made.
struct Opened {
    root: Folder,
    key: Arc<StoreKey>,
    cursor: Cursor,
}

impl Encrypted {
    pub(crate) fn new(settings: config::Encrypted) -> Self {
        Self {
            settings,
            key: Mutex::new(None),
        }
    }

    /// Opens the store for reading; none where it has not been made and need not be.
    fn open(&self) -> Result<Option<Opened>> {
        let Some(root) = Folder::root(&self.settings.root)? else {
            return self.not_made();
        };
        let secrets = root.enter(SECRETS)?;
        let key = match self.cached() {
            Some(key) => Some(key),
            None => self.unwrap(&root)?,
        };
        match (key, secrets) {
            (Some(key), Some(secrets)) => Ok(Some(Opened {
                root,
                key,
                cursor: Cursor::new(secrets),
            })),
            // Made, and empty.
            (Some(_), None) => Ok(None),
            (None, Some(_)) => Err(key_lost(&root)),
            (None, None) => self.not_made(),
        }
    }

    /// The key to write with, made where it is missing and that is allowed. Unlike a reader, a
    /// writer makes sure that the key it holds is the one in the root: what another key encrypted,
    /// nobody could open again.
    fn key_for_writing(&self, root: &Folder, lock: &Lock) -> Result<Arc<StoreKey>> {
        match self.unwrap(root)? {
            Some(key) => Ok(key),
            None if self.settings.create => {
                lock.begin()?;
                admin::make_store(root, &self.settings)?;
                self.unwrap(root)?.ok_or_else(|| key_lost(root))
            }
            None if root.enter(SECRETS)?.is_some() => Err(key_lost(root)),
            None => Err(not_made(&self.settings.root)),
        }
    }

    fn cached(&self) -> Option<Arc<StoreKey>> {
        let cached = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        cached.as_ref().map(|unwrapped| Arc::clone(&unwrapped.key))
    }

    /// The key in the root, unwrapped where that has not been done; none where there is none.
    fn unwrap(&self, root: &Folder) -> Result<Option<Arc<StoreKey>>> {
        // Held while unwrapping, so that many readers at once do it once.
        let mut cached = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = root.read(KEY_FILE, MAX_KEY_FILE)? else {
            return Ok(None);
        };
        if let Some(unwrapped) = cached.as_ref()
            && unwrapped.file == file
        {
            return Ok(Some(Arc::clone(&unwrapped.key)));
        }
        let key = Arc::new(unwrap(&file, root, &self.settings)?);
        *cached = Some(Unwrapped {
            key: Arc::clone(&key),
            file,
        });
        Ok(Some(key))
    }

    /// Reads a secret; once more where it looks damaged and the key turns out to be another now, as
    /// after a backup was restored.
    fn read(
        &self,
        store: &mut Opened,
        path: &SecretPath,
        options: &GetOptions,
    ) -> Result<(Meta, SecretBytes)> {
        match store.read(path, options) {
            Err(error) if error.kind() == ErrorKind::Corrupt => match self.unwrap(&store.root) {
                Ok(Some(key)) if key != store.key => {
                    store.key = key;
                    store.read(path, options)
                }
                _ => Err(error),
            },
            done => done,
        }
    }

    fn not_made(&self) -> Result<Option<Opened>> {
        if self.settings.create {
            Ok(None)
        } else {
            Err(not_made(&self.settings.root))
        }
    }

    /// The error for reading from a store that has not been made, and need not be.
    fn empty(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "the store at {} is empty: nothing has been written to it yet",
                self.settings.root.display()
            ),
        )
        .with_advice("the first `keyhaul set` or `keyhaul generate` makes it")
    }
}

/// The store open for reading; nothing is open where it has not been made.
struct Reading<'a> {
    store: &'a Encrypted,
    opened: Option<Opened>,
}

impl Reader for Reading<'_> {
    fn get(&mut self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        not_root(path)?;
        let opened = self.opened.as_mut().ok_or_else(|| self.store.empty())?;
        let (meta, value) = self.store.read(opened, path, options)?;
        match meta.expired() {
            Some(expired) if !options.expired => Err(expired),
            _ => Ok(Secret::new(value, meta.public()?)),
        }
    }
}

impl Engine for Encrypted {
    fn capabilities(&self) -> Capabilities {
        let missing = Capability::FIELDS | Capability::GENERATES_REMOTELY;
        Capabilities::new(Capability::all().difference(missing), MAX_VALUE)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        let opened = self.open()?;
        Ok(Box::new(Reading {
            store: self,
            opened,
        }))
    }

    fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let mut opened = self.open()?.ok_or_else(|| self.empty())?;
        // The value is opened too: that is what proves the metadata.
        self.read(&mut opened, path, options)?.0.public()
    }

    fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let settings = &self.settings;
        let root = match Folder::root(&settings.root)? {
            Some(root) => root,
            None if settings.create => {
                crate::identity::refuse_under_root(&settings.identity, &settings.root)?;
                Folder::make_root(&settings.root)?
            }
            None => return Err(not_made(&settings.root)),
        };
        let lock = Lock::acquire(&root, options.request.deadline)?;
        let key = self.key_for_writing(&root, &lock)?;
        let mut cursor = Cursor::new(root.enter_or_make(SECRETS)?);

        let place = NAMING.place(path);
        let there = match cursor.go(&place.folders)? {
            Some(folder) => folder.read(&place.file, MAX_FILE)?,
            None => None,
        };
        let file = file_path(&cursor, &place.file);
        let there = there
            .as_deref()
            .map(|bytes| Records::parse(bytes, path, &file))
            .transpose()?;
        if let (Some(records), Some(id)) = (&there, options.idempotency)
            && let Some(meta) = records.written_under(id, &key)?
        {
            // Durable even if whoever wrote it died at once: taking the lock mended that.
            return meta.public();
        }
        let version = next_version(there.as_ref(), &key, &options.mode)?;

        let meta = Meta::new(
            version,
            &options.labels,
            options.expires,
            options.idempotency,
        )?;
        let older = there
            .iter()
            .flat_map(|records| records.raw(settings.keep_versions - 1));
        let bytes = meta.file(path, value, older, &key)?;
        change::write(lock, &root, &mut cursor, &place, &bytes)?;
        meta.public()
    }

    fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let Some(root) = Folder::root(&self.settings.root)? else {
            return self.not_made().map(drop);
        };
        let Some(secrets) = root.enter(SECRETS)? else {
            return Ok(());
        };
        let lock = Lock::acquire(&root, options.request.deadline)?;
        let place = NAMING.place(path);
        let mut cursor = Cursor::new(secrets);
        if cursor.go(&place.folders)?.is_none() {
            return Ok(());
        }
        if let Some(expected) = &options.version {
            let file = file_path(&cursor, &place.file);
            let Some(bytes) = cursor.here().read(&place.file, MAX_FILE)? else {
                return Ok(());
            };
            let key = self.unwrap(&root)?.ok_or_else(|| key_lost(&root))?;
            let current = Records::parse(&bytes, path, &file)?.newest(&key)?.version;
            if current.to_string() != expected.as_str() {
                return Err(conflict(current));
            }
        }
        change::remove(lock, &mut cursor, &place)
    }

    fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        // Names are no secret to whoever can list the folder: no key is needed.
        let Some(root) = Folder::root(&self.settings.root)? else {
            return self.not_made().map(|_| Page::default());
        };
        match root.enter(SECRETS)? {
            Some(secrets) => list::list(secrets, NAMING, prefix, options),
            None => Ok(Page::default()),
        }
    }

    fn probe(&self) -> Result<()> {
        self.open().map(drop)
    }
}

impl Opened {
    fn read(&mut self, path: &SecretPath, options: &GetOptions) -> Result<(Meta, SecretBytes)> {
        let place = NAMING.place(path);
        let bytes = match self.cursor.go(&place.folders)? {
            Some(folder) => folder.read(&place.file, MAX_FILE)?,
            None => None,
        };
        let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such secret"))?;
        let file = file_path(&self.cursor, &place.file);
        Records::parse(&bytes, path, &file)?
            .find(options.version.as_ref(), &self.key)?
            .ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "the store does not keep that version")
                    .with_advice("the store keeps the newest few: see `keep-versions`")
            })
    }
}

/// Reads and unwraps the store key; none where the store has not been made.
pub(crate) fn read_key(root: &Folder, settings: &config::Encrypted) -> Result<Option<StoreKey>> {
    root.read(KEY_FILE, MAX_KEY_FILE)?
        .map(|wrapped| unwrap(&wrapped, root, settings))
        .transpose()
}

fn unwrap(wrapped: &[u8], root: &Folder, settings: &config::Encrypted) -> Result<StoreKey> {
    let identity = Identity::read(&settings.identity, &settings.root)?;
    StoreKey::unwrap(wrapped, &identity, &root.path().join(KEY_FILE))
}

/// The error for a store that has secrets and no key.
pub(crate) fn key_lost(root: &Folder) -> Error {
    corrupt_key(
        &root.path().join(KEY_FILE),
        "is missing, and without it the secrets beside it cannot be opened",
    )
}

/// The error for a store that has not been made and should have been.
pub(crate) fn not_made(root: &Path) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("there is no store at {}", root.display()),
    )
    .with_advice(
        "mount what it lies on, or make it with `keyhaul store init`; `create = true` makes it with the first write",
    )
}

fn file_path(cursor: &Cursor, name: &str) -> PathBuf {
    cursor.here().path().join(name)
}

fn next_version(there: Option<&Records<'_>>, key: &StoreKey, mode: &PutMode) -> Result<u64> {
    let current = there.map(|records| records.newest(key)).transpose()?;
    match (current, mode) {
        (Some(_), PutMode::Create) => Err(Error::new(
            ErrorKind::AlreadyExists,
            "there is such a secret already",
        )),
        (Some(current), PutMode::Update(version))
            if current.version.to_string() != version.as_str() =>
        {
            Err(conflict(current.version))
        }
        (None, PutMode::Update(_)) => Err(Error::new(ErrorKind::NotFound, "no such secret")),
        (current, _) => Ok(current.map_or(1, |current| current.version + 1)),
    }
}

fn conflict(current: u64) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the current version is {current}"),
    )
    .with_advice("somebody wrote in between: read it again and decide")
}
