//! The thread that writes the audit.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::private::{self, Locked};
use super::chain::{END, HASH, Line, PREVIOUS, SEQUENCE, TIME, hash};
use super::entry::with_field;
use super::lines::{Lines, seek};
use super::segments::lineage;
use super::{Entry, Follower, Published, Read};
use crate::protocol::AuditHead;

/// How many bytes go into one write, about: what comes later shares the next.
const BATCH: usize = 1024 * 1024;

/// What the thread is asked to do.
pub(super) enum Command {
    Append(Pending),
    Reopen(oneshot::Sender<Result<()>>),
    Follow(u64, Follower, mpsc::Sender<Result<()>>),
}

/// Records that wait to be written: their members, put in words where they were made.
pub(super) struct Pending {
    pub bodies: Vec<u8>,
    /// Where in `bodies` each ends.
    pub ends: Vec<usize>,
    pub reads: Vec<Read>,
    pub answer: oneshot::Sender<Result<u64>>,
    /// Given back when it is written, or cannot be.
    pub room: Option<OwnedSemaphorePermit>,
}

pub(super) struct Writer {
    path: PathBuf,
    file: Arc<Locked>,
    /// How much of the file is durable and whole.
    length: u64,
    head: AuditHead,
    /// Whether the file may hold more than that, of a write that failed.
    dirty: bool,
    published: Arc<Published>,
    follower: Option<Follower>,
    line: Vec<u8>,
}

