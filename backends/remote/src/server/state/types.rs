//! What goes into the state and comes out of it, besides the protocol's bodies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::Held;
use crate::protocol::{Grant, Ticket, limit};

/// How the state is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StateSettings {
    /// How long a change waits for a database that another program has locked.
    pub busy: Duration,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            busy: Duration::from_secs(5),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Where time comes from.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// The wall clock, which may step.
    fn wall(&self) -> Timestamp;
    /// The time since some moment, which goes on whatever the wall clock does.
    fn steady(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

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
pub struct Denial {
    /// In words.
    pub reason: &'static str,
}

/// That a node may read a secret, by the grant that says so.
#[derive(Clone, Debug)]
pub struct Permit(pub(super) Basis);

#[derive(Clone, Debug)]
pub(super) enum Basis {
    /// A grant.
    Grant(Arc<Held>),
    /// The scope is the node's own.
    Own(Box<str>),
}

impl Permit {
    /// The grant's epoch; none where the scope is the node's own.
    pub fn epoch(&self) -> Option<u64> {
        match &self.0 {
            Basis::Grant(held) => Some(held.grant.epoch),
            Basis::Own(_) => None,
        }
    }

    /// The migration that the grant belongs to.
    pub fn migration(&self) -> Option<&str> {
        match &self.0 {
            Basis::Grant(held) => held.grant.migration.as_deref(),
            Basis::Own(_) => None,
        }
    }
}

/// What ended by itself: to be told to the audit, and then [`State::told`](super::State::told).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What the notice is told by.
    pub id: String,
    /// What ended.
    pub ended: Ended,
}

/// What ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// A grant's time was over.
    Grant(Grant),
    /// A ticket's.
    Ticket(Ticket),
}

/// A page that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// The most entries; more than [`limit::PAGE`] are never given.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

impl PageQuery {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(limit::PAGE).clamp(1, limit::PAGE)
    }
}

/// A deleted secret that can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// `SCOPE/NAME`.
    pub subject: String,
    /// The version that was current when it was deleted.
    pub version: Option<String>,
    /// When it is deleted for good.
    pub until: Timestamp,
}
