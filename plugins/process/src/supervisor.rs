//! Has a plugin running whenever it is needed, and not more often than it deserves.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use keyhaul_core::registry::Options;
use keyhaul_core::{Error, Result};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::config::Settings;
use crate::confined::Started;
use crate::error::{lost, too_late};
use crate::kept::Kept;
use crate::session::Session;
use crate::{confined, options, trust};

/// How long a plugin that failed once is left alone. It doubles with each failure in a row.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest it is left alone. Where as much time goes by without a failure, the next one is the
/// first again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A plugin that has failed so often that its pause is longer counts as down: who asks is refused, so
/// that another store of the route is asked at once.
const DOWN: Duration = Duration::from_secs(5);

/// Starts a plugin at the first request, and again after it failed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    settings: Arc<Settings>,
    running: RwLock<Option<Arc<Session>>>,
    /// Held by whoever starts it.
    past: Mutex<Past>,
}

/// What there is of the plugin's lives before.
#[derive(Debug, Default)]
struct Past {
    /// How many failures there were in a row, and the last of them.
    failures: u32,
    last: Option<(Instant, Error)>,
    kept: Kept,
}

impl Supervisor {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            running: RwLock::default(),
            past: Mutex::default(),
        }
    }

    /// The plugin, running. A start that one caller does not wait for is another's.
    ///
    /// # Errors
    /// Why it cannot be started, or why not yet; `Timeout` past `deadline`.
    pub(crate) async fn session(
        self: &Arc<Self>,
        deadline: Option<std::time::Instant>,
    ) -> Result<Arc<Session>> {
        if let Some(session) = self.running() {
            return Ok(session);
        }
        let this = self.clone();
        let start = tokio::spawn(async move { this.start().await });
        let started = match deadline {
            None => start.await,
            Some(deadline) => timeout_at(deadline.into(), start)
                .await
                .map_err(|_| too_late())?,
        };
        started.map_err(lost)?
    }

    async fn start(&self) -> Result<Arc<Session>> {
        let mut past = self.past.lock().await;
        if let Some(session) = self.running() {
            return Ok(session);
        }
        if let Some(session) = self.forget()
            && let Some((at, error)) = session.failed()
        {
            past.failed(at, error, session.has_served());
        }
        past.check()?;
        match self.run(&mut past.kept).await {
            Ok(session) => {
                let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
                *running = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                let error = error.with_place(&self.settings.place);
                past.failed(Instant::now(), error.duplicate(), false);
                Err(error)
            }
        }
    }

    async fn run(&self, kept: &mut Kept) -> Result<Arc<Session>> {
        let begun = async { Ok((kept.redactor()?, self.launch().await?)) };
        let begun: Result<_> = begun.await;
        let (redactor, started) = begun.inspect_err(|error| {
            // Of one that runs, its session tells how it ends.
            tracing::warn!(store = self.settings.store, %error, "the plugin does not start");
        })?;
        let session = Session::begin_after(redactor, self.settings.clone(), started).await?;
        let readied = self.ready(&session, kept).await;
        readied.map_err(|error| session.end(error))?;
        let hello = session.talk.hello()?;
        tracing::info!(
            store = self.settings.store,
            program = %self.settings.program.display(),
            plugin = hello.name,
            version = hello.version,
            "the plugin runs"
        );
        Ok(session)
    }

    async fn launch(&self) -> Result<Started> {
        let settings = self.settings.clone();
        let started = spawn_blocking(move || {
            let program = trust::trusted(&settings.program)?;
            confined::start(&program, &settings.arguments, settings.fence.as_ref())
        });
        started.await.map_err(lost)?
    }

    /// Holds the options against what the plugin takes, and hands it its credentials.
    async fn ready(&self, session: &Arc<Session>, kept: &mut Kept) -> Result<()> {
        let settings = &self.settings;
        let declared = &session.talk.hello()?.options;
        let none = Options::default();
        let given = settings.options.as_ref().unwrap_or(&none);
        let credentials = options::check(given, declared, &settings.place)?;
        for (name, source) in credentials {
            let handed = async {
                let value = kept.credential(source).await?;
                session.hand(&name, &value).await
            };
            let placed = |error| given.placed(&name, error);
            handed.await.map_err(placed)?;
        }
        Ok(())
    }

    fn running(&self) -> Option<Arc<Session>> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running
            .clone()
            .filter(|session| !session.requests().have_ended())
    }

    fn forget(&self) -> Option<Arc<Session>> {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        running.take()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(session) = self.forget() {
            session.close();
        }
    }
}

