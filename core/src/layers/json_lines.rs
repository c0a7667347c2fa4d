//! The audit as a file of JSON lines.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{AuditRecord, AuditSink};
use crate::{Error, ErrorKind, Result};

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
    torn: AtomicBool,
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
                return refused(&path, "is a symbolic link");
            }
            Error::io(
                format!("the audit {} cannot be opened", path.display()),
                error,
            )
        })?;
        let metadata = file.metadata().map_err(|error| unreadable(&path, error))?;
        if !metadata.is_file() {
            return Err(refused(&path, "is no regular file"));
        }
        if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            return Err(refused(&path, "belongs to another user"));
        }
        if metadata.mode() & 0o077 != 0 {
            let mode = format!("has mode {:04o}, open to others", metadata.mode() & 0o7777);
            let advice = format!("chmod 0600 {}", path.display());
            return Err(refused(&path, &mode).with_advice(advice));
        }
        let mut last = *b"\n";
        if let Some(end) = metadata.len().checked_sub(1) {
            file.read_at(&mut last, end)
                .map_err(|error| unreadable(&path, error))?;
        }
        Ok(Self {
            path,
            file,
            torn: AtomicBool::new(last != *b"\n"),
        })
    }
}

impl AuditSink for JsonLinesSink {
    fn record(&self, record: &AuditRecord<'_>) -> Result<()> {
        // What half a line would swallow begins on a line of its own.
        let mut line = if self.torn.load(Ordering::Relaxed) {
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
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.file, &line))
            .map_err(|error| Error::io(subject(), error.into()))?;
        self.torn.store(written < line.len(), Ordering::Relaxed);
        if written < line.len() {
            return Err(Error::new(ErrorKind::StorageFull, subject()));
        }
        Ok(())
    }
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
