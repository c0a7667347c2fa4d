//! The reference implementation of the store contract.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::fields::Fields;
use crate::store::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, IdempotencyId, ListOptions,
    Metadata, Page, PutMode, PutOptions, Secret, SecretStore,
};
use crate::{Error, ErrorKind, Field, Recipe, Result, SecretBytes, SecretPath, Version};

/// A store in this process's memory: what a backend's author reads beside the contract, and what
/// tests and embedders use where nothing need outlive the process.
///
/// It does everything, fields where [`with_fields`](Self::with_fields) says so. Where the contract
/// leaves a choice, it takes the strict one:
///
/// - It checks what it [can do](SecretStore::capabilities) before anything else of the request.
/// - Versions are numbers that the whole store counts up, so that one is never given twice, not
///   even to a secret deleted and made again: an update that was meant for the old one conflicts.
/// - Every version keeps the idempotency id it was written under, for as long as the secret is
///   there. Only a write that took effect spends its id; a refused one is judged anew.
/// - An expired secret is kept until it is deleted or replaced.
/// - Deleting with a version what is not there succeeds: it may be the repetition of a delete whose
///   answer was lost.
///
/// A page of a listing costs a walk over all paths, which a store of many should not imitate.
pub struct MemoryStore {
    descriptor: Descriptor,
    capabilities: Capabilities,
    /// The field that is meant where none is named, in a store whose values are maps.
    main: Option<Field>,
    state: Mutex<State>,
}

impl MemoryStore {
    /// The longest value it takes, in bytes.
    pub const MAX_VALUE: usize = 1024 * 1024;

    /// The most entries of a page, whatever limit is asked for.
    pub const MAX_PAGE: usize = 1000;

    /// An empty store of this name.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            descriptor: Descriptor::new(name.clone(), "memory", format!("memory:{name}")),
            capabilities: Capabilities::new(
                Capability::all() - Capability::FIELDS - Capability::GENERATES_REMOTELY,
                Self::MAX_VALUE,
            ),
            main: None,
            state: Mutex::default(),
        }
    }

    /// The store with values that are maps; `main` is the field that is meant where none is named.
    #[must_use]
    pub fn with_fields(mut self, main: Field) -> Self {
        self.capabilities.can |= Capability::FIELDS;
        self.main = Some(main);
        self
    }

    /// The store, able to do only that part of `can` which it can do at all.
    #[must_use]
    pub fn with_capabilities(mut self, can: Capability) -> Self {
        self.capabilities.can &= can;
        self
    }

    /// The law of capabilities: `Unsupported` unless all of `wanted` is there.
    fn need(&self, wanted: Capability) -> Result<()> {
        let missing = wanted - self.capabilities.can;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "this store lacks the capability {}",
                missing.names().join(", ")
            ),
        ))
    }

    fn read(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.need(Capability::READ | needed_to_get(options))?;
        let state = self.state();
        let stored = state.find(path, options.version.as_ref())?;
        if stored.metadata.is_expired(SystemTime::now()) && !options.expired {
            return Err(Error::new(ErrorKind::NotFound, "the secret has expired")
                .with_advice("write it anew, or ask for it although it has expired"));
        }
        let value = self.value_of(&stored.fields, options.field.as_ref())?;
        Ok(Secret::new(value, stored.metadata.clone()))
    }

    fn value_of(&self, fields: &Fields, field: Option<&Field>) -> Result<SecretBytes> {
        if field.is_some_and(Field::is_all) {
            return fields.to_json();
        }
        let name = self.name_of(field);
        match fields.value(name) {
            Some(value) => Ok(SecretBytes::copy_from(value.expose())),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("the secret has no field `{name}`"),
            )),
        }
    }

    /// The field that a request means. A store without fields keeps its values under one name too.
    fn name_of<'f>(&'f self, field: Option<&'f Field>) -> &'f str {
        field.or(self.main.as_ref()).map_or("", Field::as_str)
    }

    fn write(
        &self,
        path: &SecretPath,
        options: &PutOptions,
        value: impl FnOnce() -> Result<SecretBytes>,
    ) -> Result<Metadata> {
        refuse_root(path)?;
        let id = options
            .idempotency
            .filter(|_| self.capabilities.has(Capability::IDEMPOTENT));
        let with = |siblings: Option<&Fields>| {
            let value = value()?;
            if options.field.as_ref().is_some_and(Field::is_all) {
                return Fields::parse(value.expose());
            }
            let mut fields = siblings.map_or_else(Fields::default, Fields::copy);
            fields.set(self.name_of(options.field.as_ref()), value);
            Ok(fields)
        };
        self.state().write(path, options, id, with)
    }

    fn fits(&self, len: usize) -> Result<()> {
        if len <= self.capabilities.max_value {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "a value has at most {} bytes here",
                self.capabilities.max_value
            ),
        ))
    }

    /// The state, even where another thread panicked: it is only ever changed in one step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for MemoryStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.capabilities)
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.read(path, options)
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        paths.iter().map(|path| self.read(path, options)).collect()
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.need(Capability::READ | needed_to_get(options))?;
        let state = self.state();
        let stored = state.find(path, options.version.as_ref())?;
        Ok(stored.metadata.clone())
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.need(needed_to_put(options))?;
        self.fits(value.len())?;
        self.write(path, options, || Ok(SecretBytes::copy_from(value.expose())))
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.need(Capability::GENERATE | needed_to_put(options))?;
        self.fits(recipe.length())?;
        self.write(path, options, || recipe.make())
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.need(match options.version {
            Some(_) => Capability::DELETE | Capability::UPDATE,
            None => Capability::DELETE,
        })?;
        refuse_root(path)?;
        self.state().delete(path, options.version.as_ref())
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.need(Capability::LIST)?;
        self.state().page(prefix, options)
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryStore")
            .field(&self.descriptor.name)
            .finish()
    }
}

