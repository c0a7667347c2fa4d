//! Has a plugin running whenever it is needed, and not more often than it deserves.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, Result};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::config::Settings;
use crate::error::{lost, too_late};
use crate::session::Session;
use crate::wire::Line;
use crate::{confined, options, trust};

/// How long a plugin that failed once is left alone. It doubles with each failure.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A plugin that ran this long and then failed has not failed before.
const STEADY: Duration = Duration::from_secs(30);

/// Starts a plugin at the first request, and again after it failed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    settings: Arc<Settings>,
    running: RwLock<Option<Arc<Session>>>,
    /// Held by whoever starts it.
    past: Mutex<Past>,
}

/// What the plugin's failures were so far.
#[derive(Debug, Default)]
struct Past {
    failures: u32,
    started: Option<Instant>,
    last: Option<(Instant, Error)>,
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
        deadline: Option<Instant>,
    ) -> Result<Arc<Session>> {
        if let Some(session) = self.running() {
            return Ok(session);
        }
        let this = self.clone();
        let start = tokio::spawn(async move { this.start().await });
        let started = match deadline {
            None => start.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), start)
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
        if let Some(session) = self.forget() {
            past.ended(&session);
        }
        past.pause()?;
        past.started = Some(Instant::now());
        match self.run().await {
            Ok(session) => {
                let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
                *running = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                tracing::warn!(store = self.settings.store, %error, "the plugin does not start");
                past.failed(error.duplicate());
                Err(error)
            }
        }
    }

    async fn run(&self) -> Result<Arc<Session>> {
        let settings = self.settings.clone();
        let started = spawn_blocking(move || {
            let program = trust::trusted(&settings.program)?;
            confined::start(&program, &settings.arguments, settings.fence.as_ref())
        });
        let started = started.await.map_err(lost)??;
        let session = Session::begin(self.settings.clone(), started).await?;
        let readied = self.ready(&session).await;
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

    /// Holds the options against what the plugin takes, and hands it its credentials.
    async fn ready(&self, session: &Arc<Session>) -> Result<()> {
        let settings = &self.settings;
        let declared = &session.talk.hello()?.options;
        let credentials = options::check(settings.options.as_ref(), declared, &settings.place)?;
        for (name, source) in credentials {
            let value = spawn_blocking(move || source.read())
                .await
                .map_err(lost)??;
            let line = Line::new("credential").text("option", &name);
            session.ask(None, line, Some(&value)).await?;
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
    fn ended(&mut self, session: &Session) {
        match session.ended() {
            Some(error) if !session.ended_calmly() => self.failed(error),
            _ => {}
        }
    }

    fn failed(&mut self, error: Error) {
        let steady = self.started.is_some_and(|at| at.elapsed() >= STEADY);
        self.failures = if steady { 1 } else { self.failures + 1 };
        self.last = Some((Instant::now(), error));
    }

    /// Refuses, as the plugin last did, where it is too early to try again.
    fn pause(&self) -> Result<()> {
        let Some((at, error)) = &self.last else {
            return Ok(());
        };
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = (PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
        let left = pause.saturating_sub(at.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        Err(error.duplicate().with_retry_after(left).with_refusal())
    }
}
