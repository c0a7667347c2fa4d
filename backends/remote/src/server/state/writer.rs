//! The thread that changes the file, and then memory. Changes that wait together share a
//! transaction.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::database::Worded;
use super::memory::Change;
use super::{Ended, Notice, Shared, tickets};
use crate::protocol::AuditHead;

/// How long what is buffered may wait.
const PAUSE: Duration = Duration::from_secs(1);
/// How many changes share a transaction at most.
const TOGETHER: usize = 256;

pub(super) enum Command {
    /// Something is buffered.
    Buffered,
    Change(Box<dyn Job>),
    /// Something is asked that changes nothing: no transaction, and no sync.
    Look(Look),
    /// Nobody will ask any more.
    Close,
}

/// Asks the file, and answers by itself.
pub(super) type Look = Box<dyn FnOnce(&Connection) + Send>;

/// A change that somebody waits for.
pub(super) trait Job: Send {
    /// Does it, within a transaction; true where it came to nothing and is to be taken back.
    fn run(&mut self, work: &mut Work<'_>) -> bool;
    /// Answers, when it is durable, or failed to be.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

pub(super) struct Task<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<T, F> Task<T, F> {
    pub fn new(work: F, answer: oneshot::Sender<Result<T>>) -> Self {
        Self {
            work: Some(work),
            result: None,
            answer,
        }
    }
}

impl<T: Send, F: FnOnce(&mut Work<'_>) -> Result<T> + Send> Job for Task<T, F> {
    fn run(&mut self, work: &mut Work<'_>) -> bool {
        let change = self.work.take();
        if self.answer.is_closed() {
            return true;
        }
        // One that panics is taken back like one that fails, and the others go on.
        let done = catch_unwind(AssertUnwindSafe(|| change.map(|change| change(work))));
        self.result = done.unwrap_or_else(|_| Some(Err(defect())));
        matches!(self.result, Some(Err(_)))
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let result = match (self.result, failure) {
            (Some(Err(own)), _) => Some(Err(own)),
            (_, Some(failure)) => Some(Err(again(failure))),
            (result, None) => result,
        };
        if let Some(result) = result {
            let _ = self.answer.send(result);
        }
    }
}

/// The failure of what has panicked.
pub(super) fn defect() -> Error {
    tracing::error!("a defect of the service: a change of the state has panicked");
    Error::new(ErrorKind::Internal, "a defect of the service")
}

/// The same failure for another who waited.
fn again(failure: &Error) -> Error {
    let error = Error::new(failure.kind(), failure.message().to_owned());
    match failure.advice() {
        Some(advice) => error.with_advice(advice.to_owned()),
        None => error,
    }
}

/// What a change works with.
pub(super) struct Work<'a> {
    pub db: &'a Connection,
    /// The time, in microseconds.
    pub now: i64,
    pub changes: Vec<Change>,
    /// What ended by itself.
    pub ended: Vec<Notice>,
    /// What was told of it.
    pub told: Vec<String>,
    pub epoch: i64,
}

impl Work<'_> {
    /// The epoch of one more change of a grant.
    pub fn next_epoch(&mut self) -> i64 {
        self.epoch += 1;
        self.epoch
    }

    /// Has it told what ended by itself, even where the service does before it could.
    pub fn notice(&mut self, id: String, ended: Ended) -> Result<()> {
        let text = serde_json::to_string(&ended).map_err(|error| {
            let message = "what ended cannot be put in words";
            Error::new(ErrorKind::Internal, message).with_source(error)
        })?;
        let sql = "INSERT OR REPLACE INTO untold VALUES (?, ?)";
        self.db.execute(sql, params![id, text]).worded()?;
        self.ended.push(Notice { id, ended });
        Ok(())
    }
}

/// What nodes fetched since it was last written down, and up to which record.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub fetches: HashMap<Arc<str>, HashMap<String, Seen>>,
    pub head: Option<AuditHead>,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub version: Option<String>,
    pub first: i64,
    pub last: i64,
    pub count: i64,
}

impl Buffer {
    pub fn add(&mut self, node: Arc<str>, secret: String, later: Seen) {
        let secrets = self.fetches.entry(node).or_default();
        match secrets.get_mut(&secret) {
            Some(seen) => {
                seen.count += later.count;
                seen.last = later.last;
                seen.version = later.version;
            }
            None => {
                secrets.insert(secret, later);
            }
        }
    }

