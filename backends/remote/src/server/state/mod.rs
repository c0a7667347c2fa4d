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

mod database;
mod grants;
mod memory;
mod names;
mod nodes;
mod queries;
mod tickets;
mod time;
mod types;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, mpsc};
use std::thread::{self, JoinHandle};

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use super::audit::{AuditLog, Read};
use crate::protocol::{
    AuditHead, BeginRequest, EndRequest, Grant, GrantRequest, Node, NodesAnswer, QuarantineAnswer,
    RevokeAnswer, RevokeRequest, Ticket, TicketState, TicketsAnswer,
};
use memory::Memory;
use time::{Time, timestamp};
use writer::{Buffer, Command, Seen, Task, Work};

pub use types::{Clock, Denial, PageQuery, Permit, StateSettings, SystemClock, Tombstone};

/// How far time may go on before it is written down, in microseconds.
const MARK: i64 = 60 * 1_000_000;

/// What the service knows besides secrets.
#[derive(Debug)]
pub struct State {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
    /// Held while the file is in use, by its lock.
    lock: File,
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
    /// Tickets whose time ended, and who was not told yet.
    ended: Mutex<Vec<Ticket>>,
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
        if let Some(head) = head {
            self.indexed.store(head.sequence, Ordering::Release);
            *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
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
    pub fn open(path: &Path, settings: StateSettings) -> Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = super::private::open(Path::new(&beside), "state")?;
        super::private::lock(&lock, Path::new(&beside), "state")?;
        // Made here, so that it is nobody else's at any moment. SQLite's other files follow its mode.
        drop(super::private::open(path, "state")?);
        let db = database::open(path, settings.busy)?;
        let (_, mark) = database::meta(&db)?;
        let time = Time::since(mark, settings.clock);
        let behind = time.behind();
        if behind > 60 {
            tracing::warn!(
                "the clock is {behind} seconds behind the latest time that the service has seen: what has expired stays so"
            );
        }
        let anchor = database::anchor(&db)?;
        let mut memory = Memory::default();
        let (changes, undecided) = database::load(&db)?;
        for change in changes {
            memory.apply(change);
        }
        undecided.iter().for_each(tickets::alarm);
        let shared = Arc::new(Shared {
            memory: RwLock::new(memory),
            mark: AtomicI64::new(mark),
            time,
            buffer: Mutex::default(),
            buffered: AtomicBool::new(false),
            ended: Mutex::new(undecided),
            indexed: AtomicU64::new(anchor.as_ref().map_or(0, |anchor| anchor.sequence)),
            anchor: Mutex::new(anchor),
        });
        let (commands, received) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("state".into())
            .spawn(move || writer::run(&db, &theirs, &received))
            .map_err(|error| Error::io("the state's thread cannot be started", error))?;
        Ok(Self {
            shared,
            commands,
            thread: Some(thread),
            lock,
        })
    }

    /// Where the audit's chain ended when it was last written down: for [`AuditLog::open`].
    pub fn anchor(&self) -> Option<AuditHead> {
        let anchor = &self.shared.anchor;
        anchor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Brings the fetch index up to the end of the audit, and follows it from there on. To be
    /// called once, before the first request is served. Blocks.
    ///
    /// # Errors
    /// The kind that fits the I/O error.
    pub fn follow(&self, audit: &AuditLog) -> Result<()> {
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

    /// The last record of the audit that the fetch index holds durably.
    pub fn indexed(&self) -> u64 {
        self.shared.indexed.load(Ordering::Acquire)
    }

    /// The service's time, which never goes back.
    pub fn now(&self) -> Timestamp {
        timestamp(self.shared.time.now())
    }

    /// Gives a grant. The same again changes nothing, other terms replace the old.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none, or the end is past; `Conflict` where the node is
    /// quarantined, or is the target of a migration of this scope; else as any change: `Unavailable`
    /// or `StorageFull` where it could not be made durable, and nothing was changed.
    pub async fn grant(&self, by: &str, request: &GrantRequest) -> Result<Grant> {
        let (by, request) = (by.to_owned(), request.clone());
        self.change(move |work| grants::give(work, &by, &request))
            .await
    }

    /// Takes a grant away. Where there is none, that is said, and is no failure.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none; else as any change.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<RevokeAnswer> {
        let request = request.clone();
        self.change(move |work| grants::revoke(work, &request))
            .await
    }

    /// Begins a migration: the target gets a grant on the source's terms, as long as the ticket is
    /// open. The same again gives the same ticket.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none, both are the same, or the length is out of range;
    /// `Conflict` where the source holds no grant, the target holds one or is quarantined, or
    /// another ticket of the scope has not ended; else as any change.
    pub async fn begin(&self, by: &str, request: &BeginRequest) -> Result<Ticket> {
        let (by, request) = (by.to_owned(), request.clone());
        self.change(move |work| tickets::begin(work, &by, &request))
            .await
    }

    /// Ends a migration at its target: the source loses its grant, the target keeps its own.
    ///
    /// # Errors
    /// `NotFound` where there is no such ticket; `Conflict` where it ended at the source, or the
    /// target's grant is gone; else as any change.
    pub async fn commit(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::commit(work, &request))
            .await
    }

