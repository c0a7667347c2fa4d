//! The audit as a file of JSON lines.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{AuditRecord, AuditSink};
use crate::{Error, ErrorKind, Result, typed};

/// Appends each record to a file, as one line of JSON.
///
/// Each line is one `write(2)` to a file opened for appending, which Linux does not mix with
/// others': any number of processes can share the file, and `copytruncate` can rotate it. A
/// record is with the kernel when the request goes on, and survives this process; it is not forced
/// to the disk, which would cost each request a disk's time.
#[derive(Debug)]
pub struct JsonLinesSink {
    path: PathBuf,
    file: File,
    /// Whether the file ends in half a line: of this process on a full disk, or of one before.
    torn: Mutex<bool>,
}

impl JsonLinesSink {
    /// The file at `path`, made with mode 0600 where it is not there.
    ///
    /// # Errors
    /// `PermissionDenied` where the file is a symbolic link, no regular file, another user's, or
    /// open to others: who can write an audit can rewrite it, and who can read it learns who uses
    /// which secret. Else the kind that fits the I/O error.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = open(&path).map_err(|error| {
            if error.raw_os_error() == Some(libc::ELOOP) {
                return refused(&path, "is a symbolic link")
                    .with_advice("name the file itself as the `path` of [audit]");
            }
            let subject = format!("the audit {} cannot be opened", path.display());
            // No secret was asked for yet: this is not its "not found".
            if ErrorKind::of_io(&error) == ErrorKind::NotFound {
                return Error::new(ErrorKind::InvalidConfig, subject)
                    .with_advice("make its folder, or mend the `path` of [audit]")
                    .with_source(error);
            }
            Error::io(subject, error)
        })?;
        let metadata = file.metadata().map_err(|error| unreadable(&path, error))?;
        if !metadata.is_file() {
            return Err(refused(&path, "is no regular file"));
        }
        if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            let uid = rustix::process::geteuid().as_raw();
            return Err(refused(&path, "belongs to another user")
                .with_advice(format!("chown {uid} {}", typed(&path))));
        }
        if metadata.mode() & 0o077 != 0 {
            let mode = format!("has mode {:04o}, open to others", metadata.mode() & 0o7777);
            let advice = format!("chmod 0600 {}", typed(&path));
            return Err(refused(&path, &mode).with_advice(advice));
        }
        let torn = {
            let _lock = Lock::take(&file).map_err(|error| unreadable(&path, error))?;
            ends_torn(&file).map_err(|error| unreadable(&path, error))?
        };
        Ok(Self {
            path,
            file,
            torn: Mutex::new(torn),
        })
    }
}

impl AuditSink for JsonLinesSink {
    fn record(&self, record: &AuditRecord<'_>) -> Result<()> {
        // What half a line would swallow begins on a line of its own.
        let mut torn = self.torn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = if *torn {
            b"\n".to_vec()
        } else {
            Vec::with_capacity(256)
        };
        serde_json::to_writer(&mut line, record).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "an audit record cannot be put in words",
            )
            .with_source(error)
        })?;
        line.push(b'\n');
        let subject = || format!("the audit {} cannot be written", self.path.display());
        let lock = Lock::take(&self.file).map_err(|error| Error::io(subject(), error))?;
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.file, &line))
            .map_err(|error| Error::io(subject(), error.into()))?;
        drop(lock);
        *torn = written < line.len();
        if written < line.len() {
            return Err(Error::new(ErrorKind::StorageFull, subject()));
        }
        Ok(())
    }
}

/// The file for one write, or one look at its end. A write in progress shows half a line, and who
/// opened the file then would take it for a torn one.
struct Lock<'a>(&'a File);

impl<'a> Lock<'a> {
    /// How long a writer that was stopped in its one system call may hold up the others.
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(1);

