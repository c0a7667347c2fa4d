//! The right to change a secret: one change at a time.

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use keyhaul_core::Result;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout_at;

use super::Shared;
use super::call::{Call, fail, late};
use super::failure::internal;

/// How many changes can be made to different secrets without waiting for each other by chance.
pub(super) const SUBJECTS: usize = 64;

/// The right to change a secret: between looking and deleting nobody else writes.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Makes a change while nothing else changes this secret, and waits for it as long as the caller
/// does. The turn is over when the change is, whoever waits: a store may still be at it.
///
/// # Errors
/// The change's own; `Timeout` where it takes longer than the caller waits.
pub(super) async fn alone<T, F>(call: &Arc<Call>, subject: &str, change: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let turns = Arc::clone(turns_of(call.shared(), subject));
    let turn = timeout_at(call.deadline.into(), turns.lock_owned());
    let turn = turn.await.map_err(|_| late())?;
    let mut task = tokio::spawn(async move {
        let result = change.await;
        drop(turn);
        result
    });
    let defect = |_| Err(internal("a defect of the service"));
    if let Ok(result) = timeout_at(call.deadline.into(), &mut task).await {
        return result.unwrap_or_else(defect);
    }
    let (call, subject) = (Arc::clone(call), subject.to_owned());
    tokio::spawn(async move {
        let mut entry = call.entry(Some(subject));
        entry.reason = Some("it ended when its caller waited no longer".into());
        if let Err(error) = task.await.unwrap_or_else(defect) {
            fail(&mut entry, &error);
        }
        // What cannot be recorded has been logged.
        let _ = call.shared().record(vec![entry]).await;
    });
    Err(late())
}

/// The turn, where nobody has it now.
pub(super) fn turn(shared: &Shared, subject: &str) -> Option<Turn> {
    Arc::clone(turns_of(shared, subject)).try_lock_owned().ok()
}

fn turns_of<'a>(shared: &'a Shared, subject: &str) -> &'a Arc<Mutex<()>> {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    // As many as a hash can say are enough, whatever it loses on the way.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below 64")]
    let at = (hasher.finish() % shared.subjects.len() as u64) as usize;
    &shared.subjects[at]
}
