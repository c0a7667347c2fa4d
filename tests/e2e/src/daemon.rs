//! Programs that serve until they are told to end.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::{LIMIT, Process, children, until};

/// A daemon in the foreground, ended when dropped.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until `ready` says that it serves. What it says goes to the log.
    #[track_caller]
    pub fn start(mut command: Command, log: &Path, ready: impl Fn() -> bool) -> Self {
        let out = File::create(log).expect("made");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("copied"))
            .stderr(out)
            .spawn();
        let mut daemon = Self(child.expect("started"));
        until("the daemon", || {
            if let Some(status) = daemon.0.try_wait().expect("a child") {
                let said = fs::read_to_string(log).unwrap_or_default();
                panic!("{status}: {command:?}\n{said}");
            }
            ready().then_some(())
        });
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // keyhaul passes it on, and ends when its program has.
        if let Some(process) = Process::of(self.0.id()) {
            process.signal(Signal::TERM);
            if !process.ends_within(LIMIT) {
                for child in children(process.pid()).into_iter().filter_map(Process::of) {
                    child.signal(Signal::KILL);
                }
                process.signal(Signal::KILL);
            }
        }
        let _ = self.0.wait();
    }
}
