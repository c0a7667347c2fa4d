//! Who may be inside a library at the same time: many readers, or one writer; and one at the door.
//!
//! A call inside may never come back. So nobody waits at the gate without a limit, which a lock of the
//! standard library cannot promise, and a writer that gives up lets the readers behind it go on.
//!
//! What a read that does not come back costs is its thread: after a while, writers go in beside it.
//! Should it come back then, it may have seen what nobody should, and its answer is thrown away. For
//! a write that does not come back there is no such way: what it left half done stands there for
//! every reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};

/// How long a writer waits, and with it the readers that came later.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a reader is waited for: less, so that writers come to their turn.
const HANGS: Duration = Duration::from_secs(3);
/// How often a writer looks whether readers have been inside for that long: nobody tells it.
const LOOK: Duration = Duration::from_millis(50);

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
    /// By number, and since when. Those that a writer did not wait for are not among them.
    readers: BTreeMap<u64, Instant>,
    came: u64,
    writer: Option<Instant>,
    /// Writers at the gate: they go before readers that come later.
    waiting: usize,
    /// What for, and since when.
    at_door: Option<(&'static str, Instant)>,
}

/// Reading inside, until it is dropped.
pub(crate) struct Reading<'a> {
    gate: &'a Gate,
    number: u64,
}

/// Being inside alone, until it is dropped.
pub(crate) struct Writing<'a> {
    gate: &'a Gate,
}

/// Being at the door, until it is dropped.
pub(crate) struct Door<'a> {
    gate: &'a Gate,
}

impl Gates {
    /// The gate of the library at `path`, which is its real one: two names of one library are one
    /// library.
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
    pub(crate) fn read(&self) -> Result<Reading<'_>> {
        // Twice: one writer inside, and one behind it that gives up.
        let is_open = |inside: &Inside| match (inside.writer, inside.waiting) {
            (Some(since), _) => Err(("a write", since)),
            (None, 0) => Ok(()),
            (None, _) => Err(("a read, with a write behind it,", inside.first())),
        };
        let mut inside = self.wait(self.inside(), PATIENCE * 2, is_open)?;
        inside.came += 1;
        let number = inside.came;
        inside.readers.insert(number, Instant::now());
        Ok(Reading { gate: self, number })
    }

    /// Goes in alone, but for reads that hang.
    ///
    /// # Errors
    /// `Unavailable` where those inside do not come out.
    pub(crate) fn write(&self) -> Result<Writing<'_>> {
        self.write_within(PATIENCE, HANGS)
    }

    /// Goes to the door for what `what` says: sessions are opened, logged in and closed there, by one
    /// thread at a time, of all stores. SoftHSM 2.6 damages its own memory otherwise, and shows it
    /// when the process ends.
    ///
    /// # Errors
    /// `Unavailable` where the one at the door does not go.
    pub(crate) fn door(&self, what: &'static str) -> Result<Door<'_>> {
        self.door_within(PATIENCE, what)
    }

    fn door_within(&self, patience: Duration, what: &'static str) -> Result<Door<'_>> {
        let mut inside = self.wait(self.inside(), patience, |inside| {
            inside.at_door.map_or(Ok(()), Err)
        })?;
        inside.at_door = Some((what, Instant::now()));
        Ok(Door { gate: self })
    }

    fn write_within(&self, patience: Duration, hangs: Duration) -> Result<Writing<'_>> {
        let mut inside = self.inside();
        inside.waiting += 1;
        let waited = self.wait(inside, patience, |inside| {
            if let Some(since) = inside.writer {
                return Err(("a write", since));
            }
            let last = inside.readers.values().next_back();
            match last.filter(|since| since.elapsed() < hangs) {
                None => Ok(()),
                Some(_) => Err(("a read", inside.first())),
            }
        });
        let (mut inside, came) = match waited {
            Ok(inside) => (inside, Ok(())),
            Err(error) => (self.inside(), Err(error)),
        };
        inside.waiting -= 1;
        match came {
            Ok(()) => {
                inside.readers.clear();
                inside.writer = Some(Instant::now());
                Ok(Writing { gate: self })
            }
            Err(error) => {
                self.changed.notify_all();
                Err(error)
            }
        }
    }

    /// Waits until `is_open` says so. Before, it says what is in the way, and since when.
    fn wait<'a>(
        &self,
        mut inside: MutexGuard<'a, Inside>,
        patience: Duration,
        is_open: impl Fn(&Inside) -> Result<(), (&'static str, Instant)>,
    ) -> Result<MutexGuard<'a, Inside>> {
        let until = Instant::now() + patience;
        while let Err((what, since)) = is_open(&inside) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seconds = since.elapsed().as_secs_f32();
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{what} has not come back from the token's library for {seconds:.0} s"),
                )
                .with_advice(
                    "see whether the token answers its own tools; where it does, and this stays \
                     so, start keyhaul anew",
                ));
            }
            let waited = self.changed.wait_timeout(inside, left.min(LOOK));
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(inside)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Since when the first of the readers is inside.
    fn first(&self) -> Instant {
        let first = self.readers.values().next().copied();
        first.unwrap_or_else(Instant::now)
    }
}

