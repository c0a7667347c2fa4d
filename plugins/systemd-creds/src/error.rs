//! What the operating system says, in keyhaul's words.

use std::io;
use std::path::Path;

use keyhaul_core::{Error, ErrorKind};

/// A failed system call on `path`, of the kind that fits.
pub(crate) fn io_error(doing: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::io(format!("{doing} {} failed", path.display()), error.into())
}

/// The program is there and cannot be started.
pub(crate) fn not_started(program: &Path, error: io::Error) -> Error {
    let said = format!("{} cannot be started", program.display());
    // It is there itself: what is missing is what a script is to be run by.
    if error.kind() == io::ErrorKind::NotFound {
        return Error::new(ErrorKind::InvalidConfig, said).with_source(error);
    }
    Error::io(said, error)
}

/// A defect of ours: the environment broke a promise that the code relies on.
pub(crate) fn internal(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

pub(crate) fn absent() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}
