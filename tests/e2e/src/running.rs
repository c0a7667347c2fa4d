//! Programs that run until they are told to end, and are ended with the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;

use crate::process::end_of;
use crate::{LIMIT, Process, children, until};

/// A program in the foreground. Whoever drops it ends it, and what it started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    log: PathBuf,
}

impl Running {
    /// Starts it. What it says goes to the log.
    #[track_caller]
    pub fn start(mut command: Command, log: &Path) -> Self {
        let shown = format!("{command:?}");
        let out = File::create(log).expect("made");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("copied"))
            .stderr(out)
            .spawn();
        Self {
            child: child.unwrap_or_else(|error| panic!("{shown}: {error}")),
            shown,
            log: log.to_owned(),
        }
    }

    /// Starts a server, and waits until `ready` says that it serves.
    #[track_caller]
    pub fn serve(command: Command, log: &Path, ready: impl Fn() -> bool) -> Self {
        let mut server = Self::start(command, log);
        until("the server", || {
            if let Some(status) = server.ended() {
                panic!("{status}: {}\n{}", server.shown, server.log());
            }
            ready().then_some(())
        });
        server
    }

    /// Its process' number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        end_of(&mut self.child, &self.shown)
    }

    /// Kills it, and not what it started.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a child");
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once its end was seen, its number may be somebody else's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // keyhaul passes it on, and ends when its program has.
        if let Some(process) = Process::of(self.child.id()) {
            process.signal(Signal::TERM);
            if !process.ends_within(LIMIT) {
                let started = children(process.pid());
                started
                    .into_iter()
                    .filter_map(Process::of)
                    .for_each(|child| child.signal(Signal::KILL));
                process.signal(Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}
