//! Trying again what failed for a passing reason.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant as Clock;

use super::{Call, Layer};
use crate::store::{Capability, GetOptions, IdempotencyId, PutMode, PutOptions};
use crate::{Error, Operation, Result, Secret, SecretPath};

/// Repeats attempts that fail for a passing reason: `Unavailable`, `Timeout`, `RateLimited`.
///
/// - Between attempts it waits a random time between nothing and a ceiling that doubles from one
///   wait to the next ("full jitter"), so that a thousand clients of a server that came back do
///   not come back as one. Where the store asks to be left alone for a while, that comes on top.
/// - It never waits past the request's deadline, nor when the store asks for more than
///   [`LONGEST`](Self::LONGEST): the error comes at once instead.
/// - A write whose answer was lost may have taken effect. `put` and `generate` are repeated only as
///   `Create` or `Update`, under an idempotency id, which this layer adds, and only where the store
///   knows such ids ([`Capability::IDEMPOTENT`]). `Overwrite` is never repeated: it could undo what
///   somebody else wrote in between.
/// - What [`Breaker`](super::Breaker) refused is not repeated: it would be refused again.
/// - Of a `get_many`, only what failed for a passing reason is asked for again.
///
/// Right: around single attempts and inside the whole's limit and its audit,
/// `Deadline::new(…).over(Retry::new(3).over(Timeout::new(…).over(store)))`. Wrong: outside the
/// audit, `Retry::new(3).over(Audit::new(sink).over(store))`: one question of one caller would
/// stand four times in the audit, each time with a result that the caller never saw.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    retries: u32,
}

impl Retry {
    /// The ceiling of the first wait.
    pub const FIRST: Duration = Duration::from_millis(100);

    /// The ceiling of every wait that would be longer.
    pub const CEILING: Duration = Duration::from_secs(5);

    /// The longest that a store may ask to be left alone and still be asked again.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Up to `retries` repetitions of one request.
    pub const fn new(retries: u32) -> Self {
        Self { retries }
    }

    /// How long to wait before repetition number `repetition`, from 0; none where there is to be
    /// none: too many already, or the deadline would pass.
    fn wait(&self, call: &Call<'_>, repetition: u32, asked: Option<Duration>) -> Option<Duration> {
        if repetition >= self.retries {
            return None;
        }
        let ceiling = Self::FIRST.saturating_mul(2_u32.saturating_pow(repetition));
        let wait = asked.unwrap_or_default() + random_part_of(ceiling.min(Self::CEILING));
        let in_time = |deadline| Clock::now().into_std() + wait < deadline;
        call.request.deadline.is_none_or(in_time).then_some(wait)
    }
}

impl Layer for Retry {
    fn identify(&self, options: &PutOptions) -> Result<Option<IdempotencyId>> {
        // Stores without IDEMPOTENT ignore it. To ask beforehand whether this is one would cost
        // each write a question; it is asked when an attempt has failed.
        if options.idempotency.is_some() || options.mode == PutMode::Overwrite {
            return Ok(None);
        }
        IdempotencyId::random().map(Some)
    }

    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let mut repetition = 0;
        loop {
            let error = match attempt().await {
                Err(error) if is_passing(&error) && call.mode != Some(&PutMode::Overwrite) => error,
                done => return done,
            };
            let Some(wait) = self.wait(&call, repetition, error.retry_after()) else {
                return Err(error);
            };
            tokio::time::sleep(wait).await;
            if !is_repeatable(&call).await {
                return Err(error);
            }
            repetition += 1;
        }
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        let mut answers = call.store.get_many(paths, options).await;
        for repetition in 0..self.retries {
            let failed: Vec<(usize, Option<Duration>)> = answers
                .iter()
                .enumerate()
                .filter_map(|(index, answer)| Some((index, answer.as_ref().err()?)))
                .filter(|(_, error)| is_passing(error))
                .map(|(index, error)| (index, error.retry_after()))
                .collect();
            if failed.is_empty() {
                break;
            }
            let asked = failed.iter().filter_map(|(_, asked)| *asked).max();
            let Some(wait) = self.wait(&call, repetition, asked) else {
                break;
            };
            tokio::time::sleep(wait).await;
            let again: Vec<_> = failed
                .iter()
                .map(|(index, _)| paths[*index].clone())
                .collect();
            let new = call.store.get_many(&again, options).await;
            for ((index, _), answer) in failed.into_iter().zip(new) {
                answers[index] = answer;
            }
        }
        answers
    }
}

/// Whether the same request may succeed after a wait that is not too long.
fn is_passing(error: &Error) -> bool {
    error.kind().is_transient()
        && !error.is_refused()
        && error
            .retry_after()
            .is_none_or(|asked| asked <= Retry::LONGEST)
}

/// Whether the store would recognise a write that it has done already. What does not write may
/// always be repeated, and so may `delete`, by the contract.
async fn is_repeatable(call: &Call<'_>) -> bool {
    if !matches!(call.operation, Operation::Put | Operation::Generate) {
        return true;
    }
    let capabilities = call.store.capabilities().await;
    capabilities.is_ok_and(|capabilities| capabilities.has(Capability::IDEMPOTENT))
}

/// A random time from nothing to `ceiling`; the ceiling where there is no randomness.
fn random_part_of(ceiling: Duration) -> Duration {
    let mut bytes = [0; 4];
    match crate::random::fill(&mut bytes) {
        Ok(()) => ceiling.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)),
        Err(_) => ceiling,
    }
}
