//! Soft deletion: what is deleted stays in the store, hidden, until its window is over.
//!
//! A tombstone is about one version, as it was written at one moment: whatever else becomes current,
//! by whatever way, is neither hidden nor deleted. A store whose metadata tell no such thing, or that
//! cannot delete by version, deletes at once.

mod listing;
mod writing;

use std::time::Instant;

use jiff::Timestamp;
use keyhaul_core::{
    Capability, DeleteOptions, Error, ErrorKind, GetOptions, Metadata, Reference, Request, Result,
    SecretPath,
};

use super::Shared;
use super::call::{Call, late};
use super::failure::of_store;
use super::state::Tombstone;

pub(super) use listing::without_deleted;
pub(super) use writing::{Value, write};

/// That the secret is not deleted. Costs nothing where there is no tombstone.
///
/// # Errors
/// `NotFound` where it is; what the store says otherwise.
pub(super) async fn alive(call: &Call, subject: &str, path: &SecretPath) -> Result<()> {
    let shared = call.shared();
    let Some(tombstone) = shared.state.tombstone(subject) else {
        return Ok(());
    };
    match call
        .ask(is_hidden(shared, &tombstone, path, call.request()))
        .await?
    {
        true => Err(nothing()),
        false => Ok(()),
    }
}

/// Deletes: behind a tombstone, or at once where there is no window, or the store cannot say later
/// that it is still the same secret. Says until when it can be brought back.
///
/// # Errors
/// `Conflict` where another version is current; what store and state say.
pub(super) async fn delete(
    call: &Call,
    reference: &Reference,
    path: &SecretPath,
    options: &DeleteOptions,
) -> Result<Option<Timestamp>> {
    let shared = call.shared();
    let subject = reference.subject();
    if let Some(tombstone) = shared.state.tombstone(subject) {
        match look(shared, path, call.request()).await.map_err(of_store)? {
            Some(metadata) if is_of(&tombstone, &metadata) => {
                check(options, &metadata)?;
                return Ok(Some(tombstone.until));
            }
            Some(_) => {}
            None => return shared.state.take_tombstone(subject).await.map(|_| None),
        }
    }
    let window = call.live.delete_window;
    if window.is_zero() {
        return at_once(call, path, options).await;
    }
    let capabilities = shared.store.capabilities().await.map_err(of_store)?;
    if !capabilities.has(Capability::READ | Capability::DELETE | Capability::UPDATE) {
        return at_once(call, path, options).await;
    }
    let Some(metadata) = look(shared, path, call.request()).await.map_err(of_store)? else {
        return Ok(None);
    };
    check(options, &metadata)?;
    let Some((version, created)) = identity(&metadata) else {
        return at_once(call, path, options).await;
    };
    let until = jiff::SignedDuration::try_from(window)
        .ok()
        .and_then(|window| shared.state.now().checked_add(window).ok())
        .unwrap_or(Timestamp::MAX);
    in_time(call)?;
    let tombstone = Tombstone {
        subject: subject.to_owned(),
        version: version.to_owned(),
        created,
        until,
        // What is running is counted when it is over.
        left: window.saturating_add(super::sweep::EVERY),
    };
    shared.state.put_tombstone(&tombstone).await?;
    Ok(Some(until))
}

async fn at_once(
    call: &Call,
    path: &SecretPath,
    options: &DeleteOptions,
) -> Result<Option<Timestamp>> {
    in_time(call)?;
    let deleted = call.shared().store.delete(path, options).await;
    deleted.map(|()| None).map_err(of_store)
}

fn check(options: &DeleteOptions, metadata: &Metadata) -> Result<()> {
    if options.version.is_none() || options.version == metadata.version {
        return Ok(());
    }
    let rule = "another version is current than the one to be deleted";
    Err(Error::new(ErrorKind::Conflict, rule))
}

/// Brings back what was deleted.
///
/// # Errors
/// `NotFound` where nothing is there to be brought back.
pub(super) async fn restore(call: &Call, subject: &str, path: &SecretPath) -> Result<Metadata> {
    let shared = call.shared();
    let gone = || {
        Error::new(ErrorKind::NotFound, "there is nothing that could be restored")
            .with_advice("what is deleted can be restored within the service's window, until something new is written in its place")
    };
    let tombstone = shared.state.tombstone(subject).ok_or_else(gone)?;
    match look(shared, path, call.request()).await.map_err(of_store)? {
        Some(metadata) if is_of(&tombstone, &metadata) => {
            in_time(call)?;
            shared.state.take_tombstone(subject).await?;
            Ok(metadata)
        }
        _ => Err(gone()),
    }
}

/// What the store holds there now, expired or not.
pub(super) async fn look(
    shared: &Shared,
    path: &SecretPath,
    request: Request,
) -> Result<Option<Metadata>> {
    let options = GetOptions::default().expired(true).request(request);
    match shared.store.stat(path, &options).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether this is what was deleted.
pub(super) fn is_of(tombstone: &Tombstone, metadata: &Metadata) -> bool {
    identity(metadata) == Some((tombstone.version.as_str(), tombstone.created))
}

/// What no successor has too: a version may begin anew, the time it was written does not come again.
fn identity(metadata: &Metadata) -> Option<(&str, Timestamp)> {
    let created = Timestamp::try_from(metadata.created?).ok()?;
    Some((metadata.version.as_ref()?.as_str(), created))
}

/// Whether nobody shall see what the store holds there: the tombstone's own, or nothing.
async fn is_hidden(
    shared: &Shared,
    tombstone: &Tombstone,
    path: &SecretPath,
    request: Request,
) -> Result<bool> {
    let found = look(shared, path, request).await?;
    Ok(found.is_none_or(|metadata| is_of(tombstone, &metadata)))
}

/// That the caller still waits: what nobody waits for is not begun.
fn in_time(call: &Call) -> Result<()> {
    if Instant::now() < call.deadline {
        Ok(())
    } else {
        Err(late())
    }
}

/// As a store says it of what never was.
fn nothing() -> Error {
    of_store(Error::new(ErrorKind::NotFound, "no such secret"))
}
