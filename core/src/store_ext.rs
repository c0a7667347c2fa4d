//! Conveniences over [`SecretStore`].

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::store::{GetOptions, ListOptions, SecretStore};
use crate::{Result, Secret, SecretPath};

/// What every store can do with its contract's few methods.
#[async_trait]
pub trait SecretStoreExt: SecretStore {
    /// Whether there is a secret at `path`, expired or not.
    ///
    /// # Errors
    /// As [`SecretStore::stat`], save `NotFound`.
    async fn exists(&self, path: &SecretPath) -> Result<bool> {
        match self.stat(path, &GetOptions::default()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == crate::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every secret below `prefix`, all pages of it.
    ///
    /// # Errors
    /// As [`SecretStore::list`].
    async fn list_all(&self, prefix: &SecretPath) -> Result<Vec<SecretPath>> {
        let mut options = ListOptions::default();
        let mut all = Vec::new();
        loop {
            let page = self.list(prefix, &options).await?;
            all.extend(page.secrets);
            match page.next {
                Some(next) => options.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// `get` for each path, at most `limit` at a time: the body of `get_many` for stores that
    /// cannot batch.
    async fn get_each(
        &self,
        paths: &[SecretPath],
        options: &GetOptions,
        limit: usize,
    ) -> Vec<Result<Secret>> {
        stream::iter(0..paths.len())
            .map(|index| self.get(&paths[index], options))
            .buffered(limit.max(1))
            .collect()
            .await
    }
}

impl<S: SecretStore + ?Sized> SecretStoreExt for S {}
