//! A limit on everything together.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::Instant as Clock;

use super::{Call, Layer};
use crate::store::Request;
use crate::{ErrorKind, Result};

/// Answers in time, if only with `Timeout`: after a limit of its own, or at the caller's
/// [`Request::deadline`] where that is sooner. The layers and servers below see the sooner one,
/// and do not begin what cannot end in time.
///
/// Right: outside the retries, `Deadline::new(limit).over(Retry::new(3).over(store))`. Wrong:
/// inside them, `Retry::new(3).over(Deadline::new(limit).over(store))`: each attempt gets the
/// whole limit anew, and the caller waits four times as long as it said.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
}

impl Deadline {
    /// Answers within `limit`.
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }

    /// When a request ends that begins now. None where the limit is beyond all clocks.
    fn of(&self, request: &Request) -> Option<Instant> {
        let own = Clock::now().into_std().checked_add(self.limit);
        own.into_iter().chain(request.deadline).min()
    }
}

impl Layer for Deadline {
    fn request(&self, request: &Request) -> Result<Option<Request>> {
        Ok(Some(request.clone().deadline(self.of(request))))
    }

    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        // `capabilities` and `probe` carry no request.
        let Some(deadline) = self.of(call.request) else {
            return attempt().await;
        };
        let late = |message| Err(call.error(ErrorKind::Timeout, message));
        let deadline = Clock::from_std(deadline);
        if deadline <= Clock::now() {
            return late("the deadline had passed before the store was asked");
        }
        match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(answer) => answer,
            Err(_) => late("the deadline passed before the store's answer came"),
        }
    }
}
