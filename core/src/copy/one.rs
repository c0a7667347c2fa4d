//! One secret from one store to another.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use super::{Copied, CopyOptions};
use crate::fields::Fields;
use crate::reference::{Field, Version};
use crate::store::{Capability, GetOptions, PutMode, PutOptions, Secret};
use crate::{Error, ErrorKind, Result, SecretBytes, SecretPath, SecretStore};

/// How many numbers in a row may be missing before the versions count as ended.
const GAP: u64 = 16;

/// What two stores have in common.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    /// What the store copied to can do.
    pub(super) target: Capability,
    /// Whether values are copied as whole maps.
    pub(super) maps: bool,
    /// Whether older versions are copied.
    pub(super) versions: bool,
}

impl Fit {
    fn field(self) -> Option<Field> {
        self.maps.then(Field::all)
    }

    /// Whether two secrets are the same, as far as the store copied to can tell them apart.
    fn same(self, source: &Secret, there: &Secret) -> bool {
        let (a, b) = (&source.metadata, &there.metadata);
        self.same_value(&source.value, &there.value)
            && (!self.target.contains(Capability::LABELS) || a.labels == b.labels)
            && (!self.target.contains(Capability::EXPIRY) || same_time(a.expires, b.expires))
    }

    /// A map is the same in whatever order its fields are written.
    fn same_value(self, one: &SecretBytes, other: &SecretBytes) -> bool {
        if one == other {
            return true;
        }
        let maps = (Fields::parse(one.expose()), Fields::parse(other.expose()));
        self.maps && matches!(maps, (Ok(one), Ok(other)) if one == other)
    }
}

pub(super) async fn copy(
    from: &dyn SecretStore,
    to: &dyn SecretStore,
    path: &SecretPath,
    fit: Fit,
    options: &CopyOptions,
) -> Result<Copied> {
    let get = GetOptions::default()
        .field(fit.field())
        .request(options.request.clone());
    let current = match from.get(path, &get).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return absent(from, path, &get, error).await;
        }
        answer => answer?,
    };
    let there = match to.get(path, &get.clone().expired(true)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        answer => Some(answer?),
    };
    if there
        .as_ref()
        .is_some_and(|there| fit.same(&current, there))
    {
        return Ok(Copied::Same);
    }
    let mut missing = if fit.versions {
        older(from, path, &get, &current).await?
    } else {
        Vec::new()
    };
    missing.push(current);
    if let Some(there) = &there {
        // One of those before: a copy that was broken off.
        let known = known(to, path, &get, fit, &missing, there).await?;
        match known {
            Some(known) => drop(missing.drain(..=known)),
            None if options.overwrite => {}
            None => return Err(differs(to, path)),
        }
    }
    for secret in &missing {
        if secret.metadata.expires.is_some() && !fit.target.contains(Capability::EXPIRY) {
            return Err(cannot_expire(to, path));
        }
    }
    if options.dry_run {
        return Ok(Copied::Written(missing.len()));
    }
    let mut before = there.map(|there| there.metadata.version);
    for secret in &missing {
        let put = PutOptions::default()
            .mode(mode(fit.target, before.as_ref()))
            .field(fit.field())
            .request(options.request.clone());
        let written = to
            .put(path, &secret.value, &carrying(put, fit, secret))
            .await?;
        before = Some(written.version);
    }
    if let (true, Some(last)) = (options.verify, missing.last()) {
        let back = to.get(path, &get.clone().expired(true)).await?;
        if !fit.same_value(&last.value, &back.value) {
            return Err(error(
                to,
                path,
                ErrorKind::Corrupt,
                "what came back is not what was written",
            ));
        }
    }
    Ok(Copied::Written(missing.len()))
}

/// What is listed and not given out: it has expired, it is gone, or the error is right, as for a
/// field that a map has not.
async fn absent(
    from: &dyn SecretStore,
    path: &SecretPath,
    get: &GetOptions,
    error: Error,
) -> Result<Copied> {
    match from.stat(path, get).await {
        Ok(metadata) if metadata.is_expired(SystemTime::now()) => Ok(Copied::Expired),
        Err(stat) if stat.kind() == ErrorKind::NotFound => Ok(Copied::Gone),
        _ => Err(error),
    }
}

