//! The contract, over blocking engines.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutMode, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    SecretStore, StoreConfig, wiping_stack,
};

use crate::config::Settings;
use crate::encrypted::Encrypted;
use crate::plain::Plain;
use crate::readers::Readers;

/// A store of files: encrypted, or clear text.
///
/// File systems block, and one on a network can hang: no operation runs on the caller's thread, so
/// that whoever waits can give up. An abandoned write still ends with the old value or the new one.
/// Needs a tokio runtime with its clock enabled.
pub struct FileStore {
    descriptor: Descriptor,
    engine: Arc<dyn Engine>,
    readers: Readers,
}

/// What the two kinds of store do, one system call after the other. Options have been held against
/// the capabilities before.
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    fn capabilities(&self) -> Capabilities;
    /// Opens the store for reading.
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
    fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata>;
    fn put(&self, path: &SecretPath, value: &SecretBytes, options: &PutOptions)
    -> Result<Metadata>;
    fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()>;
    fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page>;
    fn probe(&self) -> Result<()>;
}

/// A store open for reading, as it was at that time: what has taken its place since is not seen.
pub(crate) trait Reader {
    fn get(&mut self, path: &SecretPath, options: &GetOptions) -> Result<Secret>;
}

impl FileStore {
    /// Opens a store. Does no I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        let root = match &settings {
            Settings::Encrypted(settings) => &settings.root,
            Settings::Plain(settings) => &settings.root,
        };
        let scheme = config.url.scheme();
        let location = format!("{scheme}://{}", root.display());
        let descriptor = Descriptor::new(&config.name, scheme, location);
        let engine: Arc<dyn Engine> = match settings {
            Settings::Encrypted(settings) => Arc::new(Encrypted::new(settings)),
            Settings::Plain(settings) => Arc::new(Plain::new(settings)),
        };
        let readers = Readers::new(Arc::clone(&engine));
        Ok(Self {
            descriptor,
            engine,
            readers,
        })
    }

    fn need(&self, wanted: Capability, what: &'static str) -> Result<()> {
        if self.engine.capabilities().has(wanted) {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} stores have no {what}", self.descriptor.scheme),
            ))
        }
    }

    fn check_get(&self, options: &GetOptions) -> Result<()> {
        if options.field.is_some() {
            self.need(Capability::FIELDS, "fields")?;
        }
        if options.version.is_some() {
            self.need(Capability::VERSIONS, "versions")?;
        }
        Ok(())
    }

    fn check_put(&self, options: &PutOptions) -> Result<()> {
        if options.field.is_some() {
            self.need(Capability::FIELDS, "fields")?;
        }
        if matches!(options.mode, PutMode::Update(_)) {
            self.need(Capability::UPDATE, "compare-and-set")?;
        }
        if !options.labels.is_empty() {
            self.need(Capability::LABELS, "labels")?;
        }
        if options.expires.is_some() {
            self.need(Capability::EXPIRY, "expiry")?;
        }
        Ok(())
    }

    fn check_size(&self, len: usize) -> Result<()> {
        let most = self.engine.capabilities().max_value;
        if len > most {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the value is over the store's limit of {most} bytes"),
            ));
        }
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let engine = Arc::clone(&self.engine);
        // The thread lives on, and with it what ciphers leave on its stack.
        let work = move || wiping_stack(|| work(engine.as_ref()));
        let done = tokio::task::spawn_blocking(work).await;
        // What a panic said stays out: it could be anything.
        done.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "the file store's thread ended early",
            ))
        })
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for FileStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.engine.capabilities())
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let mut answers = self.get_many(std::slice::from_ref(path), options).await;
        answers
            .pop()
            .unwrap_or_else(|| Err(crate::error::internal("the file store gave no answer")))
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let answers = match self.check_get(options) {
            Err(error) => Err(error),
            Ok(()) => self.readers.read(paths, options).await,
        };
        answers.unwrap_or_else(|error| paths.iter().map(|_| Err(error.duplicate())).collect())
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.check_get(options)?;
        let (path, options) = (path.clone(), options.clone());
        self.blocking(move |engine| {
            not_root(&path)?;
            engine.stat(&path, &options)
        })
        .await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.check_put(options)?;
        self.check_size(value.len())?;
        let (path, options) = (path.clone(), options.clone());
        // The thread can outlive the caller, so it owns a copy, in memory as well kept.
        let value = SecretBytes::copy_from(value.expose());
        self.blocking(move |engine| {
            not_root(&path)?;
            engine.put(&path, &value, &options)
        })
        .await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.check_put(options)?;
        self.check_size(recipe.length())?;
        let (path, recipe, options) = (path.clone(), *recipe, options.clone());
        self.blocking(move |engine| {
            not_root(&path)?;
            engine.put(&path, &recipe.make()?, &options)
        })
        .await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        if options.version.is_some() {
            self.need(Capability::UPDATE, "compare-and-set")?;
        }
        let (path, options) = (path.clone(), options.clone());
        self.blocking(move |engine| {
            not_root(&path)?;
            engine.delete(&path, &options)
        })
        .await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let (prefix, options) = (prefix.clone(), options.clone());
        self.blocking(move |engine| engine.list(&prefix, &options))
            .await
    }

    async fn probe(&self) -> Result<()> {
        self.blocking(|engine| engine.probe()).await
    }
}

/// The root is a place to list, not a secret.
pub(crate) fn not_root(path: &SecretPath) -> Result<()> {
    if path.is_root() {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "the root of a store is no secret",
        ));
    }
    Ok(())
}