impl Past {
    /// Notes a failure, which is one of several in a row unless the plugin `served` before it, or
    /// all was well for a while.
    fn failed(&mut self, at: Instant, error: Error, served: bool) {
        let well = self.ready_at().map(|ready| at.duration_since(ready));
        let first = served || well.is_none_or(|well| well >= LONGEST_PAUSE);
        self.failures = if first { 1 } else { self.failures + 1 };
        self.last = Some((at, error));
    }

    /// Fails as the plugin last did, where it is too early to try again. Until it counts as down that
    /// is no refusal: whoever tries again after the time that the error names finds it started.
    fn check(&self) -> Result<()> {
        let left = self.ready_at().map(|ready| ready - Instant::now());
        match (&self.last, left) {
            (Some((_, error)), Some(left)) if !left.is_zero() => {
                let error = error.duplicate().with_retry_after(left);
                let down = self.pause() > DOWN;
                Err(if down { error.with_refusal() } else { error })
            }
            _ => Ok(()),
        }
    }

    /// When the plugin may be started after its last failure.
    fn ready_at(&self) -> Option<Instant> {
        let (at, _) = self.last.as_ref()?;
        Some(*at + self.pause())
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        (PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use keyhaul_core::ErrorKind;

    use super::*;

    /// How long the plugin is left alone after a failure at `at`.
    fn pause_after(past: &mut Past, at: Instant, served: bool) -> Duration {
        past.failed(at, Error::new(ErrorKind::Unavailable, "it ended"), served);
        past.pause()
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_also_where_each_start_follows_the_pause() {
        let mut past = Past::default();
        let mut at = Instant::now();
        for tenths in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            let pause = pause_after(&mut past, at, false);
            assert_eq!(pause, Duration::from_millis(100 * tenths));
            at += pause + Duration::from_millis(1);
        }
    }

    #[test]
    fn what_served_or_was_well_for_long_enough_fails_for_the_first_time() {
        let mut past = Past::default();
        let at = Instant::now();
        let later = Duration::from_millis(1);
        assert_eq!(pause_after(&mut past, at, false), PAUSE);
        assert_eq!(pause_after(&mut past, at + later, false), 2 * PAUSE);
        assert_eq!(pause_after(&mut past, at + later, true), PAUSE);
        assert_eq!(pause_after(&mut past, at + later, false), 2 * PAUSE);
        // The control: a moment less is not long enough.
        let well = at + later + 2 * PAUSE + LONGEST_PAUSE;
        let mut other = Past {
            failures: past.failures,
            last: past
                .last
                .as_ref()
                .map(|(at, error)| (*at, error.duplicate())),
            kept: Kept::default(),
        };
        assert_eq!(pause_after(&mut other, well - later, false), 4 * PAUSE);
        assert_eq!(pause_after(&mut past, well, false), PAUSE);
    }

    #[test]
    fn a_pause_counts_from_the_failure_and_is_a_refusal_once_the_plugin_counts_as_down() {
        let mut past = Past::default();
        past.check().expect("it has not failed");
        // 0.1 s, 0.2, 0.4 and so on: the seventh is over five seconds.
        for failure in 1..=8 {
            // In a while, so that this test may be held up.
            let at = Instant::now() + Duration::from_secs(20);
            let pause = pause_after(&mut past, at, false);
            let error = past.check().expect_err("too early");
            assert_eq!(error.is_refused(), failure >= 7, "{failure}");
            let wait = error.retry_after().expect("a time");
            assert!(wait <= Duration::from_secs(20) + pause, "{wait:?}");
        }
        let mut past = Past::default();
        let long_ago = Instant::now().checked_sub(PAUSE);
        pause_after(&mut past, long_ago.expect("a time"), false);
        past.check().expect("the pause is over");
    }
}
