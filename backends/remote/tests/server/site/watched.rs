//! The store behind the service. A layer cannot change what it answers, so it forwards by itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    MemoryStore, Metadata, Page, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    SecretStore,
};
use tokio::sync::Semaphore;

/// A store that counts how often it is asked, and fails or panics on certain names.
#[derive(Debug)]
pub struct Watched {
    pub inner: MemoryStore,
    pub asked: AtomicUsize,
    /// Whether its metadata say neither version nor time.
    pub is_blank: AtomicBool,
    /// Whether it has no room.
    pub is_full: AtomicBool,
    /// What a write of `…/slow` waits for.
    pub slow: Semaphore,
    /// How many calls hang, as their names want it.
    pub hanging: AtomicUsize,
}

impl Watched {
    fn note(&self, path: &SecretPath) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(!path.as_str().ends_with("/panic"), "as the test wants it");
    }

    /// Never comes back where one of the paths is to hang.
    async fn hang(&self, paths: &[SecretPath]) {
        if paths.iter().any(|path| path.as_str().contains("/hang")) {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl SecretStore for Watched {
    fn descriptor(&self) -> &Descriptor {
        self.inner.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.note(path);
        self.hang(std::slice::from_ref(path)).await;
        self.inner.get(path, options).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        paths.iter().for_each(|path| self.note(path));
        self.hang(paths).await;
        self.inner.get_many(paths, options).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.note(path);
        let mut metadata = self.inner.stat(path, options).await?;
        if self.is_blank.load(Ordering::SeqCst) {
            (metadata.version, metadata.created) = (None, None);
        }
        Ok(metadata)
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.note(path);
        if self.is_full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::StorageFull, "no room"));
        }
        if path.as_str().ends_with("/slow") {
            self.slow.acquire().await.expect("open").forget();
        }
        self.inner.put(path, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.note(path);
        if path.as_str().contains("/hang") {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.inner.generate(path, recipe, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.note(path);
        self.inner.delete(path, options).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.note(prefix);
        self.inner.list(prefix, options).await
    }

    async fn probe(&self) -> Result<()> {
        self.inner.probe().await
    }
}
