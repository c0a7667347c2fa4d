//! Starting a program with as little of keyhaul's as can be.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use keyhaul_core::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::calls::Filter;
use crate::fence::{self, Fence};
use crate::keeper::{self, Keeper};

/// How long a killed process is waited for, where nobody else will.
const LAST_WAIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What the environment of every plugin is: nothing else of keyhaul's own reaches it.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many descriptors a plugin may have open.
const DESCRIPTORS: u64 = 1024;

/// A program that was started, with our ends of its pipes.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) group: Group,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Readable once the program has ended.
    pub(crate) pidfd: OwnedFd,
}

/// Starts `program`, in a session of its own.
///
/// # Errors
/// `InvalidConfig` or `PermissionDenied` where it cannot be executed, `Unavailable` where the
/// system has no room for it; those of [`Fence::rules`] and [`Filter::new`].
pub(crate) fn start(
    program: &Path,
    arguments: &[String],
    fence: Option<&Fence>,
) -> Result<Started> {
    let bounds = fence.map(|fence| Bounds::new(fence, program)).transpose()?;
    let parent = rustix::process::getpid();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec, `confine` makes system calls and touches no memory but its
    // own stack and what was made before: no allocation, no lock.
    unsafe { command.pre_exec(move || confine(parent, bounds.as_ref())) };
    let (mut child, keeper) =
        keeper::spawn(command).map_err(|error| not_started(program, error))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = Group {
        leader: Mutex::new(Some(child)),
        _keeper: keeper,
    };
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(Error::new(
            ErrorKind::Internal,
            "a pipe that was asked for is not there",
        ));
    };
    let pidfd = group.pidfd().map_err(|error| not_started(program, error))?;
    Ok(Started {
        group,
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: stderr.into(),
        pidfd,
    })
}

/// What a fence is made of.
struct Bounds {
    rules: OwnedFd,
    calls: Filter,
}

impl Bounds {
    fn new(fence: &Fence, program: &Path) -> Result<Self> {
        Ok(Self {
            rules: fence.rules(program)?,
            calls: Filter::new(fence)?,
        })
    }
}

/// In the child: a session without a terminal, an end with its parent's, no new privileges, no
/// descriptors but the three, no core dumps, files of its own closed to others, signals as a program
/// expects them, and nothing in reach that is behind the fence.
fn confine(parent: Pid, bounds: Option<&Bounds>) -> io::Result<()> {
    // The thread that starts it may block them all.
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills in the set that the second one reads; both are allowed here.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    // A process group of its own as well.
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // It has ended before it could be heard of.
        return Err(rustix::io::Errno::SRCH.into());
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let most = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(Resource::Core, most(0))?;
    let ours = rustix::process::getrlimit(Resource::Nofile).maximum;
    let descriptors = ours.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    rustix::process::setrlimit(Resource::Nofile, most(descriptors))?;
    // Closed by exec and not at once: the standard library still has one open, to tell of a failure.
    // SAFETY: the call takes three numbers, and marks descriptors of this child only.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(bounds) = bounds else {
        return give_up(CapabilitySet::SYS_PTRACE);
    };
    give_up(CapabilitySet::from_bits_retain(u64::MAX))?;
    fence::enter(&bounds.rules)?;
    bounds.calls.enter()
}

/// Gives up capabilities, for good: after it gave up new privileges, no program brings them back. Of a
/// program of root's, what is root's stays: its files.
fn give_up(gone: CapabilitySet) -> io::Result<()> {
    let had = rustix::thread::capabilities(None)?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (gone & CapabilitySet::all()).iter() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let kept = CapabilitySets {
        effective: had.effective.difference(gone),
        permitted: had.permitted.difference(gone),
        inheritable: had.inheritable.difference(gone),
    };
    // The ambient ones go with these.
    Ok(rustix::thread::set_capabilities(None, kept)?)
}

fn not_started(program: &Path, error: io::Error) -> Error {
    let kind = match ErrorKind::of_io(&error) {
        ErrorKind::NotFound => ErrorKind::InvalidConfig,
        kind => kind,
    };
    Error::new(kind, format!("{} cannot be started", program.display()))
        .with_source(error)
        .with_advice("see that it is executable, and that its interpreter is there")
}

/// A program and all that it started, as long as they stay in its process group.
///
/// The group is killed before its leader is waited for: until then the number cannot be anybody
/// else's.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Mutex<Option<Child>>,
    /// Gone last: the kernel kills the leader with it.
    _keeper: Keeper,
}

impl Group {
    /// Kills every process of the group, unless it was waited for.
    pub(crate) fn kill(&self) {
        let child = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = &*child {
            kill(child);
        }
    }

    /// Kills the group and takes the leader's status. To be called once the leader has ended, since
    /// it waits.
    pub(crate) fn reap(&self) -> Option<ExitStatus> {
        let mut child = self
            .leader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        kill(&child);
        child.wait().ok()
    }

    fn pidfd(&self) -> io::Result<OwnedFd> {
        let child = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let child = child.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::process::pidfd_open(
            Pid::from_child(child),
            PidfdFlags::NONBLOCK,
        )?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let child = self
            .leader
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = child.take() else {
            return;
        };
        kill(&child);
        // Here and not later, where keyhaul may have become another program that waits for nobody.
        // A process that the kernel cannot end now must not hold us up, though.
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let ended = pidfd.is_ok_and(|pidfd| {
            let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut ended, Some(&LAST_WAIT)).is_ok_and(|count| count > 0)
        });
        if ended {
            // There is nobody to tell of a failure.
            let _ = child.wait();
        } else {
            std::thread::spawn(move || child.wait());
        }
    }
}

fn kill(child: &Child) {
    // It may have ended already, and all others with it.
    let _ = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL);
}
