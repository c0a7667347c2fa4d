//! No more at once than a store can bear.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant as Clock;

use super::deadline::passed;
use super::{Call, Layer};
use crate::registry::Limits;
use crate::store::GetOptions;
use crate::{ErrorKind, Result, Secret, SecretPath};

/// Lets only so many requests be under way at once, and only so many begin in a second; the others
/// wait for their turn, in the order they came.
///
/// - A `get_many` is asked for as single `get`s, as many at once as may be: a store that has limits
///   answers one path in one request. The answers keep the order of the paths.
/// - After a pause, as many may begin at once as may be under way; then the rate holds.
/// - Whose deadline passes while it waits gets `Timeout`, and of a `get_many` only what has not
///   arrived by then.
/// - What [`Breaker`](super::Breaker) refused has cost the store nothing and counts for nothing.
///
/// Right: outside the limit on one attempt, `Throttle::new(limits).over(Timeout::new(…).over(…))`:
/// waiting for a turn is not the store's fault and does not use up its time. Wrong: outside the
/// retries, `Throttle::new(limits).over(Retry::new(3).over(store))`: what waits to be tried again
/// would keep its turn, and the repetitions would not be counted.
pub struct Throttle {
    limits: Limits,
    turns: Semaphore,
    bucket: Option<Bucket>,
}

impl Throttle {
    /// At most `limits`; a concurrency of 0 is 1.
    pub fn new(limits: Limits) -> Self {
        let concurrency = limits.concurrency.max(1);
        Self {
            limits,
            turns: Semaphore::new(concurrency as usize),
            bucket: limits.rate.map(|rate| Bucket::new(rate, concurrency)),
        }
    }

    /// Waits for a turn, which ends when it is dropped.
    async fn turn(&self, call: &Call<'_>) -> Result<SemaphorePermit<'_>> {
        let turn = self.turns.acquire().await;
        if let Some(bucket) = &self.bucket {
            bucket.take().await;
        }
        turn.map_err(|_| call.error(ErrorKind::Internal, "the throttle was closed"))
    }

    /// Takes back the count of what was refused.
    fn settle<T>(&self, answer: Result<T>) -> Result<T> {
        if let (Some(bucket), Err(error)) = (&self.bucket, &answer)
            && error.is_refused()
        {
            bucket.give_back();
        }
        answer
    }
}

impl Layer for Throttle {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let _turn = in_time(&call, self.turn(&call)).await?;
        self.settle(attempt().await)
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        let one = move |index: usize| -> BoxFuture<'a, Result<Secret>> {
            let path = &paths[index];
            let call = call.at(path);
            let get = async move {
                let _turn = self.turn(&call).await?;
                self.settle(call.store.get(path, options).await)
            };
            async move { in_time(&call, get).await }.boxed()
        };
        // Each takes the place of whichever is done: in order, all would wait behind one that hangs.
        let mut answers: Vec<(usize, Result<Secret>)> = stream::iter(0..paths.len())
            .map(|index| one(index).map(move |answer| (index, answer)))
            .buffer_unordered(self.limits.concurrency.max(1) as usize)
            .collect()
            .await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Throttle").field(&self.limits).finish()
    }
}

/// `work`, or `Timeout` at the request's deadline; past it, `work` is not begun.
async fn in_time<T>(call: &Call<'_>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(deadline) = call.request.deadline else {
        return work.await;
    };
    let deadline = Clock::from_std(deadline);
    if deadline <= Clock::now() {
        return Err(passed(call));
    }
    match tokio::time::timeout_at(deadline, work).await {
        Ok(answer) => answer,
        Err(_) => Err(passed(call)),
    }
}

/// A token bucket: it fills at a rate up to a size, and each request takes one.
struct Bucket {
    rate: f64,
    size: f64,
    /// Who waits for a token holds it, so that they go in the order they came.
    queue: tokio::sync::Mutex<()>,
    level: Mutex<Level>,
}

struct Level {
    tokens: f64,
    at: Option<Clock>,
}

impl Bucket {
    fn new(rate: u32, size: u32) -> Self {
        let size = f64::from(size);
        Self {
            rate: f64::from(rate.max(1)),
            size,
            queue: tokio::sync::Mutex::default(),
            level: Mutex::new(Level {
                tokens: size,
                at: None,
            }),
        }
    }

    async fn take(&self) {
        let _queue = self.queue.lock().await;
        while let Some(wait) = self.try_take() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token, or tells how long until there is one.
    fn try_take(&self) -> Option<Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Clock::now();
        let passed = level.at.map_or(Duration::ZERO, |at| now - at);
        level.tokens = (level.tokens + passed.as_secs_f64() * self.rate).min(self.size);
        level.at = Some(now);
        if level.tokens >= 1.0 {
            level.tokens -= 1.0;
            return None;
        }
        // Never nothing, which rounding could make of it.
        let wait = Duration::from_secs_f64((1.0 - level.tokens) / self.rate);
        Some(wait.max(Duration::from_millis(1)))
    }

    fn give_back(&self) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        level.tokens = (level.tokens + 1.0).min(self.size);
    }
}
