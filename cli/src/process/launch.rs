//! Between fork and exec.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use keyhaul_core::{Error, ErrorKind, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

use super::User;
use crate::hardening::Inherited;

/// A program to start, and what it gets from us.
pub struct Launch {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Whom to run it as; ourselves where there is none.
    pub user: Option<User>,
    /// Descriptors that it inherits.
    pub descriptors: Vec<RawFd>,
    /// What we changed about ourselves and it must not inherit.
    pub inherited: Inherited,
    /// The signals that were blocked when we were started.
    pub mask: SigSet,
    /// Whether `SIGCHLD` was ignored then.
    pub ignores_children: bool,
}

/// Refuses a program that is not there, before anything is made for it.
///
/// # Errors
/// `InvalidConfig` where no file of that name can be executed.
pub fn check_program(program: &OsStr) -> Result<()> {
    let runs = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let found = if program.as_bytes().contains(&b'/') {
        // Whatever is wrong with it, executing it says so best.
        Path::new(program).try_exists().unwrap_or(true)
    } else {
        // Without $PATH, the C library has one of its own.
        std::env::var_os("PATH").is_none_or(|path| {
            std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
        })
    };
    if found {
        return Ok(());
    }
    Err(not_started(program, io::ErrorKind::NotFound.into()))
}

/// Starts the program and returns.
pub fn spawn(launch: Launch) -> Result<Child> {
    let program = launch.words.first().cloned().unwrap_or_default();
    prepare(launch)
        .spawn()
        .map_err(|error| not_started(&program, error))
}

/// Becomes the program. Returns only where that fails.
pub fn exec(launch: Launch) -> Error {
    let program = launch.words.first().cloned().unwrap_or_default();
    not_started(&program, prepare(launch).exec())
}

fn prepare(launch: Launch) -> Command {
    let Launch {
        words,
        user,
        descriptors,
        inherited,
        mask,
        ignores_children,
    } = launch;
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    let ready = move || -> io::Result<()> {
        inherited.restore()?;
        for fd in &descriptors {
            // SAFETY: the channel that owns the descriptor outlives the launch.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(user) = &user {
            nix::unistd::setgroups(&user.groups)?;
            nix::unistd::setgid(user.gid)?;
            nix::unistd::setuid(user.uid)?;
        }
        if ignores_children {
            // SAFETY: to ignore a signal runs no handler.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls and nothing else: it takes no
    // lock and allocates nothing.
    unsafe { command.pre_exec(ready) };
    command
}

fn not_started(program: &OsStr, error: io::Error) -> Error {
    let (kind, rule, advice) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::InvalidConfig,
            format!("there is no program {}", program.display()),
            "check its name and $PATH",
        ),
        io::ErrorKind::ArgumentListTooLong => (
            ErrorKind::TooLarge,
            format!("the command line of {} is too long", program.display()),
            "a single argument holds less than 128 KiB: keep large secrets out of the command line",
        ),
        _ => (
            ErrorKind::of_io(&error),
            format!("{} could not be started", program.display()),
            "--user needs root; check that the program may be executed",
        ),
    };
    Error::new(kind, rule)
        .with_advice(advice)
        .with_source(error)
}
