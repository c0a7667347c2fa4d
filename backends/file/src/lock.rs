//! Writers exclude each other, within a process and across processes and hosts.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::io_error;
use crate::tree::Folder;

const FILE: &str = ".lock";
const LIMIT: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(10);

/// Held while a store is written to. The kernel lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Waits for the lock: until `deadline`, and never longer than ten seconds.
    ///
    /// # Errors
    /// `Timeout` when another writer holds it for that long.
    pub(crate) fn acquire(root: &Folder, deadline: Option<Instant>) -> Result<Self> {
        let file = root.open_lock(FILE)?;
        let path = root.path().join(FILE);
        let limit = Instant::now() + LIMIT;
        let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
        // The kernel's own wait cannot be given a limit, short of signals.
        let mut pause = SHORTEST;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(io_error("locking", &path, error)),
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("another writer holds {}", path.display()),
                )
                .with_advice(format!("see who does: fuser -v {}", path.display())));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST);
        }
    }
}
