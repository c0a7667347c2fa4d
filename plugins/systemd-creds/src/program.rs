//! Running `systemd-creds`: values through pipes, nothing inherited, and never without a limit.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyhaul_core::trust::{self, Sticky};
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, SecretWriter, misleads};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{internal, not_started};

/// What a pipe holds by default, so that one step takes all of it.
const STEP: usize = 64 * 1024;
/// The most that is kept of what a program says of itself.
const SAID: usize = 2048;

/// The program, and how long one run may take.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    limit: Duration,
}

/// How a run ended.
pub(crate) enum Ended {
    /// Well, with this on its output.
    Well(SecretBytes),
    /// Badly, with these last words on its standard error.
    Badly(String),
}

impl Program {
    pub(crate) fn new(path: PathBuf, limit: Duration) -> Self {
        Self { path, limit }
    }

    /// Runs it with `input` on its standard input, and takes at most `most` bytes of output. It has
    /// until `deadline`, and never longer than the limit.
    ///
    /// # Errors
    /// `InvalidConfig` where there is no such program, `PermissionDenied` where others could exchange
    /// it, `Timeout`, and `TooLarge`.
    pub(crate) fn run(
        &self,
        arguments: &[&str],
        input: &[u8],
        most: usize,
        deadline: Option<Instant>,
    ) -> Result<Ended> {
        let until = Instant::now() + self.limit;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        let child = Command::new(self.trusted()?)
            // It may be one of many in one file, that goes by this.
            .arg0(&self.path)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| not_started(&self.path, error))?;
        let mut run = Run::new(&self.path, child, input, most, until)?;
        while run.is_on() {
            run.step()?;
        }
        run.end()
    }

    /// The file itself, which nobody else can change: it is given every value. Looked at before each
    /// run, by a few system calls.
    fn trusted(&self) -> Result<PathBuf> {
        let come = trust::file("the program", &self.path, Sticky::Above);
        come.map_err(|error| match error.kind() {
            ErrorKind::InvalidConfig => error
                .with_advice("it comes with systemd, from version 250 on: apt-get install systemd"),
            _ => error,
        })
    }
}

/// A program that runs. Killed and reaped when dropped.
struct Run<'a> {
    path: &'a Path,
    child: Child,
    /// Readable once it has ended.
    end: Option<OwnedFd>,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    complaints: Option<OwnedFd>,
    left: &'a [u8],
    value: SecretWriter,
    said: Vec<u8>,
    /// What was read last, before it is the value's.
    buffer: SecretBytes,
    until: Instant,
}

impl<'a> Run<'a> {
    fn new(
        path: &'a Path,
        mut child: Child,
        input: &'a [u8],
        most: usize,
        until: Instant,
    ) -> Result<Self> {
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut run = Self {
            path,
            child,
            end: None,
            input: pipes.0.map(OwnedFd::from),
            output: pipes.1.map(OwnedFd::from),
            complaints: pipes.2.map(OwnedFd::from),
            left: input,
            value: SecretWriter::with_limit(most),
            said: Vec::new(),
            buffer: SecretBytes::init_with(STEP, |_| ()),
            until,
        };
        let failed = |error: Errno| {
            Error::io(
                format!("{} cannot be watched", path.display()),
                io::Error::from(error),
            )
        };
        // One that has ended already is there until it is waited for.
        let id = i32::try_from(run.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| internal("a program without a process id"))?;
        run.end = Some(rustix::process::pidfd_open(id, PidfdFlags::empty()).map_err(failed)?);
        if let Some(input) = &run.input {
            let flags = rustix::fs::fcntl_getfl(input).map_err(failed)?;
            rustix::fs::fcntl_setfl(input, flags | OFlags::NONBLOCK).map_err(failed)?;
        }
        Ok(run)
    }

    fn is_on(&self) -> bool {
        self.end.is_some() || self.output.is_some() || self.complaints.is_some()
    }

