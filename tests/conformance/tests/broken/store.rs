//! A store that breaks the contract in one way.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, Field, GetOptions,
    ListOptions, MemoryStore, Metadata, Page, PutMode, PutOptions, Recipe, Result, Secret,
    SecretBytes, SecretPath, SecretStore, SecretStoreExt as _, Version,
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    ActsAndDenies,
    ChecksTooLate,
    CountsDown,
    CreatesOverExpired,
    CreatesOverField,
    CutsLongPaths,
    CutsLongValues,
    DecodesPercent,
    DeletesAnyVersion,
    DeletesFolders,
    DoesWhatItDenies,
    DropsNewline,
    EndsAfterPage,
    ExpiresEarly,
    FoldsCase,
    ForgetsExpiry,
    ForgetsIds,
    ForgetsLabels,
    ForgetsSiblings,
    ForgetsSiblingsUnnamed,
    GeneratesOnce,
    GeneratesWhole,
    GivesCurrentForAny,
    HidesFolders,
    IgnoresCreate,
    IgnoresCursor,
    IgnoresLimit,
    IgnoresRecipe,
    JoinsMany,
    LacksWhatItClaims,
    LeaksInDebug,
    LeaksInErrors,
    LeaksInLocation,
    ListsByText,
    ListsPrefix,
    LosesEmpty,
    MapForMissingField,
    MergesMaps,
    MissesAbsent,
    MissesEmptyPrefix,
    OrdersBySegment,
    Panics,
    ProbeDeletes,
    RacesCreate,
    RacesFields,
    RacesUpdate,
    RepeatsWrites,
    ReversesMany,
    ServesExpired,
    TakesNoObject,
    TakesRoot,
    TakesStaleUpdate,
    TearsValues,
    TearsWhenDropped,
    UpdatesAbsent,
    UpdatesFieldBlindly,
    WritesAndRefuses,
    WritesFieldsUnguarded,
}

/// How long a store that races leaves others to come between: longer than a busy machine keeps a
/// task from its turn.
const RACE: Duration = Duration::from_millis(20);

/// How long before its time a secret is gone: longer than any that a trial waits for.
const EARLY: Duration = Duration::from_secs(3);

/// How long half a value is there to be read.
const TEAR: Duration = Duration::from_millis(2);

/// The memory store, with a defect or without.
pub struct Broken {
    defect: Option<Defect>,
    inner: MemoryStore,
    descriptor: Descriptor,
    /// The last value, for the defect that shows it.
    last: Mutex<Vec<u8>>,
}

