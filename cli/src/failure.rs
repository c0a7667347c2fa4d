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

/// The table of exit codes, as `--help` ends and the docs repeat it; a test holds it against
/// [`keyhaul_core::ErrorKind`].
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  several failures of different kinds
   2  the command line itself is wrong
  10  AlreadyExists     the secret is there already
  11  Conflict          somebody else wrote in between
  12  Corrupt           what is stored is damaged or not in the declared encoding
  13  Internal          a defect; please report it
  14  InvalidConfig     the policy or a setting is wrong
  15  InvalidReference  the reference is wrong
  16  NotFound          no such secret
  17  PermissionDenied  the store or the system says no
  18  RateLimited       the store asks for fewer requests
  19  StorageFull       the store has no room
  20  Timeout           no answer in time
  21  TooLarge          over a limit
  22  Unauthenticated   no credential, or one that is expired or wrong
  23  Unavailable       the store cannot be reached or cannot serve now
  24  Unsupported       the store cannot do that at all
 125  `run` itself failed; its words name the kind. Otherwise `run` gives its program's status
 130  a prompt was broken off";