/// The versions before the current one that the store still gives out, oldest first.
async fn older(
    from: &dyn SecretStore,
    path: &SecretPath,
    get: &GetOptions,
    current: &Secret,
) -> Result<Vec<Secret>> {
    let version = current.metadata.version.as_ref();
    let number = version.and_then(|version| version.as_str().parse::<u64>().ok());
    let mut found = Vec::new();
    let mut missing = 0;
    for number in (1..number.unwrap_or(1)).rev() {
        let version = Version::new(number.to_string())?;
        let get = get.clone().version(Some(version)).expired(true);
        match from.get(path, &get).await {
            Ok(secret) => {
                missing = 0;
                if !secret.metadata.is_expired(SystemTime::now()) {
                    found.push(secret);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => missing += 1,
            Err(error) => return Err(error),
        }
        if missing == GAP {
            break;
        }
    }
    found.reverse();
    Ok(found)
}

/// Which of a source's versions, oldest first, is the current one of the store copied to.
///
/// Where several are like it, what came before them tells which it is; what nothing tells apart is
/// the oldest: a version that is there twice is a lesser evil than one that is lost.
async fn known(
    to: &dyn SecretStore,
    path: &SecretPath,
    get: &GetOptions,
    fit: Fit,
    source: &[Secret],
    there: &Secret,
) -> Result<Option<usize>> {
    let like = (0..source.len()).filter(|index| fit.same(&source[*index], there));
    let like: Vec<usize> = like.collect();
    if like.len() < 2 {
        return Ok(like.first().copied());
    }
    let before = older(to, path, get, there).await?;
    let in_common = |index: usize| {
        let pairs = source[..index].iter().rev().zip(before.iter().rev());
        pairs
            .take_while(|(one, other)| fit.same(one, other))
            .count()
    };
    Ok(like
        .into_iter()
        .max_by_key(|index| (in_common(*index), Reverse(*index))))
}

/// How to write after what is known to be there: nothing, or a version.
fn mode(can: Capability, before: Option<&Option<Version>>) -> PutMode {
    match before {
        None if can.contains(Capability::CREATE) => PutMode::Create,
        Some(Some(version)) if can.contains(Capability::UPDATE) => PutMode::Update(version.clone()),
        _ => PutMode::Overwrite,
    }
}

/// The options with what the secret carries.
fn carrying(put: PutOptions, fit: Fit, secret: &Secret) -> PutOptions {
    let put = put.expires(secret.metadata.expires);
    if fit.target.contains(Capability::LABELS) {
        put.labels(secret.metadata.labels.clone())
    } else {
        put
    }
}

/// Whether two times are the same to the second, which some stores cut them to.
fn same_time(one: Option<SystemTime>, other: Option<SystemTime>) -> bool {
    let apart = |a: SystemTime, b: SystemTime| {
        a.duration_since(b)
            .or_else(|_| b.duration_since(a))
            .unwrap_or_default()
    };
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => apart(one, other) < Duration::from_secs(1),
        _ => false,
    }
}

fn differs(to: &dyn SecretStore, path: &SecretPath) -> Error {
    let message = "there is another value already, or the same with other labels or expiry";
    error(to, path, ErrorKind::AlreadyExists, message)
        .with_advice("look at both; then copy with --overwrite, or delete one")
}

fn cannot_expire(to: &dyn SecretStore, path: &SecretPath) -> Error {
    let message = "the secret expires, and in this store nothing does";
    error(to, path, ErrorKind::Unsupported, message)
        .with_advice("write it there by hand, if it may live for ever")
}

fn error(to: &dyn SecretStore, path: &SecretPath, kind: ErrorKind, message: &'static str) -> Error {
    Error::new(kind, message)
        .with_store(&to.descriptor().name)
        .with_path(path)
}
