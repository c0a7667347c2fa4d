//! From one store to another: values with their labels, expiry and versions, where both can.
//!
//! A copy can be made again at any time: what is there already and equal is left alone, what
//! differs is an error unless it may be replaced, and nothing is ever deleted. A copy that was broken
//! off is made again and goes on.

mod one;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use self::one::Fit;
use crate::store::{Capabilities, Capability, Request};
use crate::{Error, ErrorKind, GetOptions, Result, SecretPath, SecretStore, SecretStoreExt as _};

/// How many secrets are copied at the same time. What a store can bear, its throttle holds.
const CONCURRENT: usize = 16;

/// What to copy, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CopyOptions {
    /// The secret here and all below; the root for everything.
    pub prefix: SecretPath,
    /// Look at both stores and write nothing.
    pub dry_run: bool,
    /// Read each secret back and compare.
    pub verify: bool,
    /// Replace what is there and differs.
    pub overwrite: bool,
    /// Copy the versions before the current one too, where both stores have versions.
    pub versions: bool,
    /// On whose behalf. Its deadline would be that of everything together.
    pub request: Request,
}

impl CopyOptions {
    /// Everything at and below `prefix`: current values only, and nothing replaced.
    pub fn new(prefix: SecretPath, request: Request) -> Self {
        Self {
            prefix,
            dry_run: false,
            verify: false,
            overwrite: false,
            versions: false,
            request,
        }
    }
}

/// What became of one secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Copied {
    /// So many versions were written, or would be by a run that is not dry.
    Written(usize),
    /// It was there already.
    Same,
    /// It has expired at its source, and was left there.
    Expired,
    /// Its source lists it, and has no current value: it was deleted meanwhile, or the store keeps
    /// the names or older versions of what was deleted.
    Gone,
}

/// A secret and what became of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Item {
    /// Its path, in both stores.
    pub path: SecretPath,
    /// What became of it.
    pub outcome: Result<Copied>,
}

/// Copies secrets from one store to another, and tells what became of each, in the order of their
/// paths. `progress` is told how many are done, of how many.
///
/// Maps are copied whole between two stores that have fields; otherwise the value is that which
/// each store takes to be meant where no field is named. Labels are left behind where the store
/// copied to has none; a secret that expires is not copied to a store without expiry.
///
/// A store names no versions but the current one. Those before it are found where versions are
/// numbers, by counting down: see [`Capability::VERSIONS`].
///
/// # Errors
/// Where nothing could be begun: `Unsupported` where a store lacks what this takes, or the failure
/// of listing. What fails for one secret is that secret's own.
pub async fn copy(
    from: Arc<dyn SecretStore>,
    to: Arc<dyn SecretStore>,
    options: &CopyOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Item>> {
    let fit = fit(&*from, &*to, options).await?;
    let paths = paths(&*from, options).await?;
    progress(0, paths.len());
    let mut items = Vec::with_capacity(paths.len());
    let (from, to) = (&*from, &*to);
    let mut done = stream::iter(paths.iter())
        .map(|path| async move {
            let outcome = one::copy(from, to, path, fit, options).await;
            let path = path.clone();
            Item { path, outcome }
        })
        .buffer_unordered(CONCURRENT);
    while let Some(item) = done.next().await {
        items.push(item);
        progress(items.len(), paths.len());
    }
    drop(done);
    items.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(items)
}

/// What both stores can, or why they cannot.
async fn fit(from: &dyn SecretStore, to: &dyn SecretStore, options: &CopyOptions) -> Result<Fit> {
    let (source, target) = (from.capabilities().await?, to.capabilities().await?);
    need(from, source, Capability::READ | Capability::LIST)?;
    // To know what is there already.
    need(to, target, Capability::READ)?;
    let writes = if options.overwrite {
        Capability::WRITE | Capability::UPDATE
    } else {
        Capability::WRITE | Capability::CREATE
    };
    if !options.dry_run && !target.can.intersects(writes) {
        return Err(lacks(to, writes));
    }
    let both = |wanted| source.has(wanted) && target.has(wanted);
    Ok(Fit {
        target: target.can,
        maps: both(Capability::FIELDS),
        versions: options.versions && both(Capability::VERSIONS),
    })
}

fn need(store: &dyn SecretStore, told: Capabilities, wanted: Capability) -> Result<()> {
    let missing = wanted - told.can;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(lacks(store, missing))
    }
}

fn lacks(store: &dyn SecretStore, missing: Capability) -> Error {
    let message = format!(
        "a copy needs what this store cannot do: {}",
        missing.names().join(", ")
    );
    Error::new(ErrorKind::Unsupported, message).with_store(&store.descriptor().name)
}

/// What there is to copy, in byte order.
async fn paths(from: &dyn SecretStore, options: &CopyOptions) -> Result<Vec<SecretPath>> {
    let mut paths = Vec::new();
    if !options.prefix.is_root() {
        let stat = GetOptions::default().request(options.request.clone());
        match from.stat(&options.prefix, &stat).await {
            Ok(_) => paths.push(options.prefix.clone()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    paths.extend(from.list_for(&options.prefix, &options.request).await?);
    Ok(paths)
}
