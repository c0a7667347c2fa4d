//! Files that belong to the service alone.

use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use keyhaul_core::{Error, ErrorKind, Result, typed};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// The file at `path`, made with mode 0600 where it is not there, for reading and appending.
/// `what` it is stands in errors, and is its key in the settings.
///
/// # Errors
/// `PermissionDenied` where the file is a symbolic link, no regular file, another user's, or open
/// to others: who can write it decides who reads which secret. Else the kind that fits the I/O
/// error.
pub(super) fn open(path: &Path, what: &str) -> Result<File> {
    let shown = path.display();
    let refused = |why: &str| {
        let message = format!("the {what} file {shown} {why}");
        Error::new(ErrorKind::PermissionDenied, message)
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .read(true)
        .mode(0o600)
        // Not to follow a link, nor to wait for the other end of what is a pipe.
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| {
            if Errno::from_io_error(&error) == Some(Errno::LOOP) {
                let advice = format!("name the file itself as `{what}`");
                return refused("is a symbolic link").with_advice(advice);
            }
            let subject = format!("the {what} file {shown} cannot be opened");
            // No secret was asked for: this is not its "not found".
            if ErrorKind::of_io(&error) == ErrorKind::NotFound {
                return Error::new(ErrorKind::InvalidConfig, subject)
                    .with_advice(format!("make its folder, or mend `{what}`"))
                    .with_source(error);
            }
            Error::io(subject, error)
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| Error::io(format!("the {what} file {shown} cannot be read"), error))?;
    if !metadata.is_file() {
        return Err(refused("is no regular file"));
    }
    let uid = rustix::process::geteuid().as_raw();
    if ![0, uid].contains(&metadata.uid()) {
        let advice = format!("chown {uid} {}", typed(path));
        return Err(refused("belongs to another user").with_advice(advice));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = format!("has mode {:04o}, open to others", metadata.mode() & 0o7777);
        return Err(refused(&mode).with_advice(format!("chmod 0600 {}", typed(path))));
    }
    if metadata.len() == 0 {
        // New, most likely: what is forced to the disk in it is lost without its name.
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|file| file.sync_all());
        synced
            .map_err(|error| Error::io(format!("the folder of the {what} file {shown}"), error))?;
    }
    Ok(file)
}

/// A file that is this process' alone, until it is [let go](Self::let_go) or dropped.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Locked {
    /// Takes `file`, of `path`.
    ///
    /// # Errors
    /// `Conflict` where another process holds it.
    pub(super) fn new(file: File, path: &Path, what: &str) -> Result<Self> {
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        taken.map_err(|error| {
            let shown = path.display();
            if error != Errno::WOULDBLOCK {
                return Error::io(
                    format!("the {what} file {shown} cannot be locked"),
                    error.into(),
                );
            }
            let message = format!("the {what} file {shown} is in use by another process");
            Error::new(ErrorKind::Conflict, message).with_advice(format!(
                "one key service at a time works with it: `fuser {}` shows which",
                typed(path)
            ))
        })?;
        Ok(Self(file))
    }

    /// A device, which is everybody's.
    #[cfg(test)]
    pub(super) fn device(file: File) -> Self {
        Self(file)
    }

    /// Lets go of it, whoever still reads it. Closing it would not be enough: a child of this process
    /// that is about to become another program has it open as well.
    pub(super) fn let_go(&self) {
        // Where even this fails, closing it is all that can be done.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_that_others_could_read_write_or_replace_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("service.db");
        open(&path, "state").expect("made");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
            let error = open(&path, "state").expect_err("open to others");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.advice().is_some_and(|a| a.starts_with("chmod 0600 ")));
        }
        // The control: the same file, private.
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        open(&path, "state").expect("private");

        let link = folder.path().join("link");
        symlink(&path, &link).expect("link");
        let error = open(&link, "state").expect_err("a link");
        assert!(error.message().contains("symbolic link"), "{error}");
        let error = open(Path::new("/dev/null"), "state").expect_err("a device");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let error = open(&folder.path().join("no/such"), "state").expect_err("nowhere");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn what_is_let_go_is_free_though_a_child_still_has_it_open() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("service.db.lock");
        let taken = || Locked::new(open(&path, "state").expect("opened"), &path, "state");
        let first = taken().expect("free");
        // As fork gives it to a child.
        let childs = first.try_clone().expect("copied");
        assert_eq!(taken().expect_err("held").kind(), ErrorKind::Conflict);
        drop(first);
        drop(taken().expect("free again"));
        // The control: closing alone.
        let locked = flock(&childs, FlockOperation::NonBlockingLockExclusive);
        locked.expect("free");
        drop(childs.try_clone().expect("copied"));
        assert_eq!(taken().expect_err("held").kind(), ErrorKind::Conflict);
    }
}
