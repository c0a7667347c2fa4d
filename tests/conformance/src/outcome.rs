//! What a trial expects, and what came instead.

use std::fmt;

use keyhaul_core::{Error, ErrorKind, Result as StoreResult};

/// Why a trial failed. Free of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the contract asks for.
    pub expected: String,
    /// What the store did.
    pub came: String,
}

impl Failure {
    pub(crate) fn new(expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            came: came.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, came {}", self.expected, self.came)
    }
}

/// What a step of a trial comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Holds `truth`.
pub(crate) fn holds(
    truth: bool,
    expected: impl Into<String>,
    came: impl Into<String>,
) -> Outcome<()> {
    if truth {
        Ok(())
    } else {
        Err(Failure::new(expected, came))
    }
}

/// Holds two things equal that may be shown.
pub(crate) fn same<T: PartialEq + fmt::Debug>(came: &T, expected: &T, what: &str) -> Outcome<()> {
    holds(
        came == expected,
        format!("{what}: {expected:?}"),
        format!("{came:?}"),
    )
}

/// What a store's answer is held against.
pub(crate) trait Expect<T> {
    /// It is no error.
    fn succeeds(self, what: &str) -> Outcome<T>;

    /// It is an error of this kind.
    fn fails(self, kind: ErrorKind, what: &str) -> Outcome<()>;

    /// It is an error of one of these kinds.
    fn fails_as(self, kinds: &[ErrorKind], what: &str) -> Outcome<()>;
}

impl<T> Expect<T> for StoreResult<T> {
    fn succeeds(self, what: &str) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{what} to succeed"), shown(&error)))
    }

    fn fails(self, kind: ErrorKind, what: &str) -> Outcome<()> {
        self.fails_as(&[kind], what)
    }

    fn fails_as(self, kinds: &[ErrorKind], what: &str) -> Outcome<()> {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let expected = format!("{what} to fail as {}", names.join(" or "));
        match self {
            Ok(_) => Err(Failure::new(expected, "success")),
            Err(error) => holds(kinds.contains(&error.kind()), expected, shown(&error)),
        }
    }
}

fn shown(error: &Error) -> String {
    format!("{} ({error:?})", error.kind().name())
}
