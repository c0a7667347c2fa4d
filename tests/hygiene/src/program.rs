//! Programs that are run to their end, and waits that end.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::descendants;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A program that runs, and that ends with all it has started where a hunt fails in between.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Waits for its end, for [`LIMIT`] at most.
    ///
    /// # Panics
    /// Where it does not end in time.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(|| {
            status = self.0.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.expect("it did not end in time")
    }
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Those below it first: of what strace watches, nothing ends with strace.
            for pid in descendants(self.0.id()).into_iter().chain([self.0.id()]) {
                // SAFETY: a signal to a process that we started, or that it started.
                unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
            }
            let _ = self.0.wait();
        }
    }
}

/// Runs a program with `input` to its end, and kills it after [`LIMIT`].
#[track_caller]
pub fn finish(command: &mut Command, input: &[u8]) -> (ExitStatus, Vec<u8>, Vec<u8>) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn();
    let child = child.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let mut child = Running::from(child);
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // It may end without having read all of it.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let status = child.wait();
    writer.join().expect("no panic");
    (
        status,
        stdout.join().expect("no panic"),
        stderr.join().expect("no panic"),
    )
}

/// Waits until `condition` holds, for [`LIMIT`] at most. Says whether it came to hold.
pub fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    condition()
}

/// Waits until a pipe is full, so that its writer is held in the middle of its writing. Says whether it is.
pub fn is_full(pipe: &impl AsRawFd) -> bool {
    let pipe = pipe.as_raw_fd();
    // SAFETY: a system call on a live descriptor.
    let room = unsafe { libc::fcntl(pipe, libc::F_GETPIPE_SZ) };
    wait_until(|| {
        let mut held: libc::c_int = 0;
        // SAFETY: a system call on a live descriptor, which writes to the number it is given.
        let asked = unsafe { libc::ioctl(pipe, libc::FIONREAD, &mut held) };
        asked == 0 && room > 0 && held >= room
    })
}

/// Reads a stream to its end, beside whatever else happens.
pub fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A terminal's end is an error.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// The program: the one that `$KEYHAUL` names, or else built from this workspace in the profile of
/// the hunt.
pub fn keyhaul() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(program) = std::env::var_os("KEYHAUL") {
            return PathBuf::from(program);
        }
        let here = std::env::current_exe().expect("our own path");
        let folder = here
            .ancestors()
            .nth(2)
            .expect("target/PROFILE/deps")
            .to_owned();
        let mut build = Command::new(env!("CARGO"));
        build
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "keyhaul",
                "--target-dir",
            ])
            .arg(folder.parent().expect("the target folder"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let done = build.output().expect("cargo");
        assert!(done.status.success(), "{}", lossy(&done.stderr));
        folder.join("keyhaul")
    })
}

/// Arguments as a program takes them.
pub fn words(arguments: &[&str]) -> Vec<OsString> {
    arguments.iter().map(OsString::from).collect()
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
