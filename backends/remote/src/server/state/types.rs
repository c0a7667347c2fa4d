//! What goes into the state and comes out of it, besides the protocol's bodies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::Held;
use crate::protocol::{Grant, Ticket};

/// How the state is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub(crate) struct StateSettings {
    /// How long a change waits for a database that another program has locked. One can wait for what
    /// is being tried, then for what came before it, and then for itself: three times this is less
    /// than callers have patience, so that all hear that the database is locked.
    pub(crate) busy: Duration,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            busy: Duration::from_secs(3),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Where time comes from.
pub(crate) trait Clock: std::fmt::Debug + Send + Sync {
    /// The wall clock, which may step.
    fn wall(&self) -> Timestamp;
    /// The time since some moment, which goes on whatever the wall clock does.
    fn steady(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug)]
pub(super) struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn steady(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Why a node may not read. For the audit alone: the node is told the same whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// In words.
    pub(crate) reason: &'static str,
}

/// That a node may read a secret, by the grant that says so.
#[derive(Clone, Debug)]
pub(crate) struct Permit(pub(super) Basis);

#[derive(Clone, Debug)]
pub(super) enum Basis {
    /// A grant.
    Grant(Arc<Held>),
    /// The scope is the node's own.
    Own(Box<str>),
}

impl Permit {
    /// The grant's epoch; none where the scope is the node's own.
    pub(crate) fn epoch(&self) -> Option<u64> {
        match &self.0 {
            Basis::Grant(held) => Some(held.grant.epoch),
            Basis::Own(_) => None,
        }
    }

    /// The migration that the grant belongs to.
    pub(crate) fn migration(&self) -> Option<&str> {
        match &self.0 {
            Basis::Grant(held) => held.grant.migration.as_deref(),
            Basis::Own(_) => None,
        }
    }
}

/// What ended by itself: to be told to the audit, and then [`State::told`](super::State::told).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// What the notice is told by.
    pub(crate) id: String,
    /// What ended.
    pub(crate) ended: Ended,
}

/// What ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    /// A grant's time was over.
    Grant(Grant),
    /// A ticket's.
    Ticket(Ticket),
}

/// A deleted secret that can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// `SCOPE/NAME`.
    pub(crate) subject: String,
    /// The version that was current when it was deleted.
    pub(crate) version: String,
    /// When that was written: where versions begin anew, they tell nothing alone.
    pub(crate) created: Timestamp,
    /// Until when it can certainly be restored, by the wall clock.
    pub(crate) until: Timestamp,
    /// How long the service has to run still before it is deleted for good, whatever the wall clock
    /// says.
    pub(crate) left: Duration,
}