    fn take(file: &'a File) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if begun.elapsed() < Self::PATIENCE => {
                    thread::sleep(Self::PAUSE);
                }
                Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

/// Whether the file ends in the middle of a line.
fn ends_torn(file: &File) -> io::Result<bool> {
    let mut last = *b"\n";
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        file.read_at(&mut last, end)?;
    }
    Ok(last != *b"\n")
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .read(true)
        .mode(0o600)
        // Not to follow a link, nor to wait for the other end of what is a pipe.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!("the audit {} {why}", path.display()),
    )
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::io(
        format!("the audit {} cannot be read", path.display()),
        error,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::SystemTime;

    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;
    use crate::Operation;
    use crate::layers::AuditEvent;

    fn record(path: &str) -> AuditRecord<'_> {
        AuditRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_000_000_000_001),
            event: AuditEvent::End,
            request: "req-1",
            actor: "uid:0",
            operation: Operation::Get,
            store: "site",
            path: Some(path),
            outcome: Some("ok"),
            duration: Some(Duration::from_nanos(12_345_678)),
        }
    }

    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("audit.jsonl");
        (folder, file)
    }

    #[test]
    fn a_line_is_json_with_its_time_in_utc() {
        let (_folder, file) = folder();
        let sink = JsonLinesSink::open(&file).expect("opened");
        sink.record(&record("a \"quoted\" path")).expect("written");
        // 10^9 seconds after the epoch, as `date -u -d @1000000000` tells it.
        let expected = concat!(
            r#"{"time":"2001-09-09T01:46:40.000001Z","event":"end","request":"req-1","#,
            r#""actor":"uid:0","operation":"get","store":"site","path":"a \"quoted\" path","#,
            r#""outcome":"ok","duration_us":12345}"#,
            "\n"
        );
        assert_eq!(fs::read_to_string(&file).expect("read"), expected);
    }

    #[test]
    fn a_file_that_others_could_read_write_or_replace_is_refused() {
        let (folder, file) = folder();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            fs::write(&file, "").expect("written");
            fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("mode");
            let error = JsonLinesSink::open(&file).expect_err("open to others");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(
                error
                    .advice()
                    .is_some_and(|advice| advice.starts_with("chmod 0600 "))
            );
        }
        // The control: the same file, private.
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("mode");
        JsonLinesSink::open(&file).expect("private");

        let link = folder.path().join("link");
        symlink(&file, &link).expect("link");
        let error = JsonLinesSink::open(&link).expect_err("a link");
        assert!(error.message().contains("symbolic link"), "{error}");

        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).expect("pipe");
        let error = JsonLinesSink::open(&pipe).expect_err("a pipe");
        assert!(error.message().contains("no regular file"), "{error}");

        let error = JsonLinesSink::open(folder.path().join("no/such/folder")).expect_err("nowhere");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    /// Each thread opens the file anew, as a process of its own would.
    #[test]
    fn writers_that_share_a_file_do_not_mix_their_lines() {
        let (_folder, file) = folder();
        let long = "p".repeat(1000);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let sink = JsonLinesSink::open(&file).expect("opened");
                    for _ in 0..200 {
                        sink.record(&record(&long)).expect("written");
                    }
                });
            }
        });
        let text = fs::read_to_string(&file).expect("read");
        let whole = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["path"], long);
        };
        assert_eq!(text.lines().map(whole).count(), 8 * 200);
    }

    #[test]
    fn half_a_line_of_a_process_that_died_swallows_no_record() {
        let (_folder, file) = folder();
        fs::write(&file, r#"{"time":"2001-"#).expect("written");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("mode");
        let sink = JsonLinesSink::open(&file).expect("opened");
        sink.record(&record("a")).expect("written");
        sink.record(&record("b")).expect("written");
        let text = fs::read_to_string(&file).expect("read");
        let whole = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).is_ok());
        assert_eq!(whole.collect::<Vec<_>>(), [false, true, true]);
    }

    /// A pipe that nobody empties takes a part of a long line, as a disk without room does.
    #[test]
    fn a_line_that_does_not_fit_is_an_error_and_swallows_no_record() {
        let (read, write) = std::io::pipe().expect("pipe");
        rustix::io::ioctl_fionbio(&write, true).expect("no waiting");
        let sink = JsonLinesSink {
            path: "pipe".into(),
            file: File::from(OwnedFd::from(write)),
            torn: Mutex::new(false),
        };
        let error = sink
            .record(&record(&"p".repeat(200_000)))
            .expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let error = sink.record(&record("a")).expect_err("no room at all");
        assert_eq!(error.kind(), ErrorKind::Unavailable);

        let reader = thread::spawn(|| std::io::read_to_string(read).expect("UTF-8"));
        while sink.record(&record("b")).is_err() {
            thread::yield_now();
        }
        drop(sink);
        let text = reader.join().expect("read");
        let last = text.lines().last().expect("a line");
        let last: Value = serde_json::from_str(last).expect("a line of its own");
        assert_eq!(last["path"], "b");
    }
}
