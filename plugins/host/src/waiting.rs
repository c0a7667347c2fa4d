//! What a call knows of who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};

/// Whoever waits for a call.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    until: Instant,
    cancelled: Arc<AtomicBool>,
}

impl Waiting {
    /// Somebody waits until then at most.
    pub(crate) fn until(until: Instant) -> Self {
        Self {
            until,
            cancelled: Arc::default(),
        }
    }

    /// Nobody waits any more.
    pub(crate) fn end(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// For how long somebody still does.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.left().is_zero()
    }

    /// Whether there is still somebody to call a plugin for.
    ///
    /// A call can wait for a store to open, and its caller be told meanwhile that it failed. Made
    /// all the same, a write could end up over a later one that was told to be there.
    ///
    /// # Errors
    /// `Timeout` where there is not.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_over() {
            let rule = "nobody waits for this call of the plugin any more: it was not made";
            return Err(Error::new(ErrorKind::Timeout, rule));
        }
        Ok(())
    }
}