impl Reading<'_> {
    /// Whether nobody wrote meanwhile, to be asked once all is read.
    ///
    /// # Errors
    /// `Unavailable` where a writer did not wait any longer.
    pub(crate) fn held(&self) -> Result<()> {
        if self.gate.inside().readers.contains_key(&self.number) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the token took so long to read that a write did not wait for it",
        )
        .with_advice("read again"))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.gate.inside().readers.remove(&self.number);
        self.gate.changed.notify_all();
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.gate.inside().writer = None;
        self.gate.changed.notify_all();
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        self.gate.inside().at_door = None;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn refused<T>(came: Result<T>) -> Error {
        let error = came.map(|_| ()).expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        error
    }

    #[test]
    fn a_writer_is_alone_and_readers_are_not() {
        let gate = Gate::default();
        let (one, two) = (gate.read().expect("in"), gate.read().expect("in"));
        let error = refused(gate.write_within(SHORT, LONG));
        assert!(error.message().contains("a read"), "{error}");
        drop(one);
        refused(gate.write_within(SHORT, LONG));
        two.held().expect("nobody wrote");
        drop(two);
        let writer = gate.write_within(SHORT, LONG).expect("alone");
        let error = refused(gate.write_within(SHORT, LONG));
        assert!(error.message().contains("a write"), "{error}");
        drop(writer);
        gate.read().map(drop).expect("in");
    }

    #[test]
    fn a_writer_goes_in_beside_a_read_that_hangs_and_that_read_counts_for_nothing() {
        let gate = Gate::default();
        let hung = gate.read().expect("in");
        let since = Instant::now();
        let writer = gate.write_within(LONG, SHORT).expect("in, after a while");
        assert!(since.elapsed() < LONG / 2);
        refused(gate.write_within(SHORT, SHORT));
        refused(hung.held());
        drop(writer);
        // It is in nobody's way when it comes back, and stands for nobody else then.
        let reader = gate.read().expect("in");
        refused(hung.held());
        drop(hung);
        reader.held().expect("nobody wrote since");
        refused(gate.write_within(SHORT, LONG));
        drop(reader);
        gate.write_within(SHORT, LONG).map(drop).expect("alone");
    }

    #[test]
    fn who_gives_up_at_the_door_is_told_what_hangs_there() {
        let gate = Gate::default();
        let _reader = gate.read().expect("in");
        let first = gate.door("a login").expect("at the door");
        let error = refused(gate.door_within(SHORT, "another"));
        assert!(error.message().contains("a login"), "{error}");
        drop(first);
        gate.door("another").map(drop).expect("at the door, then");
    }

    #[test]
    fn one_is_at_the_door_whoever_is_inside() {
        let gate = Gate::default();
        let _reader = gate.read().expect("in");
        let first = gate.door("a login").expect("at the door");
        thread::scope(|scope| {
            let gate = &gate;
            let second = scope.spawn(|| gate.door("another").map(drop));
            // It has not come so far, however long it had.
            assert!(gate.inside().at_door.is_some() && !second.is_finished());
            drop(first);
            second.join().expect("ended").expect("at the door, then");
        });
        assert!(gate.inside().at_door.is_none());
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
            let writer = scope.spawn(move || gate.write_within(SHORT, LONG).map(|_| ()));
            while gate.inside().waiting == 0 && !writer.is_finished() {
                thread::yield_now();
            }
            gate.read().map(drop).expect("in, once the writer gave up");
            assert!(writer.join().expect("ended").is_err());
        });
    }
}
