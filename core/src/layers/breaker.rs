//! Failing fast while a store is down.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::time::Instant as Clock;

use super::layer::all_fail;
use super::{Call, Layer};
use crate::store::GetOptions;
use crate::{Error, ErrorKind, Result, Secret, SecretPath};

/// When a store counts as down, and for how long it is left alone then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSettings {
    /// How many attempts in a row must fail. 5 by default.
    pub failures: u32,
    /// How long the store is left alone at first. 5 seconds by default.
    pub pause: Duration,
}

impl BreakerSettings {
    /// Settings.
    pub const fn new(failures: u32, pause: Duration) -> Self {
        Self { failures, pause }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self::new(5, Duration::from_secs(5))
    }
}

/// Refuses at once, as `Unavailable`, what would be asked of a store that is down.
///
/// - A store is down when so many attempts in a row were `Unavailable` or `Timeout`. Every other
///   answer, `RateLimited` too, comes from a store that is there.
/// - A `Timeout` at a caller's own deadline tells nothing of the store.
/// - The error says since when, what the last failure was, and when the store is asked again. It is
///   marked as [refused](Error::is_refused): [`Retry`](super::Retry) does not repeat it, and the
///   next store of a route is asked at once.
/// - After a pause, one request goes through to try. Its failure doubles the pause, up to
///   [`LONGEST`](Self::LONGEST); any answer of the store ends it.
///
/// Right: around single attempts, `Throttle::new(…).over(Breaker::new(…).over(Timeout::new(…).over(
/// store)))`: of 500 references to a dead server, those that wait for their turn are refused as
/// soon as a few have failed. Wrong: outside the retries, `Breaker::new(…).over(Retry::new(3).over(
/// store))`: each failure that it counts has been four attempts and their waits already.
pub struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// When the first of them was.
    since: Option<SystemTime>,
    /// There while the store is down.
    down: Option<Down>,
}

struct Down {
    /// The last failure, in words.
    reason: String,
    /// How long the store is left alone.
    pause: Duration,
    /// Until when.
    until: Clock,
    /// Whether a request is under way that tries.
    trying: bool,
}

impl Breaker {
    /// The longest that a store is left alone.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// A breaker for one store, which is taken to be up.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    /// Lets an attempt through, or refuses it.
    fn admit(&self, call: &Call<'_>) -> Result<Attempt<'_>> {
        let mut state = self.state();
        let since = state.since;
        let is_trial = match &mut state.down {
            None => false,
            Some(down) if !down.trying && down.until <= Clock::now() => {
                down.trying = true;
                true
            }
            Some(down) => return Err(refusal(call, down, since)),
        };
        Ok(Attempt {
            breaker: self,
            is_trial,
        })
    }

    /// The state, even where another thread panicked: it is only ever changed in single steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer for Breaker {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let admitted = self.admit(&call)?;
        let answer = attempt().await;
        admitted.note(&call, answer.as_ref().err());
        answer
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        let admitted = match self.admit(&call) {
            Ok(admitted) => admitted,
            Err(error) => return all_fail(paths, &error),
        };
        let answers = call.store.get_many(paths, options).await;
        // One answer of any other sort shows that the store is there.
        let errors = || answers.iter().map(|answer| answer.as_ref().err());
        let is_down = |error: Option<&Error>| error.is_some_and(says_down);
        let failure = errors().all(is_down).then(|| errors().next().flatten());
        admitted.note(&call, failure.flatten());
        answers
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Breaker").field(&self.settings).finish()
    }
}

/// An attempt under way. Where it is dropped without an answer, nothing was learnt, and another
/// may try.
struct Attempt<'b> {
    breaker: &'b Breaker,
    is_trial: bool,
}

impl Attempt<'_> {
    fn note(mut self, call: &Call<'_>, error: Option<&Error>) {
        // Where the caller was in a hurry, the store may be there all the same.
        let is_late = |deadline| deadline <= Clock::now().into_std();
        let is_timeout = error.is_some_and(|error| error.kind() == ErrorKind::Timeout);
        if is_timeout && call.request.deadline.is_some_and(is_late) {
            return;
        }
        let mut state = self.breaker.state();
        let is_trial = std::mem::take(&mut self.is_trial);
        let Some(error) = error.filter(|error| says_down(error)) else {
            *state = State::default();
            return;
        };
        let reason = || format!("{}: {}", error.kind(), error.message());
        match &mut state.down {
            Some(down) if is_trial => {
                down.trying = false;
                down.reason = reason();
                down.pause = down.pause.saturating_mul(2).min(Breaker::LONGEST);
                down.until = Clock::now() + down.pause;
            }
            // It began before the store was known to be down.
            Some(_) => {}
            None => {
                state.failures += 1;
                state.since.get_or_insert_with(SystemTime::now);
                if state.failures >= self.breaker.settings.failures {
                    let pause = self.breaker.settings.pause.min(Breaker::LONGEST);
                    state.down = Some(Down {
                        reason: reason(),
                        pause,
                        until: Clock::now() + pause,
                        trying: false,
                    });
                }
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_trial
            && let Some(down) = &mut self.breaker.state().down
        {
            down.trying = false;
        }
    }
}

fn says_down(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
}

fn refusal(call: &Call<'_>, down: &Down, since: Option<SystemTime>) -> Error {
    let since = since.and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.map_or(String::new(), |since| format!(" since {since:.0}"));
    let next = match down.until.checked_duration_since(Clock::now()) {
        Some(wait) if !wait.is_zero() => {
            format!("it is asked again in {} s", wait.as_secs_f64().ceil())
        }
        _ => "one request is trying it".to_owned(),
    };
    let message = format!(
        "the store is down{since}, and was not asked; the last failure was {}; {next}",
        down.reason
    );
    call.error(ErrorKind::Unavailable, message).with_refusal()
}
