//! The contract, over a keyring of the kernel.

mod error;
mod note;
mod ring;
mod sys;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutMode, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    SecretStore, StoreConfig, law, page,
};
use linux_keyutils::Key;

use crate::config::{KERNEL, Kernel};
use note::{Left, NOTHING, Note};
use ring::{Put, Ring};

/// A store in one of the kernel's keyrings.
///
/// The calls take microseconds and wait for nobody: they are made where they stand, without a
/// thread of their own. Nothing of an operation is left on a thread between two of them but a link
/// from its keyring to the store's.
pub struct KernelStore {
    descriptor: Descriptor,
    settings: Kernel,
}

const CAN: Capability = Capability::READ
    .union(Capability::WRITE)
    .union(Capability::CREATE)
    .union(Capability::DELETE)
    .union(Capability::LIST)
    .union(Capability::GENERATE)
    .union(Capability::EXPIRY);

/// The longest payload of a `user` key, in bytes.
const MAX_VALUE: usize = 32_767;

/// What is displaced is swept up in the background, and counts until then.
const SWEEPS: u32 = 10;
const SWEEP: Duration = Duration::from_millis(20);

impl KernelStore {
    pub(crate) fn new(config: &StoreConfig, settings: Kernel) -> Self {
        let location = format!("{KERNEL}:{}", settings.keyring.name());
        Self {
            descriptor: Descriptor::new(&config.name, KERNEL, location),
            settings,
        }
    }

    fn ring(&self) -> Result<Ring> {
        Ring::open(self.settings.keyring)
    }

    fn description(&self, path: &SecretPath) -> String {
        format!("{}:{path}", self.settings.prefix)
    }

    fn read(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        let ring = self.ring()?;
        let secret = ring.with(&self.description(path), |key| {
            let note = Note::of(&ring, &self.settings.prefix, key)?;
            let payload = ring::read(key)?;
            let value = if note.is_empty(&payload) {
                SecretBytes::copy_from(b"")
            } else {
                payload
            };
            Ok(Secret::new(value, metadata(&note, Left::of(key))))
        })?;
        secret.ok_or_else(no_secret)
    }

    fn look(&self, path: &SecretPath) -> Result<Metadata> {
        law::not_root(path)?;
        let ring = self.ring()?;
        let found = ring.with(&self.description(path), |key| {
            let note = Note::of(&ring, &self.settings.prefix, key)?;
            Ok(metadata(&note, Left::of(key)))
        })?;
        found.ok_or_else(no_secret)
    }

    async fn write(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::not_root(path)?;
        let mut tries = 0;
        loop {
            match self.write_once(path, value, options) {
                Err(error) if error.kind() == ErrorKind::StorageFull && tries < SWEEPS => {
                    tries += 1;
                    tokio::time::sleep(SWEEP).await;
                }
                answer => return answer,
            }
        }
    }

    /// Without an await: the key is made in this thread's own keyring.
    fn write_once(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let now = SystemTime::now();
        let after = self.settings.expire_after;
        let expires = options.expires.or_else(|| now.checked_add(after?));
        let exclusively = options.mode == PutMode::Create;
        let (ring, prefix) = (self.ring()?, &self.settings.prefix);
        let description = self.description(path);
        let old = match ring.find(&description) {
            // The key that is there has expired or was revoked.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => found?,
        };
        if exclusively && old.is_some() {
            return Err(exists());
        }
        let note = Note {
            expires,
            empty: value.is_empty(),
        };
        let forget = |key: Option<Key>| {
            if let Some(key) = key {
                Note::remove(&ring, prefix, key);
            }
        };
        let seconds = match expires.map(|time| seconds_until(time, now)) {
            // Nobody would see it: what was there goes.
            Some(0) => {
                old.map(|old| ring.remove(old)).transpose()?;
                forget(old);
                return Ok(told(&note));
            }
            seconds => seconds,
        };
        let payload = if note.empty { NOTHING } else { value.expose() };
        let mut new = None;
        let put = ring.put(&description, payload, seconds, exclusively, |key| {
            new = Some(key);
            note.write(&ring, prefix, key, seconds)
        });
        match put {
            Ok(Put::Done) => {
                forget(old);
                Ok(told(&note))
            }
            refused => {
                forget(new);
                refused.and(Err(exists()))
            }
        }
    }
}

impl fmt::Debug for KernelStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelStore({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for KernelStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(CAN, MAX_VALUE))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.read(path, options)
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        paths.iter().map(|path| self.read(path, options)).collect()
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        law::need(CAN, law::to_get(options))?;
        self.look(path)
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(value.len(), MAX_VALUE)?;
        self.write(path, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(recipe.length(), MAX_VALUE)?;
        self.write(path, &recipe.make()?, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        law::need(CAN, law::to_delete(options))?;
        law::not_root(path)?;
        let ring = self.ring()?;
        match ring.find(&self.description(path)) {
            Ok(Some(key)) => {
                ring.remove(key)?;
                Note::remove(&ring, &self.settings.prefix, key);
                Ok(())
            }
            Ok(None) => Ok(()),
            // Expired or revoked: the kernel sweeps it up.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        page::check(options)?;
        let own = format!("{}:", self.settings.prefix);
        let descriptions = self.ring()?.descriptions()?;
        // A description that is no path is another program's.
        let path = |text: &String| SecretPath::new(text.strip_prefix(&own)?).ok();
        page::of(descriptions.iter().filter_map(path), prefix, options)
    }

    async fn probe(&self) -> Result<()> {
        self.ring()?.descriptions().map(|_| ())
    }
}

/// What a key that is there tells.
fn metadata(note: &Note, left: Option<Left>) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.expires = note.expiry(left, SystemTime::now());
    metadata
}

/// What a key just written tells.
fn told(note: &Note) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.expires = note.expires;
    metadata
}

/// Whole seconds, at least as long; 0 for what is past.
fn seconds_until(time: SystemTime, now: SystemTime) -> u32 {
    let left = time.duration_since(now).unwrap_or_default();
    let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

fn no_secret() -> Error {
    Error::new(ErrorKind::NotFound, "no such key in the keyring").with_advice(
        "the kernel forgets its keys with a reboot, and a session's with the session: look with keyctl show",
    )
}

fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is such a key already")
}