/// What reading with `options` needs beyond reading at all.
fn needed_to_get(options: &GetOptions) -> Capability {
    let mut wanted = Capability::empty();
    wanted.set(Capability::VERSIONS, options.version.is_some());
    wanted.set(Capability::FIELDS, options.field.is_some());
    wanted
}

/// What writing with `options` needs, whether the value is given or generated.
pub(crate) fn needed_to_put(options: &PutOptions) -> Capability {
    let mut wanted = match options.mode {
        PutMode::Create => Capability::CREATE,
        PutMode::Overwrite => Capability::WRITE,
        PutMode::Update(_) => Capability::UPDATE,
    };
    wanted.set(Capability::LABELS, !options.labels.is_empty());
    wanted.set(Capability::EXPIRY, options.expires.is_some());
    if let Some(field) = &options.field {
        wanted |= Capability::FIELDS;
        if !field.is_all() {
            // To keep the siblings takes compare-and-set.
            wanted |= Capability::UPDATE;
        }
    }
    wanted
}

fn refuse_root(path: &SecretPath) -> Result<()> {
    if path.is_root() {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "the root of a store is no secret",
        ));
    }
    Ok(())
}

#[derive(Default)]
struct State {
    /// Each secret's versions, the current one last. There is always one.
    secrets: BTreeMap<SecretPath, Vec<Stored>>,
    /// How many versions were ever written.
    written: u64,
}

struct Stored {
    fields: Fields,
    metadata: Metadata,
    idempotency: Option<IdempotencyId>,
}

impl State {
    fn find(&self, path: &SecretPath, version: Option<&Version>) -> Result<&Stored> {
        refuse_root(path)?;
        let versions = self.versions(path);
        match version {
            None => versions.last().ok_or_else(no_secret),
            Some(_) if versions.is_empty() => Err(no_secret()),
            Some(wanted) => versions
                .iter()
                .find(|stored| stored.metadata.version.as_ref() == Some(wanted))
                .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such version of the secret")),
        }
    }

