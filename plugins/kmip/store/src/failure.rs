//! What a server's answer, or one that is none, means in keyhaul's words.

use keyhaul_core::{Error, ErrorKind};

use crate::message::Operation;
use crate::reason::{REPORT, Reason};
use crate::ttlv::Malformed;

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server understood, and says no.
    Refused(Operation, Reason),
    /// Anything else.
    Other(Error),
}

impl Failure {
    pub(crate) fn refused(operation: Operation, reason: Option<u32>) -> Self {
        Self::Refused(operation, Reason(reason))
    }

    /// Whether the object that was asked about is not there, or no longer.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Refused(_, reason) if reason.is_absence())
    }

    /// Whether it may be that the name of an object to be registered is taken.
    pub(crate) fn may_be_taken(&self) -> bool {
        matches!(self, Self::Refused(_, reason) if reason.may_be_taken())
    }

    /// Whether what objects are looked for by is nothing that the server looks for.
    pub(crate) fn is_about_search(&self) -> bool {
        matches!(self, Self::Refused(_, reason) if reason.is_about_search())
    }

    /// Whether it may be that an object is active or destroyed, and is not destroyed for that.
    pub(crate) fn may_be_state(&self) -> bool {
        matches!(self, Self::Refused(_, reason) if reason.may_be_state())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Other(garbled(malformed))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (operation, reason) = match failure {
            Failure::Other(error) => return error,
            Failure::Refused(operation, reason) => (operation, reason),
        };
        // What the server says in words stays out: it could repeat what it was given.
        let message = format!("the KMIP server refuses {operation}: {reason}");
        match reason.meaning() {
            Some((kind, _, advice)) => Error::new(kind, message).with_advice(advice),
            None => Error::new(ErrorKind::Internal, message).with_advice(REPORT),
        }
    }
}

/// An answer that is none.
pub(crate) fn garbled(malformed: Malformed) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the KMIP server gave an answer that is none of KMIP's",
    )
    .with_advice("see that a KMIP server, and nothing else, listens at the store's url")
    .with_source(malformed)
}
