//! Writers exclude each other, within a process and across processes and hosts; and the next one
//! tidies up after one that died.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;

use crate::error::io_error;
use crate::tree::Folder;

const FILE: &str = ".lock";
const LIMIT: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(10);

/// The lock file's mode while nobody writes.
const IDLE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Its mode while somebody does: a bit that costs no room on a full disk. A new lock file begins so.
const WRITING: Mode = Mode::RWXU;

/// Held while a store is written to. The kernel lets go of it when the process dies; the mode of
/// the lock file then still says that something was half done.
#[derive(Debug)]
pub(crate) struct Lock {
    file: OwnedFd,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock, until `deadline` and never longer than ten seconds, and mends what the
    /// writer before left half done.
    ///
    /// # Errors
    /// `Timeout` when another writer holds it for that long.
    pub(crate) fn acquire(root: &Folder, deadline: Option<Instant>) -> Result<Self> {
        let lock = Self {
            file: root.open_lock(FILE, WRITING)?,
            path: root.path().join(FILE),
        };
        lock.wait(deadline)?;
        lock.mend(root)?;
        Ok(lock)
    }

    /// Says that something is about to be changed.
    pub(crate) fn begin(&self) -> Result<()> {
        self.set_mode(WRITING)
    }

    /// Says that all changes are done and durable.
    pub(crate) fn done(self) -> Result<()> {
        self.set_mode(IDLE)
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
        // The kernel's own wait cannot be given a limit, short of signals.
        let mut pause = SHORTEST;
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(io_error("locking", &self.path, error)),
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("another writer holds {}", self.path.display()),
                )
                .with_advice(format!("see who does: fuser -v {}", self.path.display())));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// After a writer that died: what it moved into place may not be durable yet and would be
    /// built upon, and its temporary file is still there.
    fn mend(&self, root: &Folder) -> Result<()> {
        let failed = |error| io_error("writing", &self.path, error);
        let stat = rustix::fs::fstat(&self.file).map_err(failed)?;
        if !Mode::from_raw_mode(stat.st_mode).contains(WRITING) {
            return Ok(());
        }
        rustix::fs::syncfs(self.file.as_fd()).map_err(failed)?;
        root.sweep()?;
        self.set_mode(IDLE)
    }

    fn set_mode(&self, mode: Mode) -> Result<()> {
        rustix::fs::fchmod(&self.file, mode).map_err(|error| io_error("writing", &self.path, error))
    }
}