impl Broken {
    pub fn with(defect: Option<Defect>) -> Arc<dyn SecretStore> {
        let location = match defect {
            Some(Defect::LeaksInLocation) => "broken://user:password@host/",
            _ => "broken://host/",
        };
        Arc::new(Self {
            defect,
            inner: MemoryStore::new("broken").with_fields(Field::new("value").expect("plain")),
            descriptor: Descriptor::new("broken", "broken", location),
            last: Default::default(),
        })
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn denied(&self) -> Capability {
        match self.defect {
            Some(Defect::DoesWhatItDenies) => Capability::DELETE,
            Some(Defect::ChecksTooLate | Defect::ActsAndDenies | Defect::WritesFieldsUnguarded) => {
                Capability::UPDATE
            }
            _ => Capability::empty(),
        }
    }

    /// The path as this store understands it.
    fn path(&self, path: &SecretPath) -> SecretPath {
        let text = match self.defect {
            Some(Defect::FoldsCase) => path.as_str().to_lowercase(),
            Some(Defect::DecodesPercent) => path.as_str().replace("%2F", "_"),
            Some(Defect::CutsLongPaths) => path.as_str().chars().take(255).collect(),
            _ => return path.clone(),
        };
        let text = text.trim_end_matches('/');
        SecretPath::new(text).unwrap_or_else(|_| path.clone())
    }

    async fn exists(&self, path: &SecretPath) -> bool {
        self.inner.exists(path).await.is_ok_and(|exists| exists)
    }

    /// The mode as this store understands it, once it has looked at what is there.
    async fn mode(&self, path: &SecretPath, mode: &PutMode) -> Result<PutMode> {
        let exists = self.exists(path).await;
        let current = self.inner.stat(path, &GetOptions::default()).await.ok();
        let expired = current.as_ref().is_some_and(|stat| stat.expires.is_some());
        let race = async || tokio::time::sleep(RACE).await;
        Ok(match (self.defect, mode) {
            (Some(Defect::IgnoresCreate), PutMode::Create) => PutMode::Overwrite,
            (Some(Defect::CreatesOverExpired), PutMode::Create) if expired => PutMode::Overwrite,
            (Some(Defect::TakesStaleUpdate), PutMode::Update(_)) if exists => PutMode::Overwrite,
            (Some(Defect::UpdatesAbsent), PutMode::Update(_)) if !exists => PutMode::Overwrite,
            (Some(Defect::ChecksTooLate), PutMode::Update(_)) if exists => {
                return Err(Error::new(ErrorKind::Unsupported, "no update here"));
            }
            (Some(Defect::RacesCreate), PutMode::Create) if !exists => {
                race().await;
                PutMode::Overwrite
            }
            (Some(Defect::RacesUpdate), PutMode::Update(version))
                if current.is_some_and(|stat| stat.version.as_ref() == Some(version)) =>
            {
                race().await;
                PutMode::Overwrite
            }
            (_, mode) => mode.clone(),
        })
    }

    /// What becomes of a write to a map, where it is not just written.
    async fn put_map(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &mut PutOptions,
    ) -> Option<Result<Metadata>> {
        let whole = PutOptions::default().field(Some(Field::all()));
        let named = options.field.as_ref().filter(|field| !field.is_all());
        let map = async || {
            let all = GetOptions::default().field(Some(Field::all()));
            let text = self.inner.get(path, &all).await.ok()?.value;
            serde_json::from_slice::<serde_json::Value>(text.expose()).ok()
        };
        match self.defect? {
            Defect::ForgetsSiblings if named.is_some() => self.forget(path).await,
            Defect::ForgetsSiblingsUnnamed
                if options.field.is_none() && options.mode == PutMode::Overwrite =>
            {
                self.forget(path).await;
            }
            Defect::CreatesOverField if named.is_some() => options.mode = PutMode::Overwrite,
            Defect::UpdatesFieldBlindly if named.is_some() => options.mode = PutMode::Overwrite,
            Defect::TakesNoObject => {
                let answer = self.inner.put(path, value, options).await;
                let refused = answer
                    .as_ref()
                    .is_err_and(|e| e.kind() == ErrorKind::Corrupt);
                if refused {
                    options.field = None;
                    return None;
                }
                return Some(answer);
            }
            Defect::MergesMaps if options.field == Some(Field::all()) => {
                let mut old = map().await?;
                let new: serde_json::Value = serde_json::from_slice(value.expose()).ok()?;
                old.as_object_mut()?.extend(new.as_object()?.clone());
                let value = SecretBytes::copy_from(old.to_string().as_bytes());
                return Some(self.inner.put(path, &value, &whole).await);
            }
            Defect::RacesFields => {
                let field = named?.to_string();
                let mut old = map().await?;
                tokio::time::sleep(RACE).await;
                let text = std::str::from_utf8(value.expose()).ok()?;
                old.as_object_mut()?.insert(field, text.into());
                let value = SecretBytes::copy_from(old.to_string().as_bytes());
                return Some(self.inner.put(path, &value, &whole).await);
            }
            _ => {}
        }
        None
    }

    async fn forget(&self, path: &SecretPath) {
        let gone = self.inner.delete(path, &DeleteOptions::default()).await;
        gone.expect("deleted");
    }

    fn options(&self, options: &PutOptions, mode: PutMode) -> PutOptions {
        let mut options = options.clone().mode(mode);
        match self.defect {
            Some(Defect::ForgetsExpiry) => options.expires = None,
            Some(Defect::ForgetsIds) => options.idempotency = None,
            Some(Defect::ForgetsLabels) => options.labels.clear(),
            Some(Defect::RepeatsWrites) if options.mode == PutMode::Overwrite => {
                options.idempotency = None;
            }
            _ => {}
        }
        options
    }
}

#[async_trait]
impl SecretStore for Broken {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let told = self.inner.capabilities().await?;
        Ok(Capabilities::new(told.can - self.denied(), told.max_value))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let mut options = options.clone();
        options.expired |= self.is(Defect::ServesExpired);
        let path = self.path(path);
        let mut secret = match self.inner.get(&path, &options).await {
            Err(_) if self.is(Defect::MapForMissingField) && options.field.is_some() => {
                let whole = options.field(Some(Field::all()));
                self.inner.get(&path, &whole).await?
            }
            Err(_) if self.is(Defect::GivesCurrentForAny) => {
                self.inner.get(&path, &options.version(None)).await?
            }
            answer => answer?,
        };
        if self.is(Defect::ExpiresEarly) && secret.metadata.is_expired(SystemTime::now() + EARLY) {
            return Err(Error::new(ErrorKind::NotFound, "as good as expired"));
        }
        if let (true, [start @ .., b'\n']) = (self.is(Defect::DropsNewline), secret.value.expose())
        {
            secret.value = SecretBytes::copy_from(start);
        }
        Ok(secret)
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let mut answers = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            if !self.is(Defect::JoinsMany) || !paths[..index].contains(path) {
                answers.push(self.get(path, options).await);
            }
        }
        if self.is(Defect::ReversesMany) {
            answers.reverse();
        }
        answers
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        if self.is(Defect::LacksWhatItClaims) {
            return Err(Error::new(ErrorKind::Unsupported, "no stat here"));
        }
        self.inner.stat(&self.path(path), options).await
    }

    async fn put(&self, p: &SecretPath, value: &SecretBytes, o: &PutOptions) -> Result<Metadata> {
        if p.is_root() && self.is(Defect::TakesRoot) {
            return Ok(Metadata::default());
        }
        let path = self.path(p);
        let exists = self.exists(&path).await;
        let mut options = self.options(o, self.mode(&path, &o.mode).await?);
        if self.is(Defect::WritesFieldsUnguarded) && matches!(o.mode, PutMode::Update(_)) {
            return Err(Error::new(ErrorKind::Unsupported, "no update here"));
        }
        if let Some(answer) = self.put_map(&path, value, &mut options).await {
            return answer;
        }
        let mut bytes = value.expose();
        match self.defect {
            Some(Defect::LosesEmpty) if bytes.is_empty() => return Ok(Metadata::default()),
            Some(Defect::CutsLongValues) => {
                bytes = &bytes[..bytes.len().min(MemoryStore::MAX_VALUE)]
            }
            Some(Defect::WritesAndRefuses) if exists && o.mode == PutMode::Create => {
                self.inner.put(&path, value, &PutOptions::default()).await?;
            }
            Some(Defect::ActsAndDenies) if matches!(o.mode, PutMode::Update(_)) => {
                options.mode = PutMode::Overwrite;
                self.inner.put(&path, value, &options).await?;
                return Err(Error::new(ErrorKind::Unsupported, "no update here"));
            }
            Some(Defect::TearsValues | Defect::TearsWhenDropped) if bytes.len() > 20 => {
                let half = SecretBytes::copy_from(&bytes[..bytes.len() / 2]);
                let plain = PutOptions::default();
                if self.is(Defect::TearsValues) || exists {
                    self.inner.put(&path, &half, &plain).await?;
                    if self.is(Defect::TearsValues) {
                        tokio::time::sleep(TEAR).await;
                    }
                    tokio::task::yield_now().await;
                }
            }
            Some(Defect::LeaksInDebug) => self.last.lock().expect("no panic").extend(bytes),
            _ => {}
        }
        let answer = self
            .inner
            .put(&path, &SecretBytes::copy_from(bytes), &options)
            .await;
        if let (Ok(metadata), true) = (&answer, self.is(Defect::CountsDown)) {
            let number: u64 = metadata
                .version
                .as_ref()
                .map_or(0, |v| v.as_str().parse().expect("a number"));
            let version = Version::new((u64::MAX - number).to_string());
            return Ok(Metadata::new(version.ok()));
        }
        match answer {
            Err(error) if self.is(Defect::LeaksInErrors) => {
                let value = String::from_utf8_lossy(bytes).into_owned();
                Err(error.with_source(std::io::Error::other(value)))
            }
            answer => answer,
        }
    }

    async fn generate(&self, p: &SecretPath, r: &Recipe, o: &PutOptions) -> Result<Metadata> {
        let path = self.path(p);
        let options = self.options(o, self.mode(&path, &o.mode).await?);
        if self.is(Defect::GeneratesWhole) && o.field.is_some() {
            self.forget(&path).await;
        }
        if self.denied().contains(Capability::UPDATE) && matches!(o.mode, PutMode::Update(_)) {
            return Err(Error::new(ErrorKind::Unsupported, "no update here"));
        }
        if self.is(Defect::IgnoresRecipe) {
            return self
                .inner
                .generate(&path, &Recipe::default(), &options)
                .await;
        }
        if self.is(Defect::GeneratesOnce) {
            let value = SecretBytes::init_with(r.length(), |bytes| bytes.fill(b'a'));
            return self.inner.put(&path, &value, &options).await;
        }
        self.inner.generate(&path, r, &options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let path = self.path(path);
        if self.is(Defect::MissesAbsent) && !self.exists(&path).await {
            return Err(Error::new(ErrorKind::NotFound, "no such secret"));
        }
        if options.version.is_some() && self.denied().contains(Capability::UPDATE) {
            return Err(Error::new(ErrorKind::Unsupported, "no versions here"));
        }
        if self.is(Defect::DeletesFolders) {
            for below in self.inner.list_all(&path).await? {
                self.inner.delete(&below, &DeleteOptions::default()).await?;
            }
        }
        let mut options = options.clone();
        if self.is(Defect::DeletesAnyVersion) {
            options.version = None;
        }
        self.inner.delete(&path, &options).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let mut options = options.clone();
        match self.defect {
            Some(Defect::IgnoresLimit) if options.limit != Some(0) => options.limit = None,
            Some(Defect::IgnoresCursor) => options.after = None,
            _ => {}
        }
        let mut page = self.inner.list(prefix, &options).await?;
        let is_empty = page.secrets.is_empty() && page.folders.is_empty();
        match self.defect {
            Some(Defect::HidesFolders) => page.folders.clear(),
            Some(Defect::EndsAfterPage) => page.next = None,
            Some(Defect::MissesEmptyPrefix) if is_empty => {
                return Err(Error::new(ErrorKind::NotFound, "nothing there"));
            }
            Some(Defect::ListsPrefix) if self.exists(prefix).await => {
                page.secrets.insert(0, prefix.clone());
            }
            Some(Defect::ListsByText) => {
                let all = self.inner.list_all(&SecretPath::root()).await?;
                let begins = |path: &SecretPath| path.as_str().starts_with(prefix.as_str());
                page.secrets = all
                    .into_iter()
                    .filter(|path| begins(path) && path != prefix)
                    .collect();
            }
            Some(Defect::OrdersBySegment) => {
                let segments = |path: &SecretPath| path.segments().map(String::from).collect();
                page.secrets
                    .sort_by_key(|path| -> Vec<String> { segments(path) });
            }
            _ => {}
        }
        Ok(page)
    }

    async fn probe(&self) -> Result<()> {
        assert!(!self.is(Defect::Panics), "a panic on purpose");
        if self.is(Defect::ProbeDeletes) {
            for path in self.inner.list_all(&SecretPath::root()).await? {
                self.inner.delete(&path, &DeleteOptions::default()).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last.lock().expect("no panic");
        write!(f, "Broken({:?}, {:?})", self.defect, *last)
    }
}
