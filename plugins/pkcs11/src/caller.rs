//! Whoever asked, as the thread that works for them sees them.

use std::sync::{Arc, Weak};
use std::time::Instant;

use keyhaul_core::{Error, ErrorKind, Request, Result};

/// Whoever asked for a change. A thread can outlive them: they were told that time is up, and may
/// have written another value since.
#[derive(Debug)]
pub(crate) struct Caller {
    deadline: Option<Instant>,
    here: Weak<()>,
}

/// That they wait, for as long as it is kept.
#[must_use]
#[derive(Debug)]
pub(crate) struct Waits(#[expect(dead_code, reason = "it is there or not")] Arc<()>);

impl Caller {
    pub(crate) fn of(request: &Request) -> (Self, Waits) {
        let here = Arc::new(());
        let caller = Self {
            deadline: request.deadline,
            here: Arc::downgrade(&here),
        };
        (caller, Waits(here))
    }

    /// To be asked right before something is changed.
    ///
    /// # Errors
    /// `Timeout` where nobody waits for the change any more.
    pub(crate) fn still_waits(&self) -> Result<()> {
        let is_late = self.deadline.is_some_and(|at| at <= Instant::now());
        if is_late || self.here.strong_count() == 0 {
            return Err(Error::new(
                ErrorKind::Timeout,
                "the token was at work with others for too long: nothing was changed",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_waits_after_the_deadline_or_once_they_are_gone() {
        let now = Instant::now();
        let (caller, waits) = Caller::of(&Request::default());
        caller.still_waits().expect("here");
        drop(waits);
        caller.still_waits().expect_err("gone");

        let later = now + Duration::from_secs(60);
        let (caller, _waits) = Caller::of(&Request::default().deadline(Some(later)));
        caller.still_waits().expect("there is time");
        let (caller, _waits) = Caller::of(&Request::default().deadline(Some(now)));
        let error = caller.still_waits().expect_err("too late");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
