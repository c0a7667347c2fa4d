//! A process of our own for whatever a plugin does: a library that crashes takes that one with it, and
//! we can say so.
//!
//! The worker is this program, by a name of its own. It tells what it finds, a line of JSON each, on what was its
//! standard output; what a library prints goes to standard error.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::global::Global;

/// How much longer than its own time limit a worker may take: it has a plugin to end.
const GRACE: Duration = Duration::from_secs(5);

/// What the worker is started as. An option would be in everybody's completions.
const NAME: &str = "keyhaul-plugin-worker";

/// Whether this is the worker.
pub fn is_here() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Ends this worker with whoever started it, and what it looks at with it.
///
/// # Errors
/// `Internal` where that is gone already, or the system does not know how.
fn follow() -> Result<()> {
    let failed =
        |error: rustix::io::Errno| Error::io("a worker that ends with its parent", error.into());
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Done,
    /// A signal ended it: this one, in words.
    Crashed(String),
    /// It failed, with this exit status, and has said why.
    Failed(u8),
    /// Not by itself, and not in time.
    Killed,
}

/// Has this program do `task` in a process of its own, and hears what it tells.
///
/// # Errors
/// `Internal` where there is no such process, or its words are not ours.
pub fn watch<E: DeserializeOwned>(
    global: &Global,
    task: &str,
    words: Vec<OsString>,
    hear: impl FnMut(E),
) -> Result<End> {
    watch_until(global, Instant::now() + global.deadline, task, words, hear)
}

/// The same with the time that is left until then.
///
/// # Errors
/// Those of [`watch`].
pub fn watch_until<E: DeserializeOwned>(
    global: &Global,
    until: Instant,
    task: &str,
    words: Vec<OsString>,
    mut hear: impl FnMut(E),
) -> Result<End> {
    let failed =
        |error: std::io::Error| Error::io("the process that plugins are looked at in", error);
    let left = until.saturating_duration_since(Instant::now());
    let until = until + GRACE;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(NAME)
        .args(["plugin", task])
        .args(passed_on(global, left))
        .args(words)
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let pid = Pid::from_child(&child);
    let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    let (tell, told) = channel();
    let stdout = child.stdout.take();
    let listener = std::thread::Builder::new().name("worker".into());
    let listen = move || {
        if let Some(stdout) = stdout {
            listen(stdout, &tell);
        }
        // The process may outlive its words; who waits for us has a time limit.
        let _ = tell.send(Told::Ended(child.wait()));
    };
    listener.spawn(listen).map_err(failed)?;
    let mut killed = false;
    loop {
        match next(&told, until, killed) {
            Some(Told::Line(line)) => hear(serde_json::from_str(&line).map_err(|error| {
                let rule =
                    "the process that plugins are looked at in says what is not of its words";
                // It shares its memory with a library, which may have done anything to it.
                let _ = pidfd_send_signal(&handle, Signal::KILL);
                Error::new(ErrorKind::Internal, rule).with_source(error)
            })?),
            Some(Told::Ended(status)) => {
                let status = status.map_err(failed)?;
                return Ok(if killed { End::Killed } else { end_of(status) });
            }
            None if killed => return Ok(End::Killed),
            None => {
                killed = true;
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
    }
}

enum Told {
    Line(String),
    Ended(std::io::Result<ExitStatus>),
}

/// What comes next, until then; after a kill, for a moment.
fn next(told: &Receiver<Told>, until: Instant, killed: bool) -> Option<Told> {
    let left = until.saturating_duration_since(Instant::now());
    let left = if killed { GRACE } else { left };
    told.recv_timeout(left).ok()
}

fn listen(stdout: ChildStdout, tell: &Sender<Told>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else {
            return;
        };
        if tell.send(Told::Line(line)).is_err() {
            return;
        }
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(0), _) => End::Done,
        (Some(code), _) => End::Failed(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(number)) => {
            let name = nix::sys::signal::Signal::try_from(number);
            let name = name.map_or(String::new(), |name| format!(" ({})", name.as_str()));
            End::Crashed(format!("signal {number}{name}"))
        }
        (None, None) => End::Crashed("nobody knows what".to_owned()),
    }
}

fn passed_on(global: &Global, left: Duration) -> Vec<OsString> {
    // Rounded up: a command line takes no limit of nothing.
    let left = left.as_micros().div_ceil(1000).max(1);
    let mut words: Vec<OsString> = vec![format!("--deadline={left}ms").into()];
    words.extend((0..global.verbose).map(|_| "-v".into()));
    if let Some(config) = &global.config {
        let mut word = OsString::from("--config=");
        word.push(config);
        words.push(word);
    }
    words
}

/// The worker's end: what it tells.
pub struct Teller(RefCell<OwnedFd>);

impl Teller {
    /// Takes standard output for itself: what a library prints there goes to standard error. From now on
    /// this process ends with the one that hears.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> Result<Self> {
        follow()?;
        let failed = |error: rustix::io::Errno| Error::io("standard output", error.into());
        let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(failed)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(failed)?;
        Ok(Self(RefCell::new(own)))
    }

    /// Tells it.
    ///
    /// # Errors
    /// `Unavailable` where nobody listens any more: there is nothing left to do then.
    pub fn tell(&self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "a finding could not be written as JSON",
            )
            .with_source(error)
        })?;
        line.push(b'\n');
        let own = self.0.borrow_mut();
        let mut left = &line[..];
        while !left.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(own.as_fd(), left));
            let written = written.map_err(|error| Error::io("whoever listens", error.into()))?;
            left = &left[written..];
        }
        Ok(())
    }
}
