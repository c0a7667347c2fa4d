//! The contract, over files and a program.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore,
    SecretStoreExt as _, StoreConfig, law, page, wiping_stack,
};
use tokio::sync::Semaphore;

use crate::config::{SCHEME, Settings};
use crate::engine::Engine;
use crate::error::internal;
use crate::{MAX_VALUE, PROGRAMS};

const CAN: Capability = Capability::READ
    .union(Capability::WRITE)
    .union(Capability::CREATE)
    .union(Capability::DELETE)
    .union(Capability::LIST)
    .union(Capability::GENERATE);

/// How long a request waits for its turn: those before it end by the limit, unless the kernel itself
/// holds them.
const PATIENCE: Duration = Duration::from_secs(60);
/// A store of credentials encrypted by `systemd-creds`.
///
/// Needs a tokio runtime. Files and programs are waited for on threads of their own; an abandoned
/// write ends with the old value or the new one.
pub struct SystemdCredsStore {
    descriptor: Descriptor,
    engine: Arc<Engine>,
    threads: Arc<Semaphore>,
}

impl SystemdCredsStore {
    /// Opens a store. Does no I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        let location = format!("{SCHEME}:{}", settings.folder.display());
        Ok(Self {
            descriptor: Descriptor::new(&config.name, SCHEME, location),
            engine: Arc::new(Engine::new(settings)),
            threads: Arc::new(Semaphore::new(PROGRAMS as usize)),
        })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.threads).acquire_owned();
        let turn = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "all of the store's programs are at work and none comes to its end",
            )
            .with_advice("see whether systemd-creds answers when it is run by hand")
        })?;
        let turn = turn.map_err(|_| internal("the store's threads are closed"))?;
        let engine = Arc::clone(&self.engine);
        let work = move || {
            let _turn = turn;
            wiping_stack(|| work(&engine))
        };
        let done = tokio::task::spawn_blocking(work).await;
        // What a panic said stays out: it could be anything.
        done.unwrap_or_else(|_| Err(internal("the store's thread ended early")))
    }
}

impl fmt::Debug for SystemdCredsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemdCredsStore({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for SystemdCredsStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(CAN, MAX_VALUE))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        let (path, options) = (path.clone(), options.clone());
        self.on_thread(move |engine| engine.get(&path, &options))
            .await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        self.get_each(paths, options, PROGRAMS as usize).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        let path = path.clone();
        self.on_thread(move |engine| engine.stat(&path)).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(value.len(), MAX_VALUE)?;
        let (path, options) = (path.clone(), options.clone());
        // The thread can outlive the caller, so it owns a copy, in memory as well kept.
        let value = SecretBytes::copy_from(value.expose());
        self.on_thread(move |engine| engine.put(&path, &value, &options))
            .await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(recipe.length(), MAX_VALUE)?;
        let (path, recipe, options) = (path.clone(), *recipe, options.clone());
        self.on_thread(move |engine| engine.put(&path, &recipe.make()?, &options))
            .await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        law::need(CAN, law::to_delete(options))?;
        let path = path.clone();
        self.on_thread(move |engine| engine.delete(&path)).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        page::check(options)?;
        let (prefix, options) = (prefix.clone(), options.clone());
        self.on_thread(move |engine| engine.list(&prefix, &options))
            .await
    }

    async fn probe(&self) -> Result<()> {
        self.on_thread(Engine::probe).await
    }
}
