//! Deleting.

use keyhaul_core::{
    Capability, DeleteOptions, Error, ErrorKind, Request, Result, SecretBytes, SecretPath,
};
use reqwest::Method;

use super::change::written;
use super::current::Current;
use super::paths::{DELETE, KvVersion, Mount};
use super::{Kv, not_root, number_of, succeeded};
use crate::http::Call;

impl Kv {
    pub(crate) async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let request = &options.request;
        let mount = self.mounted.get_sure(&self.wire, request).await?;
        if options.version.is_some() {
            self.need(&mount, Capability::UPDATE)?;
        }
        not_root(path)?;
        if mount.version == KvVersion::One {
            let _turn = self.one_writer.lock().await;
            let call = Call::new(Method::DELETE, mount.data(path));
            return succeeded(self.send(request, call, "delete").await?).map(drop);
        }
        let mut last = None;
        if let Some(version) = &options.version {
            last = self
                .guard(&mount, path, number_of(version), request)
                .await?;
            if last.is_none() {
                return Ok(());
            }
        }
        if self.soft_delete {
            return self.mark_deleted(&mount, path, last, request).await;
        }
        let call = Call::new(Method::DELETE, mount.metadata(path));
        succeeded(self.send(request, call, "delete").await?).map(drop)
    }

    /// Writes an empty version over `version`, so that whoever would still update it conflicts:
    /// deleting itself compares nothing. The empty version's number, none where there is nothing to delete.
    ///
    /// # Errors
    /// `Conflict` where it is not the current one.
    async fn guard(
        &self,
        mount: &Mount,
        path: &SecretPath,
        version: Option<u64>,
        request: &Request,
    ) -> Result<Option<u64>> {
        if let Some(number) = version {
            let body = format!("{{\"data\":{{}},\"options\":{{\"cas\":{number}}}}}");
            let body = SecretBytes::copy_from(body.as_bytes());
            let call = Call::new(Method::POST, mount.data(path)).body(body);
            if let Some(empty) = written(&self.send(request, call, "update").await?)? {
                return Ok(Some(empty.version));
            }
        }
        match self.current(mount, path, request).await? {
            Current::Absent | Current::Gone(_) => Ok(None),
            Current::There(_) => Err(Error::new(
                ErrorKind::Conflict,
                "the version given is not the current one",
            )),
        }
    }

    /// Marks every version deleted that is there now, up to `last`. One that others write meanwhile stays.
    async fn mark_deleted(
        &self,
        mount: &Mount,
        path: &SecretPath,
        last: Option<u64>,
        request: &Request,
    ) -> Result<()> {
        let Some(about) = self.about(mount, path, request).await? else {
            return Ok(());
        };
        let live = about.live().into_iter();
        let live = live.filter(|number| last.is_none_or(|last| *number <= last));
        let live: Vec<_> = live.map(|number| number.to_string()).collect();
        if live.is_empty() {
            return Ok(());
        }
        let body = format!("{{\"versions\":[{}]}}", live.join(","));
        let body = SecretBytes::copy_from(body.as_bytes());
        let call = Call::new(Method::POST, mount.part(DELETE, path)).body(body);
        succeeded(self.send(request, call, "update").await?).map(drop)
    }
}
