//! One running plugin: what it is asked, what it answers, how it ends.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Settings;
use crate::confined::{Group, Started};
use crate::error::{stalled, too_late};
use crate::outbox::Outbox;
use crate::redact::Redactor;
use crate::requests::{Open, Outcomes, Requests};
use crate::wire::{self, Answer, Hello, Line, Reply};
use crate::{error, log, reader};

/// How many requests a plugin has at once; further ones wait here.
const AT_ONCE: usize = 64;

/// The longest message or advice of a plugin.
const LONGEST_WORDS: usize = 500;

/// A running plugin.
pub(crate) struct Session {
    settings: Arc<Settings>,
    hello: OnceLock<Hello>,
    pub(crate) group: Group,
    room: Arc<Semaphore>,
    outbox: Outbox,
    state: Mutex<State>,
    /// A request is answered.
    progress: Notify,
    /// It has ended.
    pub(crate) gone: Notify,
    /// Whether it ended of its own accord, well, and while nothing was asked of it.
    calm: AtomicBool,
    /// Whoever reads is to stop.
    pub(crate) over: Notify,
    redactor: Mutex<Redactor>,
}

struct State {
    requests: Requests,
    /// Told of the hello.
    ready: Option<oneshot::Sender<()>>,
    ended: Option<Error>,
}

impl Session {
    /// Takes over a program that was started, and hears its hello.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no plugin, `Timeout` where it says nothing, `Unavailable` where
    /// it ends.
    pub(crate) async fn begin(settings: Arc<Settings>, started: Started) -> Result<Arc<Self>> {
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
            hello: OnceLock::new(),
            group: started.group,
            room: Arc::new(Semaphore::new(AT_ONCE)),
            outbox: Outbox::new(stdin),
            state: Mutex::new(State {
                requests: Requests::new(),
                ready: Some(ready),
                ended: None,
            }),
            progress: Notify::new(),
            gone: Notify::new(),
            calm: AtomicBool::new(false),
            over: Notify::new(),
            redactor: Mutex::new(Redactor::new()?),
            settings,
        });
        tokio::spawn(log::follow(stderr, session.clone()));
        tokio::spawn(reader::listen(session.clone(), stdout, pidfd));
        let settings = &session.settings;
        let line = wire::hello(&settings.store, settings.options.as_ref());
        session.outbox.write(line);
        match timeout(settings.stall, hello).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(_)) => Err(session.why_ended()),
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
        let mut outcomes = outcomes.into_iter();
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
        self.ask_for(deadline, line, None, Some(paths)).await
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
            self.redactor().remember(value);
        }
        let id = self.state().requests.next_id();
        let left = deadline.map(|deadline| deadline.duration_since(Instant::now()).as_millis());
        let line = line.maybe_number("deadline-ms", left).finish(id, value)?;
        let (open, outcomes) = Open::new(paths, room);
        self.add(id, open)?;
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

    fn patience_ends(&self) -> Instant {
        let stall = self.settings.stall;
        self.state().requests.patience_ends(stall)
    }

    fn add(&self, id: u64, open: Open) -> Result<()> {
        let mut state = self.state();
        if let Some(error) = &state.ended {
            return Err(error.duplicate());
        }
        state.requests.add(id, open);
        Ok(())
    }

    /// Takes a line of the plugin. Whether it was the hello.
    ///
    /// # Errors
    /// `Internal` where it breaks the protocol, `InvalidConfig` for a first line that is no hello.
    pub(crate) fn take(&self, line: &[u8]) -> Result<bool> {
        if self.hello.get().is_none() {
            let hello = Hello::parse(line)?;
            // Lines come one after another, so that nobody else set it.
            let _ = self.hello.set(hello);
            let ready = self.state().ready.take();
            if let Some(ready) = ready {
                // Whoever started it may have given up.
                let _ = ready.send(());
            }
            return Ok(true);
        }
        let answer = Answer::parse(line)?;
        let (id, index) = (answer.id, answer.index);
        let reply = answer.reply(|words| self.clean(words.as_bytes(), LONGEST_WORDS));
        if let Ok(Reply {
            value: Some(value), ..
        }) = &reply
        {
            self.redactor().remember(value);
        }
        let whole = self.state().requests.answered(id, index, reply)?;
        if let Some(open) = whole {
            self.progress.notify_waiters();
            open.tell();
        }
        Ok(false)
    }

    /// Ends the plugin, for this reason, unless it has ended for another. Why it ended.
    pub(crate) fn end(&self, why: Error) -> Error {
        let mut state = self.state();
        let why = state.ended.get_or_insert(why).duplicate();
        let open = state.requests.take_all();
        state.ready = None;
        drop(state);
        // Before those who wait hear of it: nobody can start another while this one still runs.
        self.group.kill();
        self.outbox.close();
        self.room.close();
        drop(open);
        self.over.notify_one();
        self.gone.notify_waiters();
        why
    }

    /// Notes that it ended by itself. It may, while nothing is asked of it.
    pub(crate) fn exited(&self, status: Option<ExitStatus>) {
        let calm = status.is_some_and(|status| status.success()) && self.is_idle();
        self.calm.store(calm, Ordering::Relaxed);
        self.end(error::ended(status));
    }

    /// Whether it ended by itself, well, and while nothing was asked of it.
    pub(crate) fn ended_calmly(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Asks the plugin to end, by the end of its stdin.
    pub(crate) fn close(&self) {
        self.outbox.close();
        self.over.notify_one();
    }

    /// Why it ended, where it did.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.state().ended.as_ref().map(Error::duplicate)
    }

    fn why_ended(&self) -> Error {
        self.ended().unwrap_or_else(|| error::ended(None))
    }

    /// Whether nothing is asked of it.
    fn is_idle(&self) -> bool {
        self.state().requests.is_empty()
    }

    /// What it said of itself. There is a session to others only once it has.
    pub(crate) fn hello(&self) -> Result<&Hello> {
        let hello = self.hello.get();
        hello.ok_or_else(|| Error::new(ErrorKind::Internal, "the plugin has said no hello"))
    }

    /// The longest line that it may write next.
    pub(crate) fn longest_line(&self) -> usize {
        match self.hello.get() {
            Some(hello) => wire::longest_line(hello.capabilities.max_value),
            None => wire::MAX_HELLO,
        }
    }

    /// The store's name.
    pub(crate) fn store(&self) -> &str {
        &self.settings.store
    }

    /// `words` of the plugin, fit to be shown.
    pub(crate) fn clean(&self, words: &[u8], limit: usize) -> String {
        self.redactor().clean(words, limit)
    }

    /// The latest request's number.
    pub(crate) fn latest(&self) -> u64 {
        self.state().requests.latest()
    }

    /// The oldest request that is not wholly answered.
    pub(crate) fn oldest_open(&self) -> Option<u64> {
        self.state().requests.oldest()
    }

    /// Waits for a request to be answered, from now on.
    pub(crate) fn progress(&self) -> Notified<'_> {
        self.progress.notified()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn redactor(&self) -> MutexGuard<'_, Redactor> {
        self.redactor.lock().unwrap_or_else(PoisonError::into_inner)
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
        if self.session.state().requests.is_open(self.id) {
            self.session.outbox.write(wire::cancel(self.id));
        }
    }
}

/// How long a plugin that was asked to end has for it.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
