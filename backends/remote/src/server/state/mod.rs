//! Who may read what, and who has read what: grants, migration tickets, quarantines, the fetch
//! index and tombstones, in one SQLite file.
//!
//! What requests ask is answered from memory. Changes go through one thread: into the file,
//! durably, then into memory, then to whoever asked. Those that wait together share a transaction.
//!
//! Time is the wall clock's, and never goes back: the greatest time seen is kept in the file, and
//! what has expired by it stays so. A clock that once stepped far ahead ends what expires; that is
//! the safe side.
//!
//! The fetch index is made of the audit's records and of nothing else. What is buffered of it can
//! be lost: the file says up to which record it is counted, and [`State::follow`] goes on there.

mod changes;
mod database;
mod grants;
mod memory;
mod names;
mod nodes;
mod queries;
mod tickets;
mod time;
mod tombstones;
mod types;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::audit::{AuditLog, Later, Read};
use super::keeper::Keeper;
use super::private::Locked;
use crate::protocol::AuditHead;
use memory::Memory;
use time::{Time, timestamp};
use writer::{Buffer, Command, Seen, Task, Work};

pub(crate) use types::{Clock, Denial, Ended, Notice, Permit, StateSettings, Tombstone};

/// How far time may go on before it is written down, in microseconds.
const MARK: i64 = 60 * 1_000_000;
/// How long whoever does not wait for a change of grants waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much waits for the disk at most: where it hangs, more is refused at once.
const ROOM: usize = 4096;

/// What the service knows besides secrets.
#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    /// For what the thread is asked to do.
    room: Arc<Semaphore>,
    thread: Option<Keeper>,
    /// The file is in use as long as the thread may write to it, also where nobody waits for that any
    /// more: so the thread has it, too.
    _lock: Arc<Locked>,
}

/// What requests and the thread share.
#[derive(Debug)]
struct Shared {
    memory: RwLock<Memory>,
    time: Time,
    /// The time that the file knows.
    mark: AtomicI64,
    buffer: Mutex<Buffer>,
    /// Whether the thread knows that something is buffered.
    buffered: AtomicBool,
    /// What ended by itself, until it was told.
    ended: Mutex<Vec<Notice>>,
    /// Whether the thread runs. Without it nothing is permitted: what memory knows may be old.
    runs: AtomicBool,
    /// The epoch of the latest change that is durable.
    epoch: AtomicU64,
    anchor: Mutex<Option<AuditHead>>,
    indexed: AtomicU64,
}

impl Shared {
    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a transaction has made durable.
    fn learn(&self, work: Work<'_>, head: Option<AuditHead>) {
        {
            let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
            for change in work.changes {
                memory.apply(change);
            }
        }
        self.mark.store(work.now, Ordering::Relaxed);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.extend(work.ended);
        ended.retain(|notice| !work.told.contains(&notice.id));
        self.epoch
            .store(work.epoch.cast_unsigned(), Ordering::Release);
        if let Some(head) = head {
            self.indexed.store(head.sequence, Ordering::Release);
            *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        }
    }
}

/// Says that the thread has ended, whatever ended it.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.runs.store(false, Ordering::Release);
        if thread::panicking() {
            tracing::error!(
                "the state's thread has ended by a defect: nothing is permitted or changed until the service is started again"
            );
        }
    }
}

