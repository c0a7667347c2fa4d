//! How a command ends.

use keyhaul_core::{Error, ErrorKind};

/// The exit status where several failures are of different kinds.
pub const MIXED: u8 = 1;
/// The exit status of `run` for failures of keyhaul's own.
pub const RUN: u8 = 125;
/// The exit status where a person broke off a prompt.
pub const INTERRUPTED: u8 = 130;

/// Why a command failed: at least one error, each to be reported.
#[derive(Debug)]
pub struct Failure {
    errors: Vec<Error>,
    status: Option<u8>,
}

/// What every command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure whose words were said already.
    pub fn silent(status: u8) -> Self {
        Self {
            errors: Vec::new(),
            status: Some(status),
        }
    }

    /// The same failure with a fixed exit status.
    pub fn with_status(mut self, status: u8) -> Self {
        self.status.get_or_insert(status);
        self
    }

    /// The same failure, each error with what to do next.
    pub fn with_advice(mut self, advice: &'static str) -> Self {
        self.errors = self
            .errors
            .into_iter()
            .map(|error| error.with_advice(advice))
            .collect();
        self
    }

    /// What to report.
    pub fn errors(&self) -> &[Error] {
        &self.errors
    }

    /// The exit status: the kind's, or [`MIXED`] where there are several kinds.
    pub fn status(&self) -> u8 {
        status_of(self.status, self.errors.iter().map(Error::kind))
    }
}

/// The exit status for failures of these kinds.
pub fn status_of(fixed: Option<u8>, kinds: impl IntoIterator<Item = ErrorKind>) -> u8 {
    let mut kinds = kinds.into_iter();
    let first = kinds.next();
    match (fixed, first) {
        (Some(status), _) => status,
        (None, Some(first)) if kinds.all(|kind| kind == first) => first.exit_code(),
        _ => MIXED,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            errors: vec![error],
            status: None,
        }
    }
}

impl From<Vec<Error>> for Failure {
    fn from(errors: Vec<Error>) -> Self {
        Self {
            errors,
            status: None,
        }
    }
}
