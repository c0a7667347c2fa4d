//! The audit: what was decided, durable before the answer, in a chain that shows what was changed
//! later.
//!
//! # The file
//! Each line is a record, a JSON object that begins with `sequence` (1, 2, 3, …) and `time` and ends
//! with `hash`: SHA-256, in lower-case hexadecimal, over the hash of the record before, as its 64
//! digits, followed by the line without the member `hash`. Before the first record stand 64 zeros.
//! The first record of each file repeats the hash before it as `previous`. In Python:
//!
//! ```python
//! previous = "0" * 64
//! for line in open("audit.jsonl"):
//!     content, _, rest = line.rpartition(',"hash":"')
//!     previous = hashlib.sha256((previous + content + "}").encode()).hexdigest()
//!     assert rest == previous + '"}\n'
//! ```
//!
//! What was decided besides stands in `terms`, see [`Entry::terms`].
//!
//! Who can write the file can also make the chain anew from any record on. Only a [head](AuditHead)
//! kept elsewhere shows that, and what was cut off at the end: the service keeps one in its state,
//! and an operator gets one with each page of records.
//!
//! # Rotation
//! Move the file away, then have it [reopened](AuditLog::reopen): the chain goes on in a new file.
//! Older files are looked for beside it, under names that begin with its own. A file that is
//! copied and emptied in place is no longer the one that the log wrote: it refuses to go on.

mod chain;
mod entry;
mod lines;
mod segments;
mod verify;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::keeper::Keeper;
use super::private::{self, Locked};
use crate::protocol::{AuditAnswer, AuditHead};
use chain::{Line, broken};
use lines::{Lines, seek, whole_length};
use writer::{Command, Pending, Writer};

pub use entry::Entry;
pub(super) use segments::Later;
pub use verify::{Verified, verify};

/// How many records one [`AuditLog::read`] looks at, wanted or not.
const LOOKS: usize = 20_000;
/// How long an [`AuditLog::append`] waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many KiB of records wait for the disk at most: where it hangs, more are refused at once.
const ROOM: usize = 64 * 1024;

/// The log, appended to by one process.
///
/// Records that arrive while the disk is busy share the next write and the next sync.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    published: Arc<Published>,
    commands: Option<mpsc::Sender<Command>>,
    /// For what waits to be written, in KiB.
    room: Arc<Semaphore>,
    thread: Option<Keeper>,
}

/// What is durable.
#[derive(Debug)]
struct Published(Mutex<(Arc<Locked>, u64, AuditHead)>);

impl Published {
    fn set(&self, file: &Arc<Locked>, length: u64, head: AuditHead) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *published = (Arc::clone(file), length, head);
    }
}

/// A read, as the fetch index is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub node: Arc<str>,
    pub secret: String,
    pub version: Option<String>,
}

/// Is told of what became durable: the reads in it, when, and where the chain ends now.
pub(super) type Follower = Box<dyn FnMut(Vec<(Read, Timestamp)>, &AuditHead) + Send>;

impl AuditLog {
    /// Opens or makes the log at `path`. It must hold the record that `anchor` names, or go on from
    /// a file beside it that does. What a write that was never acknowledged left half done at the
    /// end is cut off.
    ///
    /// # Errors
    /// `Conflict` where another process has it open; `PermissionDenied` where the file is not the
    /// service's alone; `Corrupt` where its records
    /// were changed since the anchor, or it ends before it; else the kind that fits the I/O error.
    pub fn open(path: &Path, anchor: Option<AuditHead>) -> Result<Self> {
        let file = private::open(path, "audit")?;
        let file = Locked::new(file, path, "audit")?;
        let unreadable = |error| {
            let subject = format!("the audit file {} cannot be read", path.display());
            Error::io(subject, error)
        };
        let length = whole_length(&file).map_err(unreadable)?;
        let torn = file.metadata().map_err(unreadable)?.len() - length;
        if torn > 0 {
            tracing::warn!(
                "the audit file {} ends in {torn} bytes of a record that was never acknowledged: they are cut off",
                path.display()
            );
            file.set_len(length).map_err(unreadable)?;
        }
        let anchor = anchor.filter(|anchor| anchor.sequence > 0);
        let head = segments::resume(path, anchor.as_ref())?;
        let file = Arc::new(file);
        let published = Arc::new(Published(Mutex::new((
            Arc::clone(&file),
            length,
            head.clone(),
        ))));
        let (commands, received) = mpsc::channel();
        let writer = Writer::new(path, file, length, head, Arc::clone(&published));
        let thread = Keeper::start("audit", move || writer.run(&received))?;
        Ok(Self {
            path: path.to_owned(),
            published,
            commands: Some(commands),
            room: Arc::new(Semaphore::new(ROOM)),
            thread: Some(thread),
        })
    }

