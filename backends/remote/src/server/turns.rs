//! The right to change a secret: one change at a time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::Result;
use tokio::sync::{Mutex as Lock, OwnedMutexGuard};
use tokio::time::timeout_at;

use super::Shared;
use super::call::{Call, Room, fail, late};
use super::failure::internal;

/// The lines of those who want to change a secret: one for each that somebody wants to change now,
/// so that none waits for another.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Line>>);

#[derive(Debug, Default)]
struct Line {
    lock: Arc<Lock<()>>,
    /// How many are in it.
    places: usize,
}

/// The right to change a secret: between looking and deleting nobody else writes.
#[derive(Debug)]
pub(super) struct Turn {
    // Given back before its holder leaves the line.
    _right: OwnedMutexGuard<()>,
    _place: Place,
}

/// Somebody in a secret's line, waiting or having the turn.
#[derive(Debug)]
struct Place {
    turns: Arc<Turns>,
    subject: String,
    lock: Arc<Lock<()>>,
}

impl Place {
    fn of(turns: &Arc<Turns>, subject: &str) -> Self {
        let lock = {
            let mut lines = turns.lines();
            let line = lines.entry(subject.to_owned()).or_default();
            line.places += 1;
            Arc::clone(&line.lock)
        };
        Self {
            turns: Arc::clone(turns),
            subject: subject.to_owned(),
            lock,
        }
    }

    async fn turn(self) -> Turn {
        Turn {
            _right: Arc::clone(&self.lock).lock_owned().await,
            _place: self,
        }
    }
}

impl Drop for Place {
    /// The last one takes the line away.
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        if let Some(line) = lines.get_mut(&self.subject) {
            line.places -= 1;
            if line.places == 0 {
                lines.remove(&self.subject);
            }
        }
    }
}

impl Turns {
    fn lines(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a change while nothing else changes this secret, and waits for it as long as the caller
/// does. The turn is over when the change is, whoever waits: a store may still be at it. So is its
/// `room`, and then it has its second record: it counts as one of those under way, and the service
/// does not end before it unless it takes too long.
///
/// # Errors
/// The change's own; `Timeout` where it takes longer than the caller waits.
pub(super) async fn alone<T, F>(call: &Arc<Call>, room: Room, subject: &str, change: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let turn = Place::of(&call.shared().turns, subject).turn();
    let turn = timeout_at(call.deadline.into(), turn);
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
        let _room = room;
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
    let place = Place::of(&shared.turns, subject);
    Some(Turn {
        _right: Arc::clone(&place.lock).try_lock_owned().ok()?,
        _place: place,
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// What comes of it without waiting, however often that is asked.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::task::unconstrained(future).now_or_never()
    }

    #[test]
    fn each_secret_has_a_line_of_its_own_that_goes_with_the_last_in_it() {
        let turns = Arc::new(Turns::default());
        // More than any fixed number of locks that a hash could share out.
        let mut held = Vec::new();
        for number in 0..1000 {
            let turn = Place::of(&turns, &format!("web01/{number}")).turn();
            held.push(at_once(turn).expect("nobody else is in its line"));
        }
        let mut second = Box::pin(Place::of(&turns, "web01/7").turn());
        let third = Box::pin(Place::of(&turns, "web01/7").turn());
        assert!(at_once(&mut second).is_none(), "the control");
        // Who gives up leaves no trace.
        drop(third);
        held.clear();
        assert_eq!(turns.lines().len(), 1);
        let turn = at_once(second).expect("its turn has come");
        assert_eq!(turns.lines()["web01/7"].places, 1);
        drop(turn);
        assert!(turns.lines().is_empty());
    }
}