    fn write(
        &mut self,
        path: &SecretPath,
        options: &PutOptions,
        id: Option<IdempotencyId>,
        fields: impl FnOnce(Option<&Fields>) -> Result<Fields>,
    ) -> Result<Metadata> {
        let versions = self.versions(path);
        let repeated = |stored: &&Stored| id.is_some() && stored.idempotency == id;
        if let Some(done) = versions.iter().find(repeated) {
            return Ok(done.metadata.clone());
        }
        let current = versions.last();
        match (&options.mode, current) {
            (PutMode::Create, Some(current)) => current.refuse_create(options.field.as_ref())?,
            (PutMode::Update(_), None) => return Err(no_secret()),
            (PutMode::Update(version), Some(current)) => current.expect(version)?,
            (PutMode::Create, None) | (PutMode::Overwrite, _) => {}
        }
        // What has expired does not come back as a sibling of what is written.
        let now = SystemTime::now();
        let siblings = current.filter(|current| !current.metadata.is_expired(now));
        let fields = fields(siblings.map(|current| &current.fields))?;
        let mut metadata = Metadata::new(Some(Version::new((self.written + 1).to_string())?));
        metadata.created = Some(now);
        metadata.expires = options.expires;
        metadata.labels = options.labels.clone();
        self.written += 1;
        self.secrets.entry(path.clone()).or_default().push(Stored {
            fields,
            metadata: metadata.clone(),
            idempotency: id,
        });
        Ok(metadata)
    }

    fn delete(&mut self, path: &SecretPath, version: Option<&Version>) -> Result<()> {
        if let (Some(version), Some(current)) = (version, self.versions(path).last()) {
            current.expect(version)?;
        }
        self.secrets.remove(path);
        Ok(())
    }

    fn page(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        if options.limit == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidReference,
                "a page has at least 1 entry",
            ));
        }
        let limit = options.limit.unwrap_or(MemoryStore::MAX_PAGE);
        let limit = limit.min(MemoryStore::MAX_PAGE);
        let after = options.after.as_deref().map(Entry::of_cursor).transpose()?;
        // A set, since folders do not come in the order of what is in them: `a/b` is behind `a!`,
        // and its folder `a` before.
        let mut entries = BTreeSet::new();
        for path in self.secrets.keys().filter(|path| path.is_below(prefix)) {
            entries.insert(if options.shallow {
                Entry::directly_below(prefix, path)?
            } else {
                Entry::new(path.clone(), false)
            });
        }
        let mut rest = entries
            .into_iter()
            .filter(|entry| after.as_ref().is_none_or(|after| entry > after));
        let taken: Vec<Entry> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(taken.last()).map(Entry::cursor);
        let (folders, secrets): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|entry| entry.is_folder);
        let paths = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.path).collect();
        Ok(Page::new(paths(secrets), paths(folders), next))
    }

    fn versions(&self, path: &SecretPath) -> &[Stored] {
        self.secrets.get(path).map_or(&[], Vec::as_slice)
    }
}

impl Stored {
    /// A Create is about the secret, or about the one field that it names.
    fn refuse_create(&self, field: Option<&Field>) -> Result<()> {
        match field.filter(|field| !field.is_all()) {
            Some(field) if self.fields.value(field.as_str()).is_none() => Ok(()),
            Some(field) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a field `{field}` already"),
            )),
            None => Err(Error::new(
                ErrorKind::AlreadyExists,
                "there is a secret already",
            )),
        }
    }

    fn expect(&self, version: &Version) -> Result<()> {
        if self.metadata.version.as_ref() == Some(version) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "the version given is not the current one",
        ))
    }
}

/// What a page lists, in the order it is listed in.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: SecretPath,
    is_folder: bool,
}

impl Entry {
    fn new(path: SecretPath, is_folder: bool) -> Self {
        Self { path, is_folder }
    }

