//! A limit on everything together.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::Instant as Clock;

use super::layer::all_fail;
use super::{Call, Layer};
use crate::store::{GetOptions, Request};
use crate::{Error, ErrorKind, Result, Secret, SecretPath};

/// Answers in time, if only with `Timeout`: after a limit of its own, or at the caller's
/// [`Request::deadline`] where that is sooner. The layers and servers below see the sooner one,
/// and do not begin what cannot end in time.
///
/// Of a `get_many` that is asked for one by one, what has arrived at the deadline is given; a layer
/// below, which knows what has, answers `Timeout` for the rest. It has [`GRACE`](Self::GRACE) to
/// do so; only then everything is `Timeout`.
///
/// Right: outside the retries, `Deadline::new(limit).over(Retry::new(3).over(store))`. Wrong:
/// inside them, `Retry::new(3).over(Deadline::new(limit).over(store))`: each attempt gets the
/// whole limit anew, and the caller waits four times as long as it said.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
}

impl Deadline {
    /// How much later than the deadline the answers of a `get_many` can come.
    pub const GRACE: Duration = Duration::from_millis(100);

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
        let deadline = Clock::from_std(deadline);
        if deadline <= Clock::now() {
            return Err(call.error(ErrorKind::Timeout, TOO_LATE));
        }
        match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(answer) => answer,
            Err(_) => Err(passed(&call)),
        }
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        let answers = call.store.get_many(paths, options);
        let Some(deadline) = self.of(call.request) else {
            return answers.await;
        };
        if Clock::from_std(deadline) <= Clock::now() {
            return all_fail(paths, &call.error(ErrorKind::Timeout, TOO_LATE));
        }
        let last = Clock::from_std(deadline) + Self::GRACE;
        match tokio::time::timeout_at(last, answers).await {
            Ok(answers) => answers,
            Err(_) => all_fail(paths, &passed(&call)),
        }
    }
}

const TOO_LATE: &str = "the deadline had passed before the store was asked";

/// The error of a request whose deadline passed while it was under way.
pub(super) fn passed(call: &Call<'_>) -> Error {
    call.error(
        ErrorKind::Timeout,
        "the deadline passed before the store's answer came",
    )
}
