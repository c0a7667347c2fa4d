//! The threads that a plugin's functions run on.
//!
//! A plugin may block for as long as it likes, and nothing can stop it. So it gets a few threads of
//! its own. Whoever waits for one of them stops waiting at the deadline; a call that has not come back by
//! then keeps its thread, and when too many have not, nobody is let in any more until some have.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, oneshot};
use tokio::time;

use crate::waiting::Waiting;

/// A plugin's threads, and so its calls that run at the same time.
pub(crate) const LANES: usize = 16;
/// So many stuck calls, and no more are let in.
pub(crate) const MAX_STUCK: usize = 8;
/// A call that nobody waits for any more is stuck when it has not come back after this.
const GRACE: Duration = Duration::from_secs(1);
/// How long is waited where nobody says.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);
/// A plugin that was called so often is likely to be called again at once.
const OFTEN: u64 = 16;
/// So many threads one has that is called often, and be it one call at a time: they take turns. A thread
/// that has just answered goes to sleep on another processor, where to wake it takes longest.
const IN_TURN: usize = 4;
/// The stack of a thread, as the interface promises it.
const STACK: usize = 2 * 1024 * 1024;

/// Work for a thread.
type Job = Box<dyn FnOnce(&Shared) -> Answer + Send>;
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
    threads: usize,
    /// Those that look into the queue before they sleep again.
    idle: usize,
    calls: u64,
    /// The calls that have not come back, and since when nobody waits for them.
    under_way: HashMap<u64, Option<Instant>>,
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
        let waiting = Waiting::until(until);
        let (sender, receiver) = oneshot::channel();
        let number = self.shared.begin(None);
        let guard = Guard {
            shared: &self.shared,
            number,
            waiting: waiting.clone(),
        };
        let job = Box::new(move |shared: &Shared| {
            let done = catch_unwind(AssertUnwindSafe(|| work(&waiting)));
            shared.end(number);
            Box::new(move || {
                drop(turn);
                // Where nobody waits any more, it is dropped, and a value in it wiped.
                let _ = sender.send(done);
            }) as Answer
        });
        if let Err((job, error)) = self.shared.submit(job) {
            // It never began, so it is not stuck either.
            self.shared.end(number);
            drop(job);
            let rule = "no thread can be had for the plugin";
            return Err(Error::new(ErrorKind::Unavailable, rule).with_source(error));
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

    /// Does `work` on a thread, whenever that is. It is a call that nobody waits for.
    pub(crate) fn later(&self, work: impl FnOnce() + Send + 'static) {
        let job = Box::new(move |shared: &Shared| {
            let number = shared.begin(Some(Instant::now()));
            // A panic of ours is told by the hook, and nobody else would hear of it.
            let _ = catch_unwind(AssertUnwindSafe(work));
            shared.end(number);
            Box::new(|| ()) as Answer
        });
        if let Err((job, _)) = self.shared.submit(job) {
            // The next thread that there is does it.
            self.shared.lock().queue.push_back(job);
        }
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
        self.waiting.end();
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

    /// A call begins, which somebody waits for, or nobody since then.
    fn begin(&self, abandoned: Option<Instant>) -> u64 {
        let mut state = self.lock();
        state.calls += 1;
        let number = state.calls;
        state.under_way.insert(number, abandoned);
        number
    }

    fn end(&self, number: u64) {
        self.lock().under_way.remove(&number);
    }

    /// Puts a job into the queue, and sees to it that a thread looks there.
    ///
    /// # Errors
    /// The job, where no thread can be had. What it owns may call the plugin when it is dropped.
    fn submit(self: &Arc<Self>, job: Job) -> std::result::Result<(), (Job, io::Error)> {
        let mut state = self.lock();
        if state.idle > state.queue.len() {
            state.queue.push_back(job);
            self.work.notify_one();
            if state.calls > OFTEN && state.threads < IN_TURN {
                // There is one for this job without it.
                let _ = self.start(&mut state);
            }
            return Ok(());
        }
        // One more for each job in the queue. Closes have no turns, so that it can be that all
        // threads are there and busy: then the first that is done looks there, too.
        if state.threads < LANES
            && let Err(error) = self.start(&mut state)
        {
            return Err((job, error));
        }
        state.queue.push_back(job);
        Ok(())
    }

    /// Starts a thread, which looks into the queue.
    fn start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = self.clone();
        let thread = thread::Builder::new()
            .name("keyhaul-plugin".into())
            .stack_size(STACK);
        thread.spawn(move || shared.work())?;
        state.threads += 1;
        state.idle += 1;
        Ok(())
    }

    fn work(&self) {
        take_no_signals();
        let mut state = self.lock();
        state.idle -= 1;
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                let answer = job(self);
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
                state.threads -= 1;
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
