//! What the operating system says, in keyhaul's words.

use std::io;
use std::path::Path;

use keyhaul_core::{Error, ErrorKind};
use rustix::io::Errno;

/// A failed system call on `path`, of the kind that fits.
pub(crate) fn io_error(doing: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
        // The limit on the size of files, of the process or of the file system.
        Some(Errno::FBIG) => ErrorKind::StorageFull,
        Some(Errno::ROFS) => {
            return Error::new(
                ErrorKind::PermissionDenied,
                format!("{doing} {}: the file system is read-only", path.display()),
            )
            .with_source(error);
        }
        _ => ErrorKind::of_io(&error),
    };
    let failure = Error::new(kind, format!("{doing} {} failed", path.display())).with_source(error);
    match kind {
        ErrorKind::StorageFull => failure.with_advice("make room; what was there before is intact"),
        _ => failure,
    }
}

/// Something that is not what was written there.
pub(crate) fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} {what}", path.display()))
        .with_advice("restore it from a backup, or delete the secret and set it anew")
}

/// The store's key file, without which no secret opens: to set one anew would not help.
pub(crate) fn corrupt_key(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} {what}", path.display()))
        .with_advice("restore it from a backup: any backup of this store has it")
}

/// A file or folder that cannot be trusted.
pub(crate) fn unsafe_path(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!("{} {what}", path.display()),
    )
}

/// A defect of ours: the environment broke a promise that the code relies on.
pub(crate) fn internal(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what)
}