    /// Records `entries`, durably before it returns the first one's number. With none, returns the
    /// number that would come next.
    ///
    /// # Errors
    /// `StorageFull` or the kind that fits, where nothing was recorded: then what is to be recorded
    /// must not happen. `Timeout` where the disk hangs: it may be recorded yet, and must not happen
    /// either. `TooLarge` where an entry is longer than 64 KiB.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<u64> {
        if entries.is_empty() {
            return Ok(self.head().sequence + 1);
        }
        let (answer, answered) = oneshot::channel();
        let mut pending = Pending {
            bodies: Vec::with_capacity(320 * entries.len()),
            ends: Vec::with_capacity(entries.len()),
            reads: Vec::new(),
            answer,
            room: None,
        };
        for entry in entries {
            entry.body(&mut pending.bodies)?;
            pending.ends.push(pending.bodies.len());
            pending.reads.extend(entry.into_read());
        }
        let size = u32::try_from(pending.bodies.len() / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(size);
        pending.room = Some(room.map_err(|_| late("has too much to write"))?);
        self.send(Command::Append(pending))?;
        match timeout(PATIENCE, answered).await {
            Ok(answer) => answer.map_err(|_| stopped())?,
            Err(_) => Err(late("did not answer in time")),
        }
    }

    /// Where the chain ends.
    pub fn head(&self) -> AuditHead {
        let published = &self.published.0;
        let published = published.lock().unwrap_or_else(PoisonError::into_inner);
        published.2.clone()
    }

    /// Up to `limit` records after number `after` whose subjects `keep` wants, as they stand in the
    /// file, and in those beside it that it was moved to. Where `next` is given, there may be more
    /// after that number. Blocks on the disk.
    ///
    /// # Errors
    /// `NotFound` where the records after `after` are in files that are no longer there; `Corrupt`
    /// where a record is none; else the kind that fits the I/O error.
    pub fn read(
        &self,
        after: u64,
        limit: usize,
        keep: &dyn Fn(Option<&str>) -> bool,
    ) -> Result<AuditAnswer> {
        let (file, length, head) = {
            let published = &self.published.0;
            let published = published.lock().unwrap_or_else(PoisonError::into_inner);
            published.clone()
        };
        let mut page = Page {
            answer: AuditAnswer {
                records: Vec::new(),
                next: None,
                head: head.clone(),
            },
            limit,
            looks: LOOKS,
            last: after,
        };
        let first = first(&self.path, &file, length)?.unwrap_or(head.sequence + 1);
        if after.saturating_add(1) < first {
            let older = segments::lineage(&self.path, Some(&head))?;
            let older = older
                .into_iter()
                .filter(|older| older.last.sequence < first);
            let mut there = after;
            for older in older.filter(|older| older.last.sequence > after) {
                if older.first > there.saturating_add(1) {
                    return Err(missing(there + 1, older.first));
                }
                there = older.last.sequence;
                let file = verify::open(&older.path)?;
                let end = verify::length(&older.path, &file)?;
                if page.read(&older.path, &file, (after, end), keep)? {
                    return Ok(page.answer);
                }
            }
            if there.saturating_add(1) < first {
                return Err(missing(there + 1, first));
            }
        }
        page.read(&self.path, &file, (after, length), keep)?;
        Ok(page.answer)
    }

