//! Conveniences over [`SecretStore`].

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::store::{GetOptions, ListOptions, Page, Request, SecretStore};
use crate::{Error, ErrorKind, Result, Secret, SecretPath};

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
        self.list_for(prefix, &Request::default()).await
    }

    /// As [`list_all`](Self::list_all), on behalf of `request`.
    ///
    /// # Errors
    /// As [`SecretStore::list`]; `Corrupt` where the pages do not go on, since a listing that comes
    /// back to where it was would have no end.
    async fn list_for(&self, prefix: &SecretPath, request: &Request) -> Result<Vec<SecretPath>> {
        let mut options = ListOptions::default().request(request.clone());
        let mut all = Vec::new();
        loop {
            let page = self.list(prefix, &options).await?;
            if !goes_on(&all, &page, options.after.as_deref()) {
                let rule = "the store's listing does not go on from one page to the next";
                return Err(Error::new(ErrorKind::Corrupt, rule)
                    .with_store(&self.descriptor().name)
                    .with_path(prefix)
                    .with_advice("tell the author of the store's backend or plugin"));
            }
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

/// Whether `page`, from after this cursor, is one that can come after `all`. It may be empty: what was
/// on it may be nobody's business here.
fn goes_on(all: &[SecretPath], page: &Page, after: Option<&str>) -> bool {
    let order = match (all.last(), page.secrets.first()) {
        (Some(last), Some(first)) => last < first,
        _ => true,
    };
    order && (page.next.is_none() || page.next.as_deref() != after)
}