    /// Ends a migration at its source: the target loses its grant.
    ///
    /// # Errors
    /// `NotFound` where there is no such ticket; `Conflict` where it ended at the target, or the
    /// source's grant is gone and the target's is not; else as any change.
    pub async fn abort(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::abort(work, &request))
            .await
    }

    /// The ticket that `request` names: to know its scope before it is ended.
    ///
    /// # Errors
    /// `NotFound` where there is none; else as any change.
    pub async fn ticket(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::named(work, &request))
            .await
    }

    /// A page of tickets, the latest first.
    ///
    /// # Errors
    /// `InvalidReference` where `after` is no page's `next`; else as any change.
    pub async fn tickets(
        &self,
        scope: Option<&str>,
        state: Option<TicketState>,
        page: &PageQuery,
    ) -> Result<TicketsAnswer> {
        let (scope, page) = (scope.map(str::to_owned), page.clone());
        self.change(move |work| {
            let page = (page.limit(), page.after.as_deref());
            tickets::page(work, scope.as_deref(), state, page)
        })
        .await
    }

    /// Ends the tickets whose time is over, and says which became undecided or expired since this
    /// was last asked, each once: to be audited. After a start, all that are undecided are among
    /// them. To be called every few seconds; costs nothing where nothing is due.
    ///
    /// # Errors
    /// As any change.
    pub async fn expire(&self) -> Result<Vec<Ticket>> {
        let now = self.shared.time.now();
        let stale = now - self.shared.mark.load(Ordering::Relaxed) >= MARK;
        let overdue = self.shared.memory().is_overdue(now);
        if stale || overdue {
            self.flush().await?;
        }
        let ended = &self.shared.ended;
        let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *ended))
    }

    /// To be called when the audit holds the reads and before their answer leaves. The first fetch
    /// under a migration is durable when it returns.
    ///
    /// # Errors
    /// `PermissionDenied` where a grant was taken away meanwhile: then nothing may be answered.
    /// Else as any change, and nothing may be answered either.
    pub async fn fetched(&self, permits: &[Permit]) -> Result<()> {
        let mut fresh: Vec<String> = Vec::new();
        for permit in permits {
            let held = self.current(permit).ok_or_else(tickets::gone)?;
            if let Some(running) = held.as_ref().and_then(|held| held.running.as_ref())
                && !running.is_fetched()
                && !fresh.contains(&running.id)
            {
                fresh.push(running.id.clone());
            }
        }
        for id in fresh {
            self.change(move |work| tickets::fetch(work, &id)).await?;
        }
        Ok(())
    }

    /// Takes all grants from `node` and lets it have no more, its own scope included. The answer
    /// holds every secret that it was ever given. Tickets are not decided by it: one that it is
    /// part of can be committed or aborted as long as the other node holds its grant.
    ///
    /// # Errors
    /// `InvalidReference` where the name is none; else as any change.
    pub async fn quarantine(&self, node: &str) -> Result<QuarantineAnswer> {
        let name = node.to_owned();
        let revoked = self.change(move |work| nodes::quarantine(work, &name));
        let revoked = revoked.await?;
        // Asked when memory knows: what the node is given until then is in the audit, and counted.
        let name = node.to_owned();
        let fetched = self.change(move |work| nodes::fetched(work, &name));
        Ok(QuarantineAnswer {
            node: node.to_owned(),
            revoked,
            fetched: fetched.await?,
        })
    }

    /// Lets `node` be granted again; what it held does not come back.
    ///
    /// # Errors
    /// `NotFound` where nobody knows it; else as any change.
    pub async fn release(&self, node: &str) -> Result<Node> {
        let node = node.to_owned();
        self.change(move |work| nodes::release(work, &node)).await
    }

    /// A page of nodes that ever held a grant or fetched something, by name.
    ///
    /// # Errors
    /// As any change.
    pub async fn nodes(&self, page: &PageQuery) -> Result<NodesAnswer> {
        let page = page.clone();
        self.change(move |work| nodes::page(work, page.limit(), page.after.as_deref()))
            .await
    }

    /// Remembers that a secret is deleted, in place of an older tombstone.
    ///
    /// # Errors
    /// As any change.
    pub async fn bury(&self, tombstone: &Tombstone) -> Result<()> {
        let tombstone = tombstone.clone();
        self.change(move |work| nodes::bury(work, tombstone)).await
    }

    /// Forgets a tombstone, and says which.
    ///
    /// # Errors
    /// As any change.
    pub async fn exhume(&self, subject: &str) -> Result<Option<Tombstone>> {
        let subject = subject.to_owned();
        self.change(move |work| nodes::exhume(work, &subject)).await
    }

    /// Writes down what is buffered: the fetch index, the audit's head, the time.
    ///
    /// # Errors
    /// As any change.
    pub async fn flush(&self) -> Result<()> {
        self.change(|_| Ok(())).await
    }

    /// Has the thread do `work`, and waits until it is durable.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Work<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stopped = || Error::new(ErrorKind::Internal, "the state's thread has ended");
        let (answer, answered) = oneshot::channel();
        let task = Box::new(Task::new(work, answer));
        self.commands
            .send(Command::Change(task))
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for State {
    /// Waits until what is buffered is written down, or cannot be.
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Close);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        super::private::unlock(&self.lock);
    }
}

#[cfg(test)]
mod tests;