    /// What the records after number `after` say of changes with epochs greater than `epoch`.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The kind that fits the I/O error.
    pub(super) fn later(&self, after: u64, epoch: u64) -> Result<Option<Later>> {
        segments::later(&self.path, &self.head(), after, epoch)
    }

    /// Goes on in a new file at the same path, where the old one was moved away; else does nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open); the old file stays in use then.
    pub async fn reopen(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Reopen(answer))?;
        answered.await.map_err(|_| stopped())?
    }

    /// Tells `follower` of all reads after number `after`, and of all to come. Blocks.
    pub(super) fn follow(&self, after: u64, follower: Follower) -> Result<()> {
        let (answer, answered) = mpsc::channel();
        self.send(Command::Follow(after, follower, answer))?;
        answered.recv().map_err(|_| stopped())?
    }

    fn send(&self, command: Command) -> Result<()> {
        let commands = self.commands.as_ref().ok_or_else(stopped)?;
        commands.send(command).map_err(|_| stopped())
    }
}

impl Drop for AuditLog {
    /// Waits for what is being written, but not without end: a thread that is left behind holds the
    /// file, and its lock, as long as it is at it.
    fn drop(&mut self) {
        self.commands = None;
        if self.thread.take().is_none_or(Keeper::end) {
            let published = &self.published.0;
            let published = published.lock().unwrap_or_else(PoisonError::into_inner);
            published.0.let_go();
        }
    }
}

/// A page on its way.
struct Page {
    answer: AuditAnswer,
    limit: usize,
    looks: usize,
    last: u64,
}

impl Page {
    /// Reads on in a file, from after a record to a length; whether that was all that is wanted.
    fn read(
        &mut self,
        path: &Path,
        file: &File,
        (after, end): (u64, u64),
        keep: &dyn Fn(Option<&str>) -> bool,
    ) -> Result<bool> {
        let unreadable = |error| {
            let subject = format!("the audit file {} cannot be read", path.display());
            Error::io(subject, error)
        };
        let start = seek(file, after, end).map_err(unreadable)?;
        let mut lines = Lines::new(file, start, end);
        while let Some(found) = lines.next().map_err(unreadable)? {
            if self.answer.records.len() == self.limit || self.looks == 0 {
                self.answer.next = Some(self.last);
                return Ok(true);
            }
            self.looks -= 1;
            let parsed = Line::parse(found.line).map(|line| line.sequence);
            let record = serde_json::from_slice::<serde_json::Value>(found.line).ok();
            let (Some(sequence), Some(record)) = (parsed, record) else {
                let message = format!("the audit holds no record at byte {}", found.at);
                return Err(broken(message).with_place(path.display()));
            };
            if keep(record.get("subject").and_then(|subject| subject.as_str())) {
                self.answer.records.push(record);
            }
            self.last = sequence;
        }
        Ok(false)
    }
}

/// A file's first record, where it has one.
fn first(path: &Path, file: &File, length: u64) -> Result<Option<u64>> {
    let unreadable = |error| {
        let subject = format!("the audit file {} cannot be read", path.display());
        Error::io(subject, error)
    };
    let mut lines = Lines::new(file, 0, length);
    let found = lines.next().map_err(unreadable)?;
    Ok(found.and_then(|found| Some(Line::parse(found.line)?.sequence)))
}

fn missing(from: u64, first: u64) -> Error {
    let last = first - 1;
    let message = format!(
        "the audit's records {from} to {last} are no longer beside it; {first} is the first after them that is"
    );
    Error::new(ErrorKind::NotFound, message).with_advice(format!(
        "ask for those after {last}, or put the older files back beside it"
    ))
}

fn late(what: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("the audit's disk {what}"))
        .with_advice("see whether the disk under the audit hangs")
}

fn stopped() -> Error {
    Error::new(ErrorKind::Internal, "the audit's thread has ended")
}

#[cfg(test)]
mod tests;
