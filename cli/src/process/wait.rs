//! Waiting for the program: its signals, its end, and the moment it has read the key.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child;

use keyhaul_core::{Error, Result};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, raise, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, waitpid};

/// The signals that end a program and do not have to: passed on while one runs.
pub const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an exit status.
    Exited(u8),
    /// By a signal, of this number: the real-time ones have no names.
    Killed(i32),
}

impl Ended {
    /// Whether the program says that all went well.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }

    /// Ends this process in the same way; where that fails, with the status a shell would show.
    pub fn as_status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(number) => {
                if let Ok(by) = Signal::try_from(number) {
                    // SAFETY: the default disposition runs no handler.
                    let _ = unsafe { signal(by, SigHandler::SigDfl) };
                    let _ = SigSet::from(by).thread_unblock();
                    let _ = raise(by);
                }
                u8::try_from(number).unwrap_or(u8::MAX).saturating_add(128)
            }
        }
    }
}

/// Something to do once a descriptor is readable, while the program runs.
pub struct Watcher<'a> {
    /// What becomes readable.
    pub descriptor: BorrowedFd<'a>,
    /// Called then; `true` means done, and not to be called again.
    pub ready: Box<dyn FnMut() -> bool + 'a>,
}

/// Leaves all signals to the first thread. A signal goes to any thread that lets it in: one that a
/// second thread took would be lost to [`wait_for`], and with it the program's end.
pub fn take_no_signals() {
    // Nothing but a wrong argument makes it fail.
    let _ = SigSet::all().thread_block();
}

/// The signals that [`wait_for`] handles, blocked from now on. To be called before the program is
/// started, so that none is lost; says whether `SIGCHLD` was ignored, which the program inherits.
pub fn block_signals() -> Result<(SignalFd, bool)> {
    let failed = |error: nix::Error| Error::io("the signals", error.into());
    let mut set = SigSet::from_iter(PASSED_ON.iter().copied());
    set.add(Signal::SIGCHLD);
    set.thread_block().map_err(failed)?;
    // Where whoever started us ignores it, the kernel would tell nobody of the program's end, nor
    // keep its status.
    // SAFETY: the default disposition runs no handler.
    let before = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(failed)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&set, flags).map_err(failed)?;
    Ok((signals, matches!(before, SigHandler::SigIgn)))
}

/// Waits for the program's end and passes signals on to it.
pub fn wait_for(
    child: &Child,
    signals: &mut SignalFd,
    mut watcher: Option<Watcher<'_>>,
) -> Result<Ended> {
    let failed = |error: nix::Error| Error::io("waiting for the program", error.into());
    let pid = Pid::from_raw(child.id().cast_signed());
    // Tells of the end whoever takes SIGCHLD: a thread that a store has started late may, before it
    // has come as far as to block it. Kernels before 5.3 have none.
    let end = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty()).ok();
    loop {
        if let Some(ended) = ended(child)? {
            return Ok(ended);
        }
        let signalled = signals.as_fd();
        let mut watched = vec![PollFd::new(&signalled, PollFlags::IN)];
        if let Some(watcher) = &watcher {
            watched.push(PollFd::from_borrowed_fd(watcher.descriptor, PollFlags::IN));
        }
        let watchers = watched.len();
        watched.extend(end.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Error::io("waiting for the program", error.into())),
            Ok(_) => {}
        }
        let mut watchers = watched[..watchers].iter();
        let read = watchers.nth(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(watched);
        if read && watcher.as_mut().is_some_and(|watcher| (watcher.ready)()) {
            watcher = None;
        }
        while let Some(received) = signals.read_signal().map_err(failed)? {
            let Ok(number) = Signal::try_from(received.ssi_signo.cast_signed()) else {
                continue;
            };
            // The terminal's own signals reach the whole foreground group, the program included.
            let from_terminal = received.ssi_code == libc::SI_KERNEL;
            if number != Signal::SIGCHLD && !from_terminal {
                tracing::debug!(signal = number.as_str(), "passed on");
                let _ = kill(pid, number);
            }
        }
    }
}

fn ended(child: &Child) -> Result<Option<Ended>> {
    let pid = rustix::process::Pid::from_child(child);
    let status = match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => status,
        Ok(None) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Err(error) => return Err(Error::io("waiting for the program", error.into())),
    };
    let exited = status
        .exit_status()
        .map(|status| Ended::Exited((status & 0xff) as u8));
    Ok(exited.or(status.terminating_signal().map(Ended::Killed)))
}
