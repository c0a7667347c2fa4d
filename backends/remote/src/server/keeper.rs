//! A thread that keeps a file, and may hang with the disk under it.

use std::convert::Infallible;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keyhaul_core::{Error, Result};

/// How long its end is awaited.
const PATIENCE: Duration = Duration::from_secs(10);

/// A thread that has to end before what it keeps may be somebody else's.
#[derive(Debug)]
pub(super) struct Keeper {
    name: &'static str,
    thread: JoinHandle<()>,
    /// Nothing comes of it: that nobody can send any more says that the work is over.
    works: Mutex<Receiver<Infallible>>,
}

impl Keeper {
    /// Has a thread of this name do `work`.
    ///
    /// # Errors
    /// As the system has it, where there can be no more threads.
    pub(super) fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<Self> {
        let (until, works) = mpsc::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            // Dropped last, and by a panic too.
            let _until = until;
            // To wake a task takes this thread's part of the runtime, which is made at its first use. That
            // takes a lock of the system's linker, which a library can hold for ever while it is loaded.
            let _ = tokio::runtime::Handle::try_current();
            work();
        });
        let thread = thread
            .map_err(|error| Error::io(format!("the {name}'s thread cannot be started"), error))?;
        Ok(Self {
            name,
            thread,
            works: Mutex::new(works),
        })
    }

    /// Waits for its end; whether that came. One that hangs is left behind: nobody could end it but
    /// the disk, and the process goes without it.
    pub(super) fn end(self) -> bool {
        let works = self.works.into_inner();
        let works = works.unwrap_or_else(PoisonError::into_inner);
        match works.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!(
                    "the disk under the {} hangs: its thread is left behind, and what it had not written is lost",
                    self.name
                );
                false
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                // Its panic was told by itself.
                let _ = self.thread.join();
                true
            }
        }
    }
}
