//! One running plugin: what it is asked, what it answers, how it ends.

use std::fs::File;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Settings;
use crate::confined::{Group, Started};
use crate::elf::is_library;
use crate::error::{stalled, too_late};
use crate::outbox::Outbox;
use crate::redact::Redactor;
use crate::requests::{Open, Outcomes, Requests};
use crate::talk::{Heard, Talk};
use crate::wire::{self, Line, Reply};
use crate::{error, log, reader};

/// How many requests a plugin has at once; further ones wait here.
const AT_ONCE: usize = 64;

/// How long a plugin that was asked to end has for it.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// A running plugin.
pub(crate) struct Session {
    settings: Arc<Settings>,
    pub(crate) talk: Talk,
    pub(crate) group: Group,
    room: Arc<Semaphore>,
    outbox: Outbox,
    /// Told of the hello.
    ready: Mutex<Option<oneshot::Sender<()>>>,
    /// A request is answered.
    progress: Notify,
    /// It has ended.
    pub(crate) gone: Notify,
    /// Whether it ended, or is to end, without having failed.
    calm: AtomicBool,
    /// Whether it has answered a request as it should.
    served: AtomicBool,
    /// Whoever reads is to stop.
    pub(crate) over: Notify,
}

impl Session {
    /// As [`begin_after`](Self::begin_after), where there was none before.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn begin(settings: Arc<Settings>, started: Started) -> Result<Arc<Self>> {
        Self::begin_after(Redactor::shared()?, settings, started).await
    }

    /// Takes over a program that was started, and hears its hello. `redactor` knows what has passed
    /// in sessions before.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no plugin, `Timeout` where it says nothing, `Unavailable` where
    /// it ends.
    pub(crate) async fn begin_after(
        redactor: Arc<Mutex<Redactor>>,
        settings: Arc<Settings>,
        started: Started,
    ) -> Result<Arc<Self>> {
        let unusable = |error: std::io::Error| {
            Error::new(
                ErrorKind::Internal,
                "the plugin's pipes cannot be waited for",
            )
            .with_source(error)
        };
        let stdin = Sender::from_owned_fd(started.stdin).map_err(unusable)?;
        let stdout = Receiver::from_owned_fd(started.stdout).map_err(unusable)?;
        let stderr = Receiver::from_owned_fd(started.stderr).map_err(unusable)?;
        // SAFETY: an owned descriptor stays open, and the same, until it is dropped.
        let pidfd = unsafe { AsyncFd::register(started.pidfd) };
        let pidfd = pidfd.map_err(|error| unusable(error.into()))?;
        let (ready, hello) = oneshot::channel();
        let session = Arc::new(Self {
            talk: Talk::new(redactor),
            group: started.group,
            room: Arc::new(Semaphore::new(AT_ONCE)),
            outbox: Outbox::new(stdin),
            ready: Mutex::new(Some(ready)),
            progress: Notify::new(),
            gone: Notify::new(),
            calm: AtomicBool::new(false),
            served: AtomicBool::new(false),
            over: Notify::new(),
            settings,
        });
        tokio::spawn(log::follow(stderr, session.clone()));
        tokio::spawn(reader::listen(session.clone(), stdout, pidfd));
        let settings = &session.settings;
        let line = wire::hello(&settings.store, settings.options.as_ref());
        session.outbox.write(line);
        match timeout(settings.stall, hello).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(_)) => Err(session.why_no_hello().await),
            Err(_) => Err(session.end(stalled(session.settings.stall))),
        }
    }

    /// Asks, and waits for the answer until `deadline`, or until the plugin is taken for stalled.
    ///
    /// # Errors
    /// The plugin's own; `Timeout`, `Unavailable` or `Internal` where it did not answer.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        deadline: Option<std::time::Instant>,
        line: Line,
        value: Option<&SecretBytes>,
    ) -> Result<Reply> {
        let outcomes = self.ask_for(deadline, line, value, None).await?;
        let mut outcomes = self.serving(outcomes).into_iter();
        outcomes.next().unwrap_or_else(|| Ok(Reply::default()))
    }

    /// Asks for `paths` outcomes in one request.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), where none of the outcomes came.
    pub(crate) async fn ask_many(
        self: &Arc<Self>,
        deadline: Option<std::time::Instant>,
        line: Line,
        paths: usize,
    ) -> Result<Outcomes> {
        let outcomes = self.ask_for(deadline, line, None, Some(paths)).await?;
        Ok(self.serving(outcomes))
    }

    /// Hands the plugin the credential that `option` names.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) async fn hand(self: &Arc<Self>, option: &str, value: &SecretBytes) -> Result<()> {
        let line = Line::new("credential").text("option", option);
        let outcomes = self.ask_for(None, line, Some(value), None).await?;
        outcomes
            .into_iter()
            .try_for_each(|outcome| outcome.map(drop))
    }

    /// Notes that the plugin serves, where it does.
    fn serving(&self, outcomes: Outcomes) -> Outcomes {
        if outcomes.iter().any(Result::is_ok) {
            self.served.store(true, Ordering::Relaxed);
        }
        outcomes
    }

    async fn ask_for(
        self: &Arc<Self>,
        deadline: Option<std::time::Instant>,
        line: Line,
        value: Option<&SecretBytes>,
        paths: Option<usize>,
    ) -> Result<Outcomes> {
        let deadline = deadline.map(Instant::from_std);
        let room = self.patiently(deadline, self.room.clone().acquire_owned());
        let room = room.await?.map_err(|_| self.why_ended())?;
        if let Some(value) = value {
            self.talk.redactor().remember(value);
        }
        let id = self.requests().next_id();
        let left = deadline.map(|deadline| deadline.duration_since(Instant::now()).as_millis());
        let (open, outcomes) = Open::new(line.wants(), paths, room);
        let line = line.maybe_number("deadline-ms", left).finish(id, value)?;
        self.requests().add(id, open)?;
        let _ticket = Ticket { session: self, id };
        self.outbox.write(line);
        let outcomes = self.patiently(deadline, outcomes).await?;
        outcomes.map_err(|_| self.why_ended())
    }

    /// Waits for `what` until `deadline`; kills the plugin where it says nothing for too long.
    async fn patiently<T>(
        &self,
        deadline: Option<Instant>,
        what: impl Future<Output = T>,
    ) -> Result<T> {
        let mut what = std::pin::pin!(what);
        loop {
            let stall = self.patience_ends();
            let until = deadline.map_or(stall, |deadline| deadline.min(stall));
            if let Ok(done) = timeout_at(until, &mut what).await {
                return Ok(done);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(too_late());
            }
            // Where it was us who were held up, what the plugin said meanwhile is read first.
            tokio::task::yield_now().await;
            if self.patience_ends() <= Instant::now() {
                return Err(self.end(stalled(self.settings.stall)));
            }
        }
    }

    /// When the plugin is taken for stalled, unless it answers before or is asked nothing.
    pub(crate) fn patience_ends(&self) -> Instant {
        self.requests().patience_ends(self.settings.stall)
    }

    /// How long it may say nothing.
    pub(crate) fn stall(&self) -> Duration {
        self.settings.stall
    }

    /// Takes a line of the plugin. Whether it was the hello.
    ///
    /// # Errors
    /// As [`Talk::take`].
    pub(crate) fn take(&self, line: &[u8]) -> Result<bool> {
        match self.talk.take(line)? {
            Heard::Hello => {
                // Whoever started it may have given up.
                let _ = self.ready().take().map(|ready| ready.send(()));
                return Ok(true);
            }
            Heard::Part => {}
            Heard::Whole(open) => {
                self.progress.notify_waiters();
                open.tell();
            }
        }
        Ok(false)
    }

    /// Ends the plugin, for this reason, unless it has ended for another. Why it ended.
    pub(crate) fn end(&self, why: Error) -> Error {
        let (why, open) = self.requests().end(why);
        // Before those who wait hear of it: nobody can start another while this one still runs.
        self.group.kill();
        self.outbox.close();
        self.room.close();
        self.ready().take();
        drop(open);
        self.over.notify_one();
        self.gone.notify_waiters();
        why
    }

    /// Notes that it ended by itself. It may, while nothing is asked of it, as its hello is.
    pub(crate) fn exited(&self, status: Option<ExitStatus>) {
        let calm = status.is_some_and(|status| status.success())
            && self.talk.hello().is_ok()
            && self.requests().is_empty();
        self.calm.fetch_or(calm, Ordering::Relaxed);
        self.end(error::ended(status));
    }

    /// Asks the plugin to end, by the end of its stdin.
    pub(crate) fn close(&self) {
        if !self.requests().have_ended() {
            self.calm.store(true, Ordering::Relaxed);
        }
        self.outbox.close();
        self.over.notify_one();
    }

    /// When it ended and why, where that was a failure.
    pub(crate) fn failed(&self) -> Option<(Instant, Error)> {
        let calm = self.calm.load(Ordering::Relaxed);
        self.requests().ended().filter(|_| !calm)
    }

    /// Whether it has answered a request as it should.
    pub(crate) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    fn why_ended(&self) -> Error {
        let ended = self.requests().ended();
        ended.map_or_else(|| error::ended(None), |(_, why)| why)
    }

    async fn why_no_hello(&self) -> Error {
        let (why, program) = (self.why_ended(), self.settings.program.clone());
        let looked = move || File::open(program).is_ok_and(|file| is_library(&file));
        match spawn_blocking(looked).await {
            Ok(true) => error::library(&self.settings.program, why),
            _ => why,
        }
    }

    /// The store's name.
    pub(crate) fn store(&self) -> &str {
        &self.settings.store
    }

    /// Waits for a request to be answered, from now on.
    pub(crate) fn progress(&self) -> Notified<'_> {
        self.progress.notified()
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.talk.requests()
    }

    fn ready(&self) -> MutexGuard<'_, Option<oneshot::Sender<()>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("store", &self.settings.store)
            .finish_non_exhaustive()
    }
}

/// A request under way. Dropped before it is answered, it tells the plugin that nobody waits.
struct Ticket<'s> {
    session: &'s Arc<Session>,
    id: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.session.requests().is_open(self.id) {
            self.session.outbox.write(wire::cancel(self.id));
        }
    }
}
