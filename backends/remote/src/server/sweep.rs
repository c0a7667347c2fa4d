//! Deleting for good what was deleted for long enough: slowly, by version, and never because a clock
//! says so that jumped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyhaul_core::{
    Capability, DeleteOptions, Error, ErrorKind, Request, Result, SecretPath, Version,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::audit::Entry;
use super::call::fail;
use super::deletion::{is_of, look};
use super::housekeeping::ACTOR;
use super::state::Tombstone;
use super::turns::{self, Turn};
use super::{Shared, call};

/// How long it rests between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(30);
/// How long after a start nothing is deleted: somebody may see that the clock is wrong.
const QUIET: Duration = Duration::from_secs(300);
/// How long the others wait for one.
const EACH: Duration = Duration::from_secs(5);
/// How far the wall clock may go ahead of the steady one.
const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Sweeps until the end begins, whatever a store is at then.
pub(super) async fn run(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    let sweeps = sweeps(&shared);
    let over = ended.wait_for(|ended| *ended);
    tokio::pin!(sweeps, over);
    futures_util::future::select(sweeps, over).await;
}

async fn sweeps(shared: &Arc<Shared>) {
    let (begun, wall) = (Instant::now(), Timestamp::now());
    let mut counted = begun;
    let mut alarmed = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = Instant::now();
        match shared.state.age(now - counted).await {
            Ok(()) => counted = now,
            Err(error) => tracing::error!(%error, "the time that the service runs cannot be kept"),
        }
        if has_jumped(wall, Timestamp::now(), now - begun) {
            if !alarmed {
                tracing::error!(
                    "the clock has jumped ahead by more than an hour since the service started: nothing that was deleted is deleted for good; set the clock, or restart the service where it is right now"
                );
            }
            alarmed = true;
            continue;
        }
        alarmed = false;
        if now - begun >= QUIET {
            sweep(shared, shared.state.due()).await;
        }
    }
}

/// Whether the wall clock went on by much more than time did.
fn has_jumped(from: Timestamp, to: Timestamp, passed: Duration) -> bool {
    let passed = jiff::SignedDuration::try_from(passed).unwrap_or(jiff::SignedDuration::MAX);
    to.duration_since(from) > passed.saturating_add(AHEAD)
}

/// Has each its turn, however slow one before it is.
async fn sweep(shared: &Arc<Shared>, due: Vec<Tombstone>) {
    for tombstone in due {
        // Somebody is at it, or the purge of before still is.
        let Some(turn) = turns::turn(shared, &tombstone.subject) else {
            continue;
        };
        let subject = tombstone.subject.clone();
        let purge = tokio::spawn(alone(Arc::clone(shared), tombstone, turn));
        if timeout(EACH, purge).await.is_err() {
            tracing::warn!(
                secret = subject,
                "deleting it for good takes long; others go on"
            );
        }
    }
}

async fn alone(shared: Arc<Shared>, tombstone: Tombstone, turn: Turn) {
    let subject = tombstone.subject.as_str();
    // Restored, or written anew, meanwhile.
    if shared.state.tombstone(subject).as_ref() != Some(&tombstone) {
        return;
    }
    match purge(&shared, &tombstone).await {
        Ok(()) => tracing::info!(secret = subject, "deleted for good"),
        Err(error) => tracing::warn!(secret = subject, %error, "not deleted for good yet"),
    }
    drop(turn);
}

/// Deletes what the tombstone is about, and nothing that came after it.
async fn purge(shared: &Shared, tombstone: &Tombstone) -> Result<()> {
    let path = SecretPath::new(tombstone.subject.as_str())?;
    if is_there(shared, tombstone, &path).await? {
        let capabilities = shared.store.capabilities().await?;
        if !capabilities.has(Capability::DELETE | Capability::UPDATE) {
            let rule = "the store cannot delete by version any more";
            let advice = "delete it in the store, where nobody will restore it";
            return Err(Error::new(ErrorKind::Unsupported, rule).with_advice(advice));
        }
        let mut entry = entry(shared, tombstone);
        entry.outcome = call::BEGIN;
        shared.record(vec![entry.clone()]).await?;
        let deleted = delete(shared, tombstone, &path).await;
        entry.outcome = Entry::OK;
        if let Err(error) = &deleted {
            fail(&mut entry, error);
        }
        shared.record(vec![entry]).await?;
        deleted?;
    }
    shared
        .state
        .take_tombstone(&tombstone.subject)
        .await
        .map(drop)
}

async fn delete(shared: &Shared, tombstone: &Tombstone, path: &SecretPath) -> Result<()> {
    // The audit took its time.
    if !is_there(shared, tombstone, path).await? {
        let rule = "something else is there now";
        return Err(Error::new(ErrorKind::Conflict, rule));
    }
    let version = Version::new(tombstone.version.as_str())?;
    let options = DeleteOptions::default().version(Some(version));
    shared.store.delete(path, &options).await
}

async fn is_there(shared: &Shared, tombstone: &Tombstone, path: &SecretPath) -> Result<bool> {
    let found = look(shared, path, Request::default()).await?;
    Ok(found.is_some_and(|metadata| is_of(tombstone, &metadata)))
}

fn entry(shared: &Shared, tombstone: &Tombstone) -> Entry {
    Entry {
        request: shared.fresh_id().into(),
        actor: ACTOR.into(),
        role: None,
        peer: "".into(),
        operation: "purge",
        subject: Some(tombstone.subject.clone()),
        node: None,
        outcome: Entry::OK,
        reason: None,
        version: Some(tombstone.version.clone()),
        epoch: None,
        migration: None,
        terms: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests;
