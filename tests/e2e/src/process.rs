//! Processes: running them to their end within a limit, and what the kernel says of them.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The longest that anything here may take. Nothing takes a second; a busy machine may.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A process that somebody may have started, held by a descriptor: its number cannot be reused
/// unseen.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    fd: OwnedFd,
}

impl Process {
    /// The process of this number, where there is one.
    pub fn of(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(pid.cast_signed())?;
        let fd = pidfd_open(number, PidfdFlags::empty()).ok()?;
        Some(Self { pid, fd })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Waits for its end; `false` where it did not come.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).expect("a short time");
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready == 1)
    }

    /// Sends it a signal; it may have ended already.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.fd, signal);
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, as text.
    pub stderr: String,
}

impl Finished {
    /// Its standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// Fails the test unless it ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{}", self.described());
        self
    }

    /// Fails the test unless it ended with this exit status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.described());
        self
    }

    /// Fails the test unless its standard error holds all these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no {word:?} in: {}",
                self.described()
            );
        }
        self
    }

    /// Fails the test where its standard error holds one of these words.
    #[track_caller]
    pub fn says_nothing_of(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                !self.stderr.contains(word),
                "{word:?} in: {}",
                self.described()
            );
        }
        self
    }

    fn described(&self) -> String {
        format!(
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout.escape_ascii(),
            self.stderr
        )
    }
}

/// Runs a program to its end, with nothing on its standard input.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    finish_with(command, b"")
}

/// Runs a program to its end, with this on its standard input.
#[track_caller]
pub fn finish_with(command: &mut Command, input: &[u8]) -> Finished {
    let shown = format!("{command:?}");
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // Whoever does not read its input may end before it is written.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    let status = end_of(&mut child, &shown);
    writer.join().expect("writer");
    let stderr = stderr.join().expect("reader");
    Finished {
        status,
        stdout: stdout.join().expect("reader"),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// The end of a child; one that does not end is killed, and fails the test.
#[track_caller]
pub(crate) fn end_of(child: &mut Child, shown: &str) -> ExitStatus {
    let process = Process::of(child.id());
    // There is none where its end was asked for before.
    if process.is_some_and(|process| !process.ends_within(LIMIT)) {
        let _ = child.kill();
        let _ = child.wait();
        panic!("still running after {LIMIT:?}: {shown}");
    }
    child.wait().expect("a child")
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

/// Asks until there is an answer, within the limit.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The arguments that a process really has.
pub fn argv(pid: u32) -> Vec<Vec<u8>> {
    words(&format!("/proc/{pid}/cmdline"))
}

/// The environment that a process was started with.
pub fn environ(pid: u32) -> Vec<Vec<u8>> {
    words(&format!("/proc/{pid}/environ"))
}

fn words(path: &str) -> Vec<Vec<u8>> {
    let all = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut words: Vec<Vec<u8>> = all.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    // Each word ends in a NUL.
    words.pop();
    words
}

/// The numbers of a process' children.
pub fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).unwrap_or_default();
    text.split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect()
}