    /// Waits until something can be done, and does it.
    fn step(&mut self) -> Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("{} does not come to its end", self.path.display()),
            )
            .with_advice("see what it waits for: a TPM, or a service of systemd's"));
        }
        let sides = [
            (&self.input, PollFlags::OUT),
            (&self.output, PollFlags::IN),
            (&self.complaints, PollFlags::IN),
            (&self.end, PollFlags::IN),
        ];
        let mut waited: Vec<PollFd<'_>> = Vec::new();
        let mut places = [None; 4];
        for (place, (fd, flags)) in places.iter_mut().zip(sides) {
            if let Some(fd) = fd {
                *place = Some(waited.len());
                waited.push(PollFd::new(fd, flags));
            }
        }
        let limit = Timespec::try_from(left).map_err(|_| internal("a limit without end"))?;
        match poll(&mut waited, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(self.failed(error)),
        }
        // Its end and errors too: to read or write then says which.
        let [input, output, complaints, end] =
            places.map(|place| place.is_some_and(|at| !waited[at].revents().is_empty()));
        drop(waited);
        if input {
            self.write()?;
        }
        if output {
            self.read_value()?;
        }
        if complaints {
            self.read_complaints()?;
        }
        if end {
            self.end = None;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let Some(input) = &self.input else {
            return Ok(());
        };
        match rustix::io::write(input, self.left) {
            Ok(written) => self.left = &self.left[written..],
            Err(Errno::AGAIN | Errno::INTR) => {}
            // It wants no more: what it says of it comes by the other pipes.
            Err(Errno::PIPE) => self.left = &[],
            Err(error) => return Err(self.failed(error)),
        }
        if self.left.is_empty() {
            self.input = None;
        }
        Ok(())
    }

    fn read_value(&mut self) -> Result<()> {
        let Some(output) = &self.output else {
            return Ok(());
        };
        match read(output.as_fd(), self.buffer.expose_mut()) {
            Ok(Some(0)) => self.output = None,
            Ok(Some(read)) => self.value.push(&self.buffer.expose()[..read])?,
            Ok(None) => {}
            Err(error) => return Err(self.failed(error)),
        }
        Ok(())
    }

    fn read_complaints(&mut self) -> Result<()> {
        let Some(complaints) = &self.complaints else {
            return Ok(());
        };
        let mut bytes = [0; SAID];
        match read(complaints.as_fd(), &mut bytes) {
            Ok(Some(0)) => self.complaints = None,
            // The last words say why.
            Ok(Some(read)) => {
                self.said.extend_from_slice(&bytes[..read]);
                let over = self.said.len().saturating_sub(SAID);
                self.said.drain(..over);
            }
            Ok(None) => {}
            Err(error) => return Err(self.failed(error)),
        }
        Ok(())
    }

    fn end(mut self) -> Result<Ended> {
        let status = self.child.wait();
        let status = status
            .map_err(|error| Error::io(format!("{} was lost", self.path.display()), error))?;
        let value = std::mem::replace(&mut self.value, SecretWriter::with_limit(0));
        Ok(if status.success() {
            Ended::Well(value.finish())
        } else {
            Ended::Badly(last_line(&self.said).unwrap_or_else(|| status.to_string()))
        })
    }

    fn failed(&self, error: Errno) -> Error {
        Error::io(
            format!("a pipe to {} failed", self.path.display()),
            io::Error::from(error),
        )
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Where it was waited for, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    match rustix::io::read(from, buffer) {
        Ok(read) => Ok(Some(read)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last line with something in it, cleaned.
fn last_line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().rev().find(|line| !line.trim().is_empty())?;
    let clean = line.chars().filter(|letter| !misleads(*letter));
    Some(clean.take(300).collect::<String>().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Program {
        Program::new("/bin/sh".into(), Duration::from_secs(20))
    }

    fn run(script: &str, input: &[u8], most: usize) -> Result<Ended> {
        shell().run(&["-c", script], input, most, None)
    }

    #[test]
    fn what_goes_in_comes_out_longer_than_a_pipe_both_ways() {
        let input: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
        match run("cat", &input, input.len()) {
            Ok(Ended::Well(value)) => assert_eq!(value.expose(), input),
            _ => panic!("not well"),
        }
        let error = run("cat", &input, input.len() - 1).map(|_| ());
        assert_eq!(error.expect_err("too long").kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_program_that_takes_no_input_is_no_failure_of_ours() {
        let input = vec![b'x'; 500_000];
        match run(
            "exec 0<&-; echo first >&2; printf 'last\\001\\n' >&2; exit 3",
            &input,
            10,
        ) {
            Ok(Ended::Badly(said)) => assert_eq!(said, "last"),
            _ => panic!("not badly"),
        }
    }

    #[test]
    fn the_environment_is_empty() {
        // The shell itself sets PWD, and some shells more.
        match run(
            "test -z \"$HOME$USER$PATH_INFO$CARGO$CARGO_PKG_NAME\" && printf ok",
            b"",
            10,
        ) {
            Ok(Ended::Well(value)) => assert_eq!(value.expose(), b"ok"),
            _ => panic!("something is set"),
        }
        // The control: here it is set.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    }

    #[test]
    fn a_program_that_hangs_or_never_stops_talking_is_killed_at_the_deadline() {
        for script in [
            "echo $$ >&2; exec sleep 1000",
            "exec 1>&- 2>&-; exec sleep 1000",
            "while :; do echo talk >&2; done",
        ] {
            let begun = Instant::now();
            let deadline = Some(begun + Duration::from_millis(300));
            let ended = shell().run(&["-c", script], b"x", 10, deadline);
            let error = ended.map(|_| ()).expect_err("killed");
            assert_eq!(error.kind(), ErrorKind::Timeout, "{script}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let program = Program::new("/nowhere/systemd-creds".into(), Duration::from_secs(5));
        let error = program.run(&[], b"", 0, None).map(|_| ());
        let error = error.expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("/nowhere/systemd-creds"));
    }
}
