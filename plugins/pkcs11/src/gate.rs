//! Who may be inside a library at the same time: many readers, or one writer; and one at the door.
//!
//! A call inside may never come back. So nobody waits at the gate without a limit, which a lock of the
//! standard library cannot promise, and a writer that gives up lets the readers behind it go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};

/// How long a writer waits, and with it the readers that came later.
const PATIENCE: Duration = Duration::from_secs(5);

/// The gates of a factory's stores, by library.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<Mutex<BTreeMap<PathBuf, Arc<Gate>>>>);

/// The gate of one library. What it guards is outside of Rust.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    readers: usize,
    writers: usize,
    /// Writers at the gate: they go before readers that come later.
    waiting: usize,
    at_door: bool,
}

/// Being inside, until it is dropped.
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    writes: bool,
}

/// Being at the door, until it is dropped.
pub(crate) struct Door<'a> {
    gate: &'a Gate,
}

impl Gates {
    /// The gate of the library at `path`, by its name in the policy.
    pub(crate) fn of(&self, path: &Path) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(path.to_owned()).or_default())
    }
}

impl Gate {
    /// Goes in beside other readers.
    ///
    /// # Errors
    /// `Unavailable` where a writer does not come out.
    pub(crate) fn read(&self) -> Result<Turn<'_>> {
        // Twice: one writer inside, and one behind it that gives up.
        let mut inside = self.wait(self.inside(), PATIENCE * 2, |inside| {
            inside.writers == 0 && inside.waiting == 0
        })?;
        inside.readers += 1;
        Ok(Turn {
            gate: self,
            writes: false,
        })
    }

    /// Goes in alone.
    ///
    /// # Errors
    /// `Unavailable` where those inside do not come out.
    pub(crate) fn write(&self) -> Result<Turn<'_>> {
        self.write_within(PATIENCE)
    }

    /// Goes to the door, where sessions are opened, logged in and closed: by one thread at a time, of
    /// all stores. SoftHSM 2.6 damages its own memory otherwise, and shows it when the process ends.
    ///
    /// # Errors
    /// `Unavailable` where the one at the door does not go.
    pub(crate) fn door(&self) -> Result<Door<'_>> {
        let mut inside = self.wait(self.inside(), PATIENCE, |inside| !inside.at_door)?;
        inside.at_door = true;
        Ok(Door { gate: self })
    }

    fn write_within(&self, patience: Duration) -> Result<Turn<'_>> {
        let mut inside = self.inside();
        inside.waiting += 1;
        let waited = self.wait(inside, patience, |inside| {
            inside.writers == 0 && inside.readers == 0
        });
        let (mut inside, came) = match waited {
            Ok(inside) => (inside, Ok(())),
            Err(error) => (self.inside(), Err(error)),
        };
        inside.waiting -= 1;
        match came {
            Ok(()) => {
                inside.writers += 1;
                Ok(Turn {
                    gate: self,
                    writes: true,
                })
            }
            Err(error) => {
                self.changed.notify_all();
                Err(error)
            }
        }
    }

    fn wait<'a>(
        &self,
        mut inside: MutexGuard<'a, Inside>,
        patience: Duration,
        is_open: impl Fn(&Inside) -> bool,
    ) -> Result<MutexGuard<'a, Inside>> {
        let until = Instant::now() + patience;
        while !is_open(&inside) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "others are at work with the token and do not come to an end",
                )
                .with_advice("see whether the token answers its own tools"));
            }
            let waited = self.changed.wait_timeout(inside, left);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(inside)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        if self.writes {
            inside.writers -= 1;
        } else {
            inside.readers -= 1;
        }
        drop(inside);
        self.gate.changed.notify_all();
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        self.gate.inside().at_door = false;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_writer_is_alone_and_readers_are_not() {
        let gate = Gate::default();
        let (one, two) = (gate.read().expect("in"), gate.read().expect("in"));
        let short = Duration::from_millis(10);
        let error = gate.write_within(short).map(|_| ());
        assert_eq!(error.expect_err("readers").kind(), ErrorKind::Unavailable);
        drop((one, two));
        let writer = gate.write_within(short).expect("alone");
        assert!(gate.write_within(short).is_err());
        drop(writer);
        gate.read().map(drop).expect("in");
    }

    #[test]
    fn one_is_at_the_door_whoever_is_inside() {
        let gate = Gate::default();
        let _reader = gate.read().expect("in");
        let first = gate.door().expect("at the door");
        thread::scope(|scope| {
            let gate = &gate;
            let second = scope.spawn(|| gate.door().map(drop));
            // It has not come so far, however long it had.
            assert!(gate.inside().at_door && !second.is_finished());
            drop(first);
            second.join().expect("ended").expect("at the door, then");
        });
        assert!(!gate.inside().at_door);
    }

    #[test]
    fn a_writer_that_waits_goes_before_readers_that_come_later() {
        let gate = Gate::default();
        let reader = gate.read().expect("in");
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let (gate, first) = (&gate, tell.clone());
            scope.spawn(move || {
                let turn = gate.write().expect("in");
                first.send("writer").expect("heard");
                drop(turn);
            });
            while gate.inside().waiting == 0 {
                thread::yield_now();
            }
            scope.spawn(move || {
                let turn = gate.read().expect("in");
                tell.send("reader").expect("heard");
                drop(turn);
            });
            drop(reader);
        });
        assert_eq!(told.iter().collect::<Vec<_>>(), ["writer", "reader"]);
    }

    #[test]
    fn readers_go_on_where_a_writer_gave_up() {
        let gate = Gate::default();
        // Hangs, as it were.
        let _hung = gate.read().expect("in");
        thread::scope(|scope| {
            let gate = &gate;
            let writer =
                scope.spawn(move || gate.write_within(Duration::from_millis(50)).map(|_| ()));
            while gate.inside().waiting == 0 && !writer.is_finished() {
                thread::yield_now();
            }
            gate.read().map(drop).expect("in, once the writer gave up");
            assert!(writer.join().expect("ended").is_err());
        });
    }
}