    /// `path` itself, or the folder it is in, whichever is directly below `prefix`.
    fn directly_below(prefix: &SecretPath, path: &SecretPath) -> Result<Self> {
        let depth = prefix.segments().count();
        let mut below = path.segments().skip(depth);
        let first = below.next().unwrap_or_default();
        Ok(Self::new(prefix.join(first)?, below.next().is_some()))
    }

    fn cursor(&self) -> String {
        let kind = if self.is_folder { FOLDER } else { SECRET };
        format!("{kind}{}", self.path)
    }

    fn of_cursor(cursor: &str) -> Result<Self> {
        let strip = |kind| cursor.strip_prefix(kind).map(SecretPath::new);
        match (strip(SECRET), strip(FOLDER)) {
            (Some(Ok(path)), _) => Ok(Self::new(path, false)),
            (_, Some(Ok(path))) => Ok(Self::new(path, true)),
            _ => Err(Error::new(
                ErrorKind::InvalidReference,
                "not the end of a page of this store",
            )),
        }
    }
}

const FOLDER: &str = "folder:";
const SECRET: &str = "secret:";

fn no_secret() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    // What the contract asks of every store, its conformance suite holds. Here is what this one
    // chooses.

    fn path() -> SecretPath {
        SecretPath::new("web01/root-disk").expect("valid")
    }

    fn put(store: &MemoryStore, mode: PutMode) -> Result<Metadata> {
        let value = SecretBytes::copy_from(b"hunter2");
        let options = PutOptions::default().mode(mode);
        futures_util::FutureExt::now_or_never(store.put(&path(), &value, &options))
            .expect("nothing waits")
    }

    #[test]
    fn a_version_is_never_given_twice() {
        let store = MemoryStore::new("memory");
        let old = put(&store, PutMode::Create).expect("put").version;
        let delete = DeleteOptions::default();
        let deleted = futures_util::FutureExt::now_or_never(store.delete(&path(), &delete));
        deleted.expect("nothing waits").expect("deleted");
        put(&store, PutMode::Create).expect("put");
        let late = PutMode::Update(old.expect("a version"));
        let error = put(&store, late).expect_err("meant for the old one");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    #[test]
    fn capabilities_can_be_taken_and_not_given() {
        let store = MemoryStore::new("memory").with_capabilities(Capability::all());
        assert!(!store.capabilities.has(Capability::FIELDS));
        let store = store.with_capabilities(Capability::READ | Capability::WRITE);
        assert_eq!(store.capabilities.can, Capability::READ | Capability::WRITE);
        let error = put(&store, PutMode::Create).expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().ends_with(" create"), "{error}");
    }

    #[test]
    fn an_expired_secret_lends_no_siblings() {
        let store = MemoryStore::new("memory").with_fields(Field::new("value").expect("plain"));
        let past = SystemTime::now() - std::time::Duration::from_secs(1);
        let write = |field: &str, expires| {
            let field = Some(Field::new(field).expect("plain"));
            let options = PutOptions::default().field(field).expires(expires);
            let value = SecretBytes::copy_from(b"hunter2");
            futures_util::FutureExt::now_or_never(store.put(&path(), &value, &options))
                .expect("nothing waits")
                .expect("put");
        };
        write("old", Some(past));
        write("new", None);
        write("newer", None);
        let read = |field: &str| {
            let field = Some(Field::new(field).expect("plain"));
            store.read(&path(), &GetOptions::default().field(field))
        };
        assert_eq!(read("old").expect_err("gone").kind(), ErrorKind::NotFound);
        assert!(read("new").is_ok() && read("newer").is_ok());
    }

    #[test]
    fn debug_names_the_store_and_no_secret() {
        let store = MemoryStore::new("memory");
        put(&store, PutMode::Overwrite).expect("put");
        assert_eq!(format!("{store:?}"), "MemoryStore(\"memory\")");
    }
}