impl State {
    /// Opens or makes the file at `path`, for this process alone: a lock on `PATH.lock` says so.
    ///
    /// # Errors
    /// `Conflict` where another process has it open; `PermissionDenied` where the file is not the
    /// service's alone; `InvalidConfig` where it is something else; `Unsupported` where a newer
    /// keyhaul wrote it; else as SQLite fails.
    pub(crate) fn open(path: &Path, settings: StateSettings) -> Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = super::private::open(Path::new(&beside), "state")?;
        let lock = Arc::new(Locked::new(lock, Path::new(&beside), "state")?);
        // Made here, so that it is nobody else's at any moment. SQLite's other files follow its mode.
        drop(super::private::open(path, "state")?);
        let db = database::open(path, settings.busy)?;
        let (epoch, mark) = database::meta(&db)?;
        let time = Time::since(mark, settings.clock);
        let behind = time.behind();
        if behind > 60 {
            tracing::warn!(
                "the clock is {behind} seconds behind the latest time that the service has seen: what has expired stays so"
            );
        }
        let anchor = database::anchor(&db)?;
        let mut memory = Memory::default();
        let (changes, notices) = database::load(&db)?;
        for change in changes {
            memory.apply(change);
        }
        let shared = Arc::new(Shared {
            memory: RwLock::new(memory),
            mark: AtomicI64::new(mark),
            time,
            buffer: Mutex::default(),
            buffered: AtomicBool::new(false),
            ended: Mutex::new(notices),
            runs: AtomicBool::new(true),
            epoch: AtomicU64::new(epoch.cast_unsigned()),
            indexed: AtomicU64::new(anchor.as_ref().map_or(0, |anchor| anchor.sequence)),
            anchor: Mutex::new(anchor),
        });
        let (commands, received) = mpsc::channel();
        let (theirs, held) = (Arc::clone(&shared), Arc::clone(&lock));
        let thread = Keeper::start("state", move || {
            // The last to go.
            let _held = held;
            let db = db;
            let _end = End(&theirs);
            writer::run(&db, &theirs, &received);
        })?;
        Ok(Self {
            shared,
            commands,
            room: Arc::new(Semaphore::new(ROOM)),
            thread: Some(thread),
            _lock: lock,
        })
    }

    /// Where the audit's chain ended when it was last written down: for [`AuditLog::open`].
    pub(crate) fn anchor(&self) -> Option<AuditHead> {
        let anchor = &self.shared.anchor;
        anchor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Brings the fetch index up to the end of the audit, and follows it from there on. To be
    /// called once, before the first request is served. Blocks.
    ///
    /// An older state that was brought back knows nothing of what was revoked since, and the audit
    /// does: it is refused, unless `accept` says that it shall be so.
    ///
    /// # Errors
    /// `Conflict` where the state is older than the audit; else the kind that fits the I/O error.
    pub(crate) fn follow(&self, audit: &AuditLog, accept: bool) -> Result<()> {
        if let Some(later) = audit.later(self.indexed(), self.epoch())? {
            self.behind(&later, accept)?;
        }
        let shared = Arc::clone(&self.shared);
        let commands = self.commands.clone();
        let follower = move |reads: Vec<(Read, Timestamp)>, head: &AuditHead| {
            let mut buffer = shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            for (read, time) in reads {
                let time = time.as_microsecond();
                let seen = Seen {
                    version: read.version,
                    first: time,
                    last: time,
                    count: 1,
                };
                buffer.add(read.node, read.secret, seen);
            }
            buffer.head = Some(head.clone());
            drop(buffer);
            if !shared.buffered.swap(true, Ordering::SeqCst) {
                // Where the state was closed already, the next start counts from the audit.
                let _ = commands.send(Command::Buffered);
            }
        };
        audit.follow(self.indexed(), Box::new(follower))
    }

    /// Refuses a state that is behind its audit, or takes it as it is from now on.
    fn behind(&self, later: &Later, accept: bool) -> Result<()> {
        let (known, epoch) = (self.epoch(), later.epoch);
        let message = format!(
            "the state is older than the audit, which knows changes up to epoch {epoch} where the state knows {known}: what was revoked since may be granted again. Among them: {}",
            later.what.join(", ")
        );
        if !accept {
            return Err(Error::new(ErrorKind::Conflict, message).with_advice(
                "bring back the latest state; where there is none, keep nodes away, start once with `accept-older-state = true` in the configuration, and compare `keyhaul grants` with what shall be",
            ));
        }
        tracing::error!("{message}; it is accepted, as the configuration says");
        let (answer, answered) = oneshot::channel();
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX - 1);
        // From here on its epochs are later than those: the next start finds nothing.
        let raise = move |work: &mut Work<'_>| {
            work.epoch = work.epoch.max(epoch);
            Ok(())
        };
        let task = Box::new(Task::new(raise, answer));
        self.commands
            .send(Command::Change(task))
            .map_err(|_| stopped())?;
        answered.blocking_recv().map_err(|_| stopped())?
    }

    /// The last record of the audit that the fetch index holds durably.
    pub(crate) fn indexed(&self) -> u64 {
        self.shared.indexed.load(Ordering::Acquire)
    }

    /// The epoch of the latest change of a grant or a quarantine that is durable.
    pub(crate) fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// The service's time, which never goes back.
    pub(crate) fn now(&self) -> Timestamp {
        timestamp(self.shared.time.now())
    }

    /// Writes down what is buffered: the fetch index, the audit's head, the time.
    ///
    /// # Errors
    /// As any change; `Timeout` where the disk hangs.
    pub(crate) async fn flush(&self) -> Result<()> {
        self.change_in_time(|_| Ok(())).await
    }

    /// Has the thread do `work`, and waits until it is durable. Where nobody waits any more when it
    /// is its turn, it is not done.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Work<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let room = self.room()?;
        let work = move |now: &mut Work<'_>| {
            let _room = room;
            work(now)
        };
        let task = Box::new(Task::new(work, answer));
        self.commands
            .send(Command::Change(task))
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// As [`change`](Self::change), for whoever does not wait without end. Where the time is over,
    /// what has not begun is not done; what has is carried on, and may be done yet.
    async fn change_in_time<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Work<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match timeout(PATIENCE, self.change(work)).await {
            Ok(done) => done,
            Err(_) => Err(late()),
        }
    }

    /// Has the thread ask the file, without a transaction, and in time.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let room = self.room()?;
        let look = Box::new(move |db: &Connection| {
            let _room = room;
            let _ = answer.send(look(db));
        });
        self.commands
            .send(Command::Look(look))
            .map_err(|_| stopped())?;
        match timeout(PATIENCE, answered).await {
            Ok(answer) => answer.map_err(|_| stopped())?,
            Err(_) => Err(late()),
        }
    }

    fn room(&self) -> Result<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room).try_acquire_owned();
        room.map_err(|_| late())
    }
}

fn late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the state's disk did not answer in time",
    )
    .with_advice("see whether the disk under the state hangs")
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the state's thread has ended")
        .with_advice("start the service again; its log says what happened")
}

impl Drop for State {
    /// Waits until what is buffered is written down, or cannot be in time.
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Close);
        if let Some(thread) = self.thread.take() {
            thread.end();
        }
    }
}

#[cfg(test)]
mod tests;
