//! What the operating system says, in keyhaul's words.

use std::io;
use std::path::Path;

use keyhaul_core::{Error, ErrorKind};

/// A failed system call on `path`, of the kind that fits.
pub(crate) fn io_error(doing: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::io(format!("{doing} {} failed", path.display()), error.into())
}

/// The program cannot be started.
pub(crate) fn no_program(program: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::new(
            ErrorKind::InvalidConfig,
            format!("there is no {}", program.display()),
        )
        .with_advice("it comes with systemd, from version 250 on: apt-get install systemd")
        .with_source(error);
    }
    Error::io(format!("{} cannot be started", program.display()), error)
}

/// A defect of ours: the environment broke a promise that the code relies on.
pub(crate) fn internal(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

pub(crate) fn absent() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}
