//! Why a server refuses: the standard's result reasons (KMIP 2.0, 11.47, whose numbers hold those of
//! 1.x), and what each means in keyhaul's words.

use std::fmt;

use keyhaul_core::ErrorKind;

/// A result reason: its number, or none where a server gave none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) Option<u32>);

impl Reason {
    const ITEM_NOT_FOUND: u32 = 0x01;
    const OPERATION_NOT_SUPPORTED: u32 = 0x05;
    const INVALID_FIELD: u32 = 0x07;
    const FEATURE_NOT_SUPPORTED: u32 = 0x08;
    const ILLEGAL_OPERATION: u32 = 0x0b;
    const PERMISSION_DENIED: u32 = 0x0c;
    const NAMESPACE_NOT_SUPPORTED: u32 = 0x0f;
    const OBJECT_ALREADY_EXISTS: u32 = 0x18;
    const UNSUPPORTED_ATTRIBUTE: u32 = 0x1f;
    const NON_UNIQUE_NAME: u32 = 0x35;
    const OBJECT_DESTROYED: u32 = 0x36;
    const OBJECT_NOT_FOUND: u32 = 0x37;
    const WRONG_STATE: u32 = 0x43;

    /// Whether the object is not there, or no longer.
    pub(crate) fn is_absence(self) -> bool {
        matches!(
            self.0,
            Some(Self::ITEM_NOT_FOUND | Self::OBJECT_DESTROYED | Self::OBJECT_NOT_FOUND)
        )
    }

    /// Whether it may be that a name is taken. To 1.x that is an invalid field, as much else is.
    pub(crate) fn may_be_taken(self) -> bool {
        matches!(
            self.0,
            Some(Self::INVALID_FIELD | Self::OBJECT_ALREADY_EXISTS | Self::NON_UNIQUE_NAME)
        )
    }

    /// Whether the server does not look for objects by what it was given.
    pub(crate) fn is_about_search(self) -> bool {
        matches!(
            self.0,
            Some(
                Self::OPERATION_NOT_SUPPORTED
                    | Self::INVALID_FIELD
                    | Self::FEATURE_NOT_SUPPORTED
                    | Self::NAMESPACE_NOT_SUPPORTED
                    | Self::UNSUPPORTED_ATTRIBUTE
            )
        )
    }

    /// Whether it may be that the object is active or was destroyed, and is not destroyed for that.
    pub(crate) fn may_be_state(self) -> bool {
        matches!(
            self.0,
            Some(Self::ILLEGAL_OPERATION | Self::PERMISSION_DENIED | Self::WRONG_STATE)
        )
    }

    /// The kind, the standard's name, and what to do.
    pub(crate) fn meaning(self) -> Option<(ErrorKind, &'static str, &'static str)> {
        use ErrorKind as Kind;
        let meaning = match self.0? {
            Self::ITEM_NOT_FOUND => (Kind::NotFound, "Item Not Found", LOOK),
            0x02 => (
                Kind::TooLarge,
                "Response Too Large",
                "the answer is over 1 MiB: see what the object is, with the server's own tools",
            ),
            0x03 => (Kind::Unauthenticated, "Authentication Not Successful", WHO),
            // By 11.1 of 1.x that is also what an unknown version of the protocol is.
            0x04 => (Kind::InvalidConfig, "Invalid Message", VERSION),
            Self::OPERATION_NOT_SUPPORTED => {
                (Kind::InvalidConfig, "Operation Not Supported", PROFILE)
            }
            0x06 => (Kind::InvalidConfig, "Missing Data", TAKES),
            Self::INVALID_FIELD => (Kind::InvalidConfig, "Invalid Field", TAKES),
            Self::FEATURE_NOT_SUPPORTED => (Kind::InvalidConfig, "Feature Not Supported", PROFILE),
            Self::ILLEGAL_OPERATION => (Kind::PermissionDenied, "Illegal Operation", STATE),
            Self::PERMISSION_DENIED => (Kind::PermissionDenied, "Permission Denied", RIGHTS),
            0x0d => (
                Kind::Unavailable,
                "Object Archived",
                "bring the object back from the server's archive, with the server's own tools",
            ),
            Self::NAMESPACE_NOT_SUPPORTED => (
                Kind::InvalidConfig,
                "Application Namespace Not Supported",
                "let the server take Application Specific Information of the namespaces `keyhaul` and `keyhaul-path`",
            ),
            0x10 => (Kind::Corrupt, "Key Format Type Not Supported", FORMAT),
            0x11 => (Kind::Corrupt, "Key Compression Type Not Supported", FORMAT),
            0x13 => (Kind::Corrupt, "Key Value Not Present", FORMAT),
            0x14 => (Kind::Unauthenticated, "Attestation Required", ATTESTATION),
            0x15 => (Kind::Unauthenticated, "Attestation Failed", ATTESTATION),
            0x16 => (Kind::PermissionDenied, "Sensitive", LOCKED_IN),
            0x17 => (Kind::PermissionDenied, "Not Extractable", LOCKED_IN),
            Self::OBJECT_ALREADY_EXISTS => (Kind::AlreadyExists, "Object Already Exists", UNIQUE),
            0x1a => (Kind::PermissionDenied, "Usage Limit Exceeded", RIGHTS),
            Self::UNSUPPORTED_ATTRIBUTE => (Kind::InvalidConfig, "Unsupported Attribute", TAKES),
            0x25 => (Kind::Unauthenticated, "Bad Password", WHO),
            0x2a => (Kind::Unavailable, "Internal Server Error", LOG),
            Self::NON_UNIQUE_NAME => (Kind::AlreadyExists, "Non Unique Name Attribute", UNIQUE),
            Self::OBJECT_DESTROYED => (Kind::NotFound, "Object Destroyed", LOOK),
            Self::OBJECT_NOT_FOUND => (Kind::NotFound, "Object Not Found", LOOK),
            0x39 => (Kind::PermissionDenied, "Not Authorised", RIGHTS),
            0x3a => (Kind::StorageFull, "Server Limit Exceeded", LOG),
            0x3f => (Kind::InvalidConfig, "Unsupported Protocol Version", VERSION),
            Self::WRONG_STATE => (Kind::PermissionDenied, "Wrong Key Lifecycle State", STATE),
            0x44 => (Kind::Unavailable, "Protection Storage Unavailable", LOG),
            0x100 => (Kind::Unavailable, "General Failure", LOG),
            _ => return None,
        };
        Some(meaning)
    }
}

