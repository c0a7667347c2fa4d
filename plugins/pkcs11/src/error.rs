//! What a token's library answers, in keyhaul's words: by its codes, never by their texts.

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use keyhaul_core::{Error, ErrorKind};

/// Why work with a token failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The object that was found is another one now, or gone: somebody wrote meanwhile.
    Moved,
    /// The library said so.
    Library(Pkcs11Error),
    /// It is said in full already.
    Told(Error),
}

impl Failure {
    /// Whether the session it came from is worth nothing any more, although the token may be there:
    /// to begin anew can help, and nothing has been done yet.
    pub(crate) fn is_stale(&self) -> bool {
        let Self::Library(Pkcs11Error::Pkcs11(code, _)) = self else {
            return false;
        };
        matches!(
            code,
            RvError::DeviceRemoved
                | RvError::SessionClosed
                | RvError::SessionHandleInvalid
                | RvError::SessionReadOnly
                | RvError::SlotIdInvalid
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::TokenWriteProtected
                | RvError::UserNotLoggedIn
        )
    }

    /// Whether the object that was named is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::Moved | Self::Library(Pkcs11Error::Pkcs11(RvError::ObjectHandleInvalid, _))
        )
    }

    /// Whether the token has no session left to give.
    pub(crate) fn is_out_of_sessions(&self) -> bool {
        matches!(
            self,
            Self::Library(Pkcs11Error::Pkcs11(RvError::SessionCount, _))
        )
    }
}

impl From<Pkcs11Error> for Failure {
    fn from(error: Pkcs11Error) -> Self {
        Self::Library(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Told(error) => error,
            Failure::Moved => Error::new(
                ErrorKind::Unavailable,
                "the secret was written again and again while it was read",
            ),
            Failure::Library(Pkcs11Error::Pkcs11(code, function)) => of_code(code, function),
            // Never shown as it is: some of these carry what the library gave.
            Failure::Library(_) => Error::new(
                ErrorKind::Unavailable,
                "the token's library gave an answer that PKCS#11 does not know",
            ),
        }
    }
}

fn of_code(code: RvError, function: Function) -> Error {
    let (kind, advice) = match code {
        RvError::DeviceMemory => (
            ErrorKind::StorageFull,
            "make room on the token; what was there before is intact",
        ),
        RvError::AttributeTypeInvalid
        | RvError::AttributeValueInvalid
        | RvError::TemplateIncomplete
        | RvError::TemplateInconsistent => (
            ErrorKind::InvalidConfig,
            "the token does not take an object as keyhaul makes it, private and with an application, \
             a label, an object identifier and a value of this length; it does not say which it \
             minds, and the page of the plugin lists what a token must be able to do",
        ),
        RvError::DataLenRange => (
            ErrorKind::TooLarge,
            "the token does not take a value of this length; a shorter one may do",
        ),
        RvError::AttributeSensitive | RvError::InformationSensitive | RvError::ActionProhibited => {
            (ErrorKind::PermissionDenied, "the token does not allow this")
        }
        RvError::TokenWriteProtected | RvError::SessionReadOnly => {
            (ErrorKind::PermissionDenied, "the token is write-protected")
        }
        RvError::UserNotLoggedIn | RvError::PinExpired | RvError::PinLocked => (
            ErrorKind::Unauthenticated,
            "see with the token's own tools whether the user can log in",
        ),
        RvError::SessionCount => (
            ErrorKind::Unavailable,
            "the token has no session left: lower `sessions`, or close those of others",
        ),
        RvError::CantLock | RvError::NeedToCreateThreads => (
            ErrorKind::InvalidConfig,
            "the token's library cannot be used from several threads, and keyhaul needs that",
        ),
        RvError::FunctionNotSupported => (
            ErrorKind::InvalidConfig,
            "the token's library lacks what a store of data objects needs",
        ),
        RvError::ArgumentsBad => (
            ErrorKind::Internal,
            "the token's library refuses what PKCS#11 allows; please report it with the token's model",
        ),
        // A token that is away, busy or broken: it may be back.
        _ => (
            ErrorKind::Unavailable,
            "see whether the token is there and works, with its own tools",
        ),
    };
    Error::new(kind, format!("the token answered {code:?} to {function:?}")).with_advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_the_kinds_that_tell_the_caller_what_to_do() {
        let kind =
            |code| Error::from(Failure::from(Pkcs11Error::Pkcs11(code, Function::Login))).kind();
        assert_eq!(kind(RvError::DeviceMemory), ErrorKind::StorageFull);
        assert_eq!(kind(RvError::DeviceRemoved), ErrorKind::Unavailable);
        assert_eq!(kind(RvError::PinLocked), ErrorKind::Unauthenticated);
        assert_eq!(
            kind(RvError::TokenWriteProtected),
            ErrorKind::PermissionDenied
        );
        // Tokens say it of what they never take, and a shorter value would be no help.
        assert_eq!(
            kind(RvError::AttributeValueInvalid),
            ErrorKind::InvalidConfig
        );
        assert_eq!(kind(RvError::DataLenRange), ErrorKind::TooLarge);
        assert_eq!(kind(RvError::VendorDefined(7)), ErrorKind::Unavailable);
        // The law of capabilities: only the store itself may say so.
        assert_ne!(kind(RvError::FunctionNotSupported), ErrorKind::Unsupported);
    }
}