impl Writer {
    pub fn new(
        path: &Path,
        file: Arc<Locked>,
        length: u64,
        head: AuditHead,
        published: Arc<Published>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            file,
            length,
            head,
            dirty: false,
            published,
            follower: None,
            line: Vec::new(),
        }
    }

    /// Serves until nobody can ask any more.
    pub fn run(mut self, commands: &mpsc::Receiver<Command>) {
        while let Ok(mut command) = commands.recv() {
            let mut batch = Vec::new();
            let mut size = 0;
            let other = loop {
                match command {
                    Command::Append(pending) => {
                        size += pending.bodies.len();
                        batch.push(pending);
                    }
                    other => break Some(other),
                }
                if size >= BATCH {
                    break None;
                }
                match commands.try_recv() {
                    Ok(next) => command = next,
                    Err(_) => break None,
                }
            };
            if !batch.is_empty() {
                self.append(batch);
            }
            match other {
                Some(Command::Reopen(answer)) => {
                    let _ = answer.send(self.reopen());
                }
                Some(Command::Follow(after, follower, answer)) => {
                    let _ = answer.send(self.follow(after, follower));
                }
                Some(Command::Append(_)) | None => {}
            }
        }
    }

    /// Writes all of a batch with one write and one sync, or none of it.
    fn append(&mut self, mut batch: Vec<Pending>) {
        let micros = Timestamp::now().as_microsecond();
        let now = Timestamp::from_microsecond(micros).unwrap_or_default();
        let time = format!("{now:.6}");
        let mut head = self.head.clone();
        let size: usize = batch.iter().map(|pending| pending.bodies.len()).sum();
        let count: usize = batch.iter().map(|pending| pending.ends.len()).sum();
        let mut buffer = Vec::with_capacity(size + 256 * count);
        for pending in &batch {
            let mut start = 0;
            for &end in &pending.ends {
                let fresh = self.length == 0 && buffer.is_empty();
                head.sequence += 1;
                let line = &mut self.line;
                line.clear();
                line.extend_from_slice(SEQUENCE.as_bytes());
                line.extend_from_slice(head.sequence.to_string().as_bytes());
                line.extend_from_slice(TIME.as_bytes());
                line.extend_from_slice(time.as_bytes());
                if fresh {
                    line.extend_from_slice(PREVIOUS.as_bytes());
                    line.extend_from_slice(head.hash.as_bytes());
                }
                line.extend_from_slice(b"\",");
                line.extend_from_slice(&pending.bodies[start..end]);
                head.hash = hash(&head.hash, line);
                buffer.extend_from_slice(line);
                buffer.extend_from_slice(HASH.as_bytes());
                buffer.extend_from_slice(head.hash.as_bytes());
                buffer.extend_from_slice(END.as_bytes());
                buffer.push(b'\n');
                start = end;
            }
        }
        if let Err(error) = self.write(&buffer) {
            tracing::error!("{error}: nothing is answered until it can be");
            for pending in batch {
                let error = Error::new(error.kind(), error.message().to_owned());
                let _ = pending.answer.send(Err(error));
            }
            return;
        }
        let mut sequence = self.head.sequence + 1;
        self.length += buffer.len() as u64;
        self.head = head;
        self.publish();
        if let Some(follower) = &mut self.follower {
            let reads = batch.iter_mut().flat_map(|pending| pending.reads.drain(..));
            follower(reads.map(|read| (read, now)).collect(), &self.head);
        }
        for pending in batch {
            let _ = pending.answer.send(Ok(sequence));
            sequence += pending.ends.len() as u64;
        }
    }

    fn publish(&self) {
        self.published
            .set(&self.file, self.length, self.head.clone());
    }

    /// Appends `bytes` durably, or leaves the file as it was.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let shown = self.path.display().to_string();
        let subject = |error| Error::io(format!("the audit {shown} cannot be written"), error);
        if self.dirty {
            self.file.set_len(self.length).map_err(subject)?;
            self.dirty = false;
        }
        let length = self.file.metadata().map_err(subject)?.len();
        if length != self.length {
            let message = format!(
                "the audit {shown} has {length} bytes where the service left {}",
                self.length
            );
            return Err(Error::new(ErrorKind::Unavailable, message).with_advice(
                "something else writes it: rotate it by moving it away and reloading the service",
            ));
        }
        let mut file: &File = &self.file;
        let written = file.write_all(bytes).and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            self.dirty = self.file.set_len(self.length).is_err();
            subject(error)
        })
    }

    /// Goes on in the file that is at the path now.
    fn reopen(&mut self) -> Result<()> {
        let file = private::open(&self.path, "audit")?;
        let subject = |error| {
            let subject = format!("the audit {} cannot be read", self.path.display());
            Error::io(subject, error)
        };
        let (old, new) = (self.file.metadata(), file.metadata());
        let (old, new) = (old.map_err(subject)?, new.map_err(subject)?);
        if (old.dev(), old.ino()) == (new.dev(), new.ino()) {
            return Ok(());
        }
        if new.len() != 0 {
            let message = format!(
                "the audit {} was replaced by a file that is not empty",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Conflict, message)
                .with_advice("move that file away, then reload the service"));
        }
        let file = Locked::new(file, &self.path, "audit")?;
        if self.dirty {
            // The old file ends with what was acknowledged, or it stays in use.
            self.file.set_len(self.length).map_err(subject)?;
            self.dirty = false;
        }
        self.file.let_go();
        self.file = Arc::new(file);
        self.length = 0;
        self.publish();
        Ok(())
    }

    /// Tells a follower of the reads after number `after`, from the files, and keeps it.
    fn follow(&mut self, after: u64, mut follower: Follower) -> Result<()> {
        for segment in lineage(&self.path, Some(&self.head))? {
            let path = &segment.path;
            if segment.last.sequence <= after {
                continue;
            }
            let subject = |error| Error::io(format!("{} cannot be read", path.display()), error);
            let file = File::open(path).map_err(subject)?;
            let end = file.metadata().map_err(subject)?.len();
            let mut lines = Lines::new(&file, seek(&file, after, end).map_err(subject)?, end);
            while let Some(found) = lines.next().map_err(subject)? {
                let Some(line) = Line::parse(found.line) else {
                    continue;
                };
                let head = AuditHead {
                    sequence: line.sequence,
                    hash: line.hash.to_owned(),
                };
                follower(Vec::from_iter(replayed(found.line)), &head);
            }
        }
        self.follower = Some(follower);
        Ok(())
    }
}

/// The read that a line records, where it does.
fn replayed(line: &[u8]) -> Option<(Read, Timestamp)> {
    #[derive(serde::Deserialize)]
    struct Replayed {
        time: Timestamp,
        operation: String,
        outcome: String,
        node: Option<String>,
        subject: Option<String>,
        version: Option<String>,
        #[serde(default)]
        terms: serde_json::Map<String, serde_json::Value>,
    }
    let record: Replayed = serde_json::from_slice(line).ok()?;
    if record.operation != Entry::READ || record.outcome != Entry::OK {
        return None;
    }
    let read = Read {
        node: record.node?.into(),
        secret: with_field(record.subject?, record.terms.get("field")),
        version: record.version,
    };
    Some((read, record.time))
}
