//! Time that never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

use super::Clock;

/// The greatest time that was ever seen, in microseconds since 1970.
///
/// Where the wall clock steps back, time goes on from where it was, by the steady clock, until the
/// wall clock has caught up: what has expired stays so, and what has not still will.
#[derive(Debug)]
pub(super) struct Time {
    clock: Arc<dyn Clock>,
    /// What is added to the steady clock. Only grows.
    offset: AtomicI64,
}

impl Time {
    /// Time that is at least `mark`.
    pub fn since(mark: i64, clock: Arc<dyn Clock>) -> Self {
        let offset = mark.saturating_sub(steady(&*clock));
        Self {
            clock,
            offset: AtomicI64::new(offset),
        }
    }

    pub fn now(&self) -> i64 {
        let steady = steady(&*self.clock);
        let wall = self.clock.wall().as_microsecond().saturating_sub(steady);
        let offset = self.offset.fetch_max(wall, Ordering::Relaxed).max(wall);
        steady.saturating_add(offset)
    }

    /// How far the wall clock is behind, in seconds.
    pub fn behind(&self) -> i64 {
        (self.now() - self.clock.wall().as_microsecond()) / 1_000_000
    }
}

fn steady(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.steady().as_micros()).unwrap_or(i64::MAX)
}

/// The time of a number of microseconds; those out of range are the nearest in it.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(match micros < 0 {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}
