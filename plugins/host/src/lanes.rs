//! The threads that a plugin's functions run on.
//!
//! A plugin may block for as long as it likes, and nothing can stop it. So it gets a few threads of
//! its own. Whoever waits for one of them stops waiting at the deadline; a call that has not come back by
//! then keeps its thread, and when too many have not, nobody is let in any more until some have.

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, oneshot};
use tokio::time;

/// Calls of one plugin that run at the same time.
pub(crate) const LANES: usize = 16;
/// So many stuck calls, and no more are let in.
pub(crate) const MAX_STUCK: usize = 8;
/// A call that nobody waits for any more is stuck when it has not come back after this.
const GRACE: Duration = Duration::from_secs(1);
/// How long is waited where nobody says.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// Work for a thread.
type Job = Box<dyn FnOnce() -> Answer + Send>;
/// What is left to do once the thread is free for more: who waits may bring some at once.
type Answer = Box<dyn FnOnce()>;

/// A plugin's threads.
#[derive(Clone)]
pub(crate) struct Lanes {
    turns: Arc<Semaphore>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    grace: Duration,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// The threads that look into the queue before they sleep again.
    idle: usize,
    calls: u64,
    /// The calls that have not come back, and since when nobody waits for them.
    under_way: HashMap<u64, Option<Instant>>,
}

/// What a call knows of who waits for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    /// Until when.
    pub(crate) deadline: Option<Instant>,
    /// Set when nobody does any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self::with_grace(GRACE)
    }

    pub(crate) fn with_grace(grace: Duration) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            grace,
        };
        Self {
            turns: Arc::new(Semaphore::new(LANES)),
            shared: Arc::new(shared),
        }
    }

    /// Does `work` on a thread, and waits for it until `deadline`.
    ///
    /// # Errors
    /// `Timeout` where it is not done by then, `Unavailable` where too many calls are stuck.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        work: impl FnOnce(&Waiting) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.refuse_when_stuck()?;
        let until = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        let turn = time::timeout_at(until.into(), self.turns.clone().acquire_owned());
        let turn = match turn.await {
            Ok(Ok(turn)) => turn,
            // Nobody closes it.
            Ok(Err(_)) => return Err(Error::new(ErrorKind::Internal, "the plugin is closed")),
            Err(_) => {
                self.shared.refuse_when_stuck()?;
                return Err(late(
                    "every thread of the plugin was busy until the deadline",
                ));
            }
        };
        let waiting = Waiting {
            deadline,
            cancelled: Arc::default(),
        };
        let (sender, receiver) = oneshot::channel();
        let number = self.shared.begin();
        let guard = Guard {
            shared: &self.shared,
            number,
            waiting: waiting.clone(),
        };
        let shared = self.shared.clone();
        let job = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(|| work(&waiting)));
            shared.end(number);
            Box::new(move || {
                drop(turn);
                // Where nobody waits any more, it is dropped, and a value in it wiped.
                let _ = sender.send(done);
            }) as Answer
        });
        if let Err(error) = self.shared.submit(job) {
            // It never began, so it is not stuck either.
            self.shared.end(number);
            return Err(error);
        }
        let done = time::timeout_at(until.into(), receiver).await;
        drop(guard);
        match done {
            Ok(Ok(Ok(done))) => done,
            Ok(_) => Err(Error::new(
                ErrorKind::Internal,
                "the call of the plugin broke off",
            )),
            Err(_) => Err(late("the plugin has not answered by the deadline")),
        }
    }

    /// Does `work` on a thread, whenever that is.
    pub(crate) fn later(&self, work: impl FnOnce() + Send + 'static) {
        // What cannot be done is left undone: nobody waits for it.
        let _ = self.shared.submit(Box::new(move || {
            work();
            Box::new(|| ()) as Answer
        }));
    }
}

/// Whoever waits for a call. Dropping it, for whatever reason, ends that.
struct Guard<'a> {
    shared: &'a Shared,
    number: u64,
    waiting: Waiting,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.waiting.cancelled.store(true, Ordering::Relaxed);
        let mut state = self.shared.lock();
        if let Some(abandoned) = state.under_way.get_mut(&self.number) {
            *abandoned = Some(Instant::now());
        }
    }
}

impl Shared {
    fn refuse_when_stuck(&self) -> Result<()> {
        let is_stuck = |since: &&Option<Instant>| since.is_some_and(|at| at.elapsed() > self.grace);
        let stuck = self.lock().under_way.values().filter(is_stuck).count();
        if stuck < MAX_STUCK {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{stuck} calls of the plugin are stuck; no more are made until some have come back"
            ),
        )
        .with_advice("look what the plugin waits for; to let go of it, restart this process")
        .with_refusal())
    }

    fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.calls += 1;
        let number = state.calls;
        state.under_way.insert(number, None);
        number
    }

    fn end(&self, number: u64) {
        self.lock().under_way.remove(&number);
    }

    fn submit(self: &Arc<Self>, job: Job) -> Result<()> {
        let mut state = self.lock();
        state.queue.push_back(job);
        if state.idle >= state.queue.len() {
            drop(state);
            self.work.notify_one();
            return Ok(());
        }
        let shared = self.clone();
        let thread = thread::Builder::new().name("keyhaul-plugin".into());
        let Err(error) = thread.spawn(move || shared.work()) else {
            state.idle += 1;
            return Ok(());
        };
        // Under the same lock: it is the one that was put there.
        state.queue.pop_back();
        let rule = "no thread can be had for the plugin";
        Err(Error::new(ErrorKind::Unavailable, rule).with_source(error))
    }

    fn work(&self) {
        take_no_signals();
        let mut state = self.lock();
        state.idle -= 1;
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                let answer = job();
                self.lock().idle += 1;
                answer();
                state = self.lock();
                state.idle -= 1;
                continue;
            }
            state.idle += 1;
            let (woken, timeout) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                return;
            }
        }
    }

    /// The state, even where another thread panicked: it is only ever changed in single steps.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signals are for the threads of this process's own: whoever waits for one must not miss it, and
/// what a plugin starts inherits this.
fn take_no_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills in the set that the second one reads; both change nothing but this
    // thread's mask.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

fn late(rule: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, rule)
}

#[cfg(test)]
mod tests;
