//! How many connections there is room for, with and without a certificate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, Semaphore};

/// How many handshakes are under way at the same time: whoever has shown no certificate takes no
/// more of the server than that.
pub(super) const HANDSHAKES: usize = 512;
/// Descriptors that are not connections: files of state, audit and stores, and stores' connections.
const OTHERS: u64 = 256;

/// Handshakes under way. One more than there is room for ends the oldest: an honest one takes
/// milliseconds, and whoever opens connections and says nothing keeps none out for long.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<Under>);

#[derive(Debug, Default)]
struct Under {
    next: u64,
    way: BTreeMap<u64, Arc<Notify>>,
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake<'a> {
    all: &'a Handshakes,
    number: u64,
    /// Told when it has to make room.
    pub(super) ended: Arc<Notify>,
}

impl Handshakes {
    /// Begins one.
    pub(super) fn begin(&self) -> Handshake<'_> {
        let mut under = self.lock();
        if under.way.len() >= HANDSHAKES
            && let Some((_, oldest)) = under.way.pop_first()
        {
            oldest.notify_one();
        }
        let number = under.next;
        under.next += 1;
        let ended = Arc::new(Notify::new());
        under.way.insert(number, Arc::clone(&ended));
        Handshake {
            all: self,
            number,
            ended,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Under> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.all.lock().way.remove(&self.number);
    }
}

/// Room for `wanted` connections that have shown a certificate, or for as many as the process can
/// have descriptors for. Its soft limit is raised as far as that takes: connections must never use
/// up what the state and the audit need.
pub(super) fn connections(wanted: usize) -> Arc<Semaphore> {
    let needed = (wanted + HANDSHAKES) as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let mut soft = limit.current.unwrap_or(u64::MAX);
    if soft < needed {
        let raised = Rlimit {
            current: Some(needed.min(hard)),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            soft = needed.min(hard);
        }
    }
    let room = soft.saturating_sub(HANDSHAKES as u64 + OTHERS).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(wanted);
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            "the limit of open files (ulimit -n, LimitNOFILE=) leaves no room for as many connections as configured"
        );
    }
    Arc::new(Semaphore::new(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_handshake_makes_room() {
        let handshakes = Handshakes::default();
        let mut all: Vec<_> = (0..HANDSHAKES).map(|_| handshakes.begin()).collect();
        let oldest = all.remove(0);
        let newest = handshakes.begin();
        oldest.ended.notified().await;
        drop((oldest, newest));
        assert_eq!(handshakes.lock().way.len(), HANDSHAKES - 1);
        drop(all);
        assert!(handshakes.lock().way.is_empty());
    }
}