const ATTESTATION: &str = "the server wants clients to attest themselves, which keyhaul does not";
const FORMAT: &str =
    "store the key in the clear and unwrapped, as raw bytes: other formats are not read";
const LOCKED_IN: &str = "the object may leave the server only wrapped, which is not what keyhaul reads: register it without that mark";
const LOG: &str = "the server's log says why";
const LOOK: &str = "see the object with the server's own tools";
const PROFILE: &str =
    "the server must be able to Locate by Name, Get, Get Attributes, Register, Revoke and Destroy";
pub(crate) const REPORT: &str =
    "please report it, with the server's make and its log of the request";
const RIGHTS: &str = "ask whoever runs the server for the right; it knows this host by the certificate of `client-cert`";
const STATE: &str =
    "the object's state does not allow it: see the object with the server's own tools";
const TAKES: &str = "the server's log says what it does not take: of what keyhaul registers, the Name, Application Specific Information, the `group`, or secret data, for which there is `register`";
const UNIQUE: &str = "the server knows the name already, and the one that keyhaul made instead: see both with the server's own tools";
const VERSION: &str = "set `version` to one that the server speaks: 1.1, 1.2, 1.3 or 1.4; if it speaks this one, its log says what it does not understand";
const WHO: &str = "see that the certificate of `client-cert` is one for clients (clientAuth), and that the server knows the name in it";

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.meaning()) {
            (Some(number), Some((_, name, _))) => write!(f, "{name} ({number:#x})"),
            (Some(number), None) => write!(f, "reason {number:#x}"),
            (None, _) => f.write_str("no reason"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_the_kinds_that_tell_the_caller_what_to_do() {
        let kind = |number| Reason(Some(number)).meaning().map(|(kind, ..)| kind);
        assert_eq!(kind(0x01), Some(ErrorKind::NotFound));
        assert_eq!(kind(0x03), Some(ErrorKind::Unauthenticated));
        assert_eq!(kind(0x0c), Some(ErrorKind::PermissionDenied));
        assert_eq!(kind(0x35), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(0x100), Some(ErrorKind::Unavailable));
        // What servers of 1.x say.
        assert_eq!(kind(0x04), Some(ErrorKind::InvalidConfig));
        assert_eq!(kind(0x06), Some(ErrorKind::InvalidConfig));
        assert_eq!(kind(0x07), Some(ErrorKind::InvalidConfig));
        assert_eq!(kind(0x0b), Some(ErrorKind::PermissionDenied));
        assert_eq!(kind(0x43), Some(ErrorKind::PermissionDenied));
        // Not every number is known, and none has to be.
        assert_eq!(kind(0xbeef), None);
        assert_eq!(Reason(Some(0xbeef)).to_string(), "reason 0xbeef");
        assert_eq!(Reason(None).to_string(), "no reason");
    }

    #[test]
    fn no_reason_says_unsupported() {
        // The law of capabilities: only the store itself may say so.
        for number in 0..0x200 {
            let meaning = Reason(Some(number)).meaning();
            assert!(meaning.is_none_or(|(kind, ..)| kind != ErrorKind::Unsupported));
        }
    }
}