    /// Puts what came later behind this.
    fn append(&mut self, later: Buffer) {
        for (node, secrets) in later.fetches {
            for (secret, seen) in secrets {
                self.add(Arc::clone(&node), secret, seen);
            }
        }
        self.head = later.head.or(self.head.take());
    }
}

/// Serves until the state is closed, and then writes down what is buffered.
pub(super) fn run(db: &Connection, shared: &Shared, commands: &mpsc::Receiver<Command>) {
    let mut due: Option<Instant> = None;
    loop {
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let command = match wait {
            Some(wait) => commands.recv_timeout(wait),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut jobs = Vec::new();
        match command {
            Ok(Command::Buffered) => {
                due.get_or_insert_with(|| Instant::now() + PAUSE);
                continue;
            }
            Ok(Command::Change(job)) => jobs.push(job),
            Ok(Command::Look(look)) => {
                answer(db, look);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Command::Close) | Err(RecvTimeoutError::Disconnected) => {
                together(db, shared, jobs);
                return;
            }
        }
        let mut close = false;
        let mut looks = Vec::new();
        while jobs.len() < TOGETHER && !close {
            match commands.try_recv() {
                Ok(Command::Change(job)) => jobs.push(job),
                // It may want to see what these do.
                Ok(Command::Look(look)) => looks.push(look),
                // It is written with these.
                Ok(Command::Buffered) => {}
                Ok(Command::Close) => close = true,
                Err(_) => break,
            }
        }
        let flushed = together(db, shared, jobs);
        for look in looks {
            answer(db, look);
        }
        if close {
            return;
        }
        due = (!flushed).then(|| Instant::now() + PAUSE);
    }
}

/// Answers what only looks; where it panics, whoever waits is told by its end.
fn answer(db: &Connection, look: Look) {
    if catch_unwind(AssertUnwindSafe(|| look(db))).is_err() {
        defect();
    }
}

/// Makes all of the changes durable that are none of their own failures, or none; and what was
/// buffered with them. Only then does memory learn of it, and whoever waits.
fn together(db: &Connection, shared: &Shared, mut jobs: Vec<Box<dyn Job>>) -> bool {
    shared.buffered.store(false, Ordering::SeqCst);
    let buffer = {
        let mut buffer = shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *buffer)
    };
    let outcome = transact(db, shared, &mut jobs, &buffer);
    let failure = match outcome {
        Ok(work) => {
            shared.learn(work, buffer.head);
            None
        }
        Err(error) => {
            let mut later = shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut earlier = buffer;
            earlier.append(std::mem::take(&mut *later));
            *later = earlier;
            tracing::error!("{error}: nothing was changed");
            Some(error)
        }
    };
    for job in jobs {
        job.answer(failure.as_ref());
    }
    failure.is_none()
}

fn transact<'a>(
    db: &'a Connection,
    shared: &Shared,
    jobs: &mut [Box<dyn Job>],
    buffer: &Buffer,
) -> Result<Work<'a>> {
    db.execute_batch("BEGIN IMMEDIATE").worded()?;
    let done = work(db, shared, jobs, buffer).and_then(|work| {
        let sql = "UPDATE meta SET epoch = ?, mark = ?";
        db.execute(sql, params![work.epoch, work.now]).worded()?;
        db.execute_batch("COMMIT").worded()?;
        Ok(work)
    });
    if done.is_err() && !db.is_autocommit() {
        // Where even this fails, the next BEGIN does, and nothing is changed either.
        let _ = db.execute_batch("ROLLBACK");
    }
    done
}

fn work<'a>(
    db: &'a Connection,
    shared: &Shared,
    jobs: &mut [Box<dyn Job>],
    buffer: &Buffer,
) -> Result<Work<'a>> {
    let mut work = Work {
        db,
        now: shared.time.now(),
        changes: Vec::new(),
        ended: Vec::new(),
        told: Vec::new(),
        epoch: super::database::meta(db)?.0,
    };
    super::nodes::index(db, buffer)?;
    tickets::sweep(&mut work)?;
    for job in jobs {
        let (changes, epoch) = (work.changes.len(), work.epoch);
        let told = work.told.len();
        db.execute_batch("SAVEPOINT job").worded()?;
        if job.run(&mut work) {
            work.changes.truncate(changes);
            work.told.truncate(told);
            work.epoch = epoch;
            // Fails where SQLite has given up the transaction: then all of it failed.
            db.execute_batch("ROLLBACK TO job").worded()?;
        }
        db.execute_batch("RELEASE job").worded()?;
    }
    Ok(work)
}
