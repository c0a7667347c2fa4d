//! Reading on threads: in turn on few of them while the file system answers, on more where it hangs.
//!
//! A read of a local file takes some microseconds, and to hand it to a thread of its own as long
//! again. A busy service would start hundreds of threads that wait for each other. Here a thread
//! takes one read after the other, and opens the store once for all that wait by then. It is joined
//! by another where reads wait for longer than a disk takes, so that what hangs holds up nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{GetOptions, Result, Secret, SecretPath, wiping_stack};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::internal;
use crate::store::Engine;

/// A read that waits for longer gets one more thread, as long as there are no more than [`THREADS`].
const WAIT: Duration = Duration::from_millis(2);
/// How many threads share the reads of a file system that answers, at most.
const THREADS: usize = 16;
/// A thread whose read takes longer counts as hanging: others do its work.
const HANGS: Duration = Duration::from_millis(25);
/// How many threads there are, at most, those that hang included: what is asked beyond that waits.
const MOST: usize = 128;

/// The reads of one store.
#[derive(Debug)]
pub(crate) struct Readers {
    engine: Arc<dyn Engine>,
    reads: Arc<Mutex<Reads>>,
}

#[derive(Debug, Default)]
struct Reads {
    waiting: VecDeque<Read>,
    /// How many reads there have been.
    count: u64,
    /// The threads that were asked for and have not ended: their numbers, and when they began with
    /// what they read now.
    threads: Vec<(u64, Option<Instant>)>,
    /// How many threads there have been.
    started: u64,
}

/// One request: what to read, and who waits for it.
#[derive(Debug)]
struct Read {
    number: u64,
    since: Instant,
    paths: Vec<SecretPath>,
    options: GetOptions,
    answer: oneshot::Sender<Vec<Result<Secret>>>,
}

impl Readers {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            reads: Arc::default(),
        }
    }

    /// Reads `paths`; an answer for each.
    ///
    /// # Errors
    /// `Internal` where the thread that read ended early.
    pub(crate) async fn read(
        &self,
        paths: &[SecretPath],
        options: &GetOptions,
    ) -> Result<Vec<Result<Secret>>> {
        let (answer, mut answered) = oneshot::channel();
        let now = Instant::now();
        let (number, thread) = {
            let mut reads = lock(&self.reads);
            reads.forget();
            reads.count += 1;
            let number = reads.count;
            reads.waiting.push_back(Read {
                number,
                since: now,
                paths: paths.to_vec(),
                options: options.clone(),
                answer,
            });
            (number, reads.thread(now))
        };
        self.start(thread);
        loop {
            match timeout(HANGS, &mut answered).await {
                Ok(Ok(answers)) => return Ok(answers),
                // What a panic said stays out: it could be anything.
                Ok(Err(_)) => return Err(internal("the file store's thread ended early")),
                Err(_) => {
                    let thread = {
                        let mut reads = lock(&self.reads);
                        // They are taken in their order.
                        let first = reads.waiting.front();
                        match first.is_some_and(|first| first.number <= number) {
                            true => reads.thread(Instant::now()),
                            false => None,
                        }
                    };
                    self.start(thread);
                }
            }
        }
    }

    fn start(&self, thread: Option<u64>) {
        if let Some(number) = thread {
            let thread = Thread {
                engine: Arc::clone(&self.engine),
                reads: Arc::clone(&self.reads),
                number,
            };
            drop(tokio::task::spawn_blocking(move || thread.run()));
        }
    }
}

impl Reads {
    /// The number of one more thread, where one is needed. One that has not begun is as good as free:
    /// where it does not get to it, another would not either.
    fn thread(&mut self, now: Instant) -> Option<u64> {
        let waited = now.saturating_duration_since(self.waiting.front()?.since);
        let hangs = |began: Instant| now.saturating_duration_since(began) >= HANGS;
        let hanging = self
            .threads
            .iter()
            .filter(|(_, began)| began.is_some_and(hangs));
        let working = self.threads.len() - hanging.count();
        let needed = working == 0 || (waited >= WAIT && working < THREADS);
        (needed && self.threads.len() < MOST).then(|| {
            self.started += 1;
            self.threads.push((self.started, None));
            self.started
        })
    }

    /// A thread begins with a read.
    fn reading(&mut self, thread: u64) {
        let mut threads = self.threads.iter_mut();
        if let Some((_, began)) = threads.find(|(number, _)| *number == thread) {
            *began = Some(Instant::now());
        }
    }

    /// What is no longer waited for is not read.
    fn forget(&mut self) {
        while self
            .waiting
            .front()
            .is_some_and(|read| read.answer.is_closed())
        {
            self.waiting.pop_front();
        }
    }

    fn ended(&mut self, thread: u64) {
        self.threads.retain(|(number, _)| *number != thread);
    }
}

/// A thread that reads for as long as there is something to read.
struct Thread {
    engine: Arc<dyn Engine>,
    reads: Arc<Mutex<Reads>>,
    number: u64,
}

impl Thread {
    fn run(&self) {
        // The thread lives on, and with it what ciphers leave on its stack.
        while wiping_stack(|| self.some()) {}
    }

    /// Reads what waits, from a store opened after all of it was asked; whether there is more.
    fn some(&self) -> bool {
        let last = lock(&self.reads).count;
        let mut next = self.next(last);
        if matches!(next, Next::Nothing) {
            return false;
        }
        let mut reader = self.engine.reader();
        while let Next::Read(read) = next {
            let get = |path| match &mut reader {
                Ok(reader) => reader.get(path, &read.options),
                Err(error) => Err(error.duplicate()),
            };
            let answers = read.paths.iter().map(get).collect();
            // Nobody may wait for it any more.
            let _ = read.answer.send(answers);
            next = self.next(last);
        }
        matches!(next, Next::Later)
    }

    /// The next read, as long as it is none after number `last`.
    fn next(&self, last: u64) -> Next {
        let mut reads = lock(&self.reads);
        reads.forget();
        match reads.waiting.pop_front() {
            Some(read) if read.number <= last => {
                reads.reading(self.number);
                Next::Read(read)
            }
            Some(read) => {
                reads.waiting.push_front(read);
                reads.reading(self.number);
                Next::Later
            }
            None => {
                // Under the same lock: whoever asks from now on starts another thread.
                reads.ended(self.number);
                Next::Nothing
            }
        }
    }
}

impl Drop for Thread {
    /// After a panic too.
    fn drop(&mut self) {
        lock(&self.reads).ended(self.number);
    }
}

enum Next {
    Read(Read),
    /// There is one, asked after the store was opened.
    Later,
    Nothing,
}

/// What a panic left behind is sound: nothing here is changed in steps.
fn lock(reads: &Mutex<Reads>) -> MutexGuard<'_, Reads> {
    reads.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
