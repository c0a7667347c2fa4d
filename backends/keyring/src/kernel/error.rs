//! The kernel's refusals in keyhaul's words.

use keyhaul_core::{Error, ErrorKind};
use linux_keyutils::KeyError;

/// The error for `source`, met on `what`: a key, or the keyring.
pub(super) fn of(what: &'static str, source: KeyError) -> Error {
    let (kind, message, advice) = match source {
        KeyError::AccessDenied => (
            ErrorKind::PermissionDenied,
            format!("{what} does not give this process the right"),
            "look at its owner and mask with: keyctl show; keyctl rdescribe ID",
        ),
        KeyError::PermissionDenied => (
            ErrorKind::PermissionDenied,
            "this process may not use the kernel's keyrings".to_owned(),
            "containers often forbid the system calls add_key and keyctl: allow them, or use another store",
        ),
        KeyError::QuotaExceeded => (
            ErrorKind::StorageFull,
            "the user's quota of keys in the kernel is used up".to_owned(),
            "compare /proc/key-users with /proc/sys/kernel/keys/maxkeys and maxbytes (root_maxkeys and root_maxbytes for root); delete keys, or raise these by sysctl kernel.keys.…",
        ),
        KeyError::KeyExpired => (
            ErrorKind::NotFound,
            format!("{what} has expired"),
            "write it anew: the kernel does not give out what has expired",
        ),
        KeyError::KeyRevoked => (
            ErrorKind::NotFound,
            format!("{what} has been revoked"),
            "write it anew; a session keyring is revoked when its session ends",
        ),
        KeyError::KeyDoesNotExist => (
            ErrorKind::NotFound,
            format!("the kernel has no such thing as {what}"),
            "it forgets its keys with a reboot: look with keyctl show",
        ),
        KeyError::OperationNotSupported | KeyError::Unknown(libc::ENOSYS) => (
            ErrorKind::InvalidConfig,
            format!("this kernel cannot do that with {what}"),
            "it needs CONFIG_KEYS, for the persistent keyring CONFIG_PERSISTENT_KEYRINGS, and Linux 5.3 or later",
        ),
        KeyError::OutOfMemory => (
            ErrorKind::Unavailable,
            "the kernel has no memory for the key".to_owned(),
            "try again",
        ),
        _ => (
            ErrorKind::Internal,
            format!("the kernel's answer about {what} was not expected"),
            "report it, with the number of the error below",
        ),
    };
    Error::new(kind, message)
        .with_advice(advice)
        .with_source(source)
}

/// As [`of`], for the keyring itself: without it there is nothing to be not found in.
pub(super) fn of_keyring(source: KeyError) -> Error {
    match source {
        KeyError::KeyRevoked | KeyError::KeyExpired | KeyError::KeyDoesNotExist => Error::new(
            ErrorKind::Unauthenticated,
            "the keyring of this session is gone",
        )
        .with_advice("log in anew, or start keyhaul by: keyctl session - PROGRAM")
        .with_source(source),
        source => of("the keyring", source),
    }
}
