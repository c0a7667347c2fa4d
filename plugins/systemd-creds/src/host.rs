//! What of this host a credential needs, and why it cannot be had.

use std::path::Path;

use keyhaul_core::{Error, ErrorKind};
use rustix::fs::Access;
use rustix::io::Errno;

use crate::envelope::SealedTo;

/// Where systemd keeps the host's key.
const KEY: &str = "/var/lib/systemd/credential.secret";
/// The name under which it looks for signatures of PCRs.
const SIGNATURE: &str = "systemd/tpm2-pcr-signature.json";
/// And where.
const SIGNATURES: [&str; 4] = ["/etc", "/run", "/usr/local/lib", "/usr/lib"];
/// From this version on systemd has a service that does it for those who are not root.
const SERVICE: u32 = 256;

/// Whether the host has no key. The program makes one where it is to seal to it.
pub(crate) fn has_no_key() -> bool {
    rustix::fs::access(KEY, Access::EXISTS) == Err(Errno::NOENT)
}

/// Whether a program of this version asks systemd's service in our place.
pub(crate) fn asks_service(version: u32) -> bool {
    version >= SERVICE && !rustix::process::geteuid().is_root()
}

/// Why the host's key cannot be used by a program of this version, where that is so and not for
/// systemd's service to say.
pub(crate) fn no_right_to_key(version: u32) -> Option<Error> {
    let denied = rustix::fs::access(KEY, Access::READ_OK) == Err(Errno::ACCESS);
    (denied && !asks_service(version)).then(|| {
        Error::new(
            ErrorKind::PermissionDenied,
            "only root may use this host's key for credentials",
        )
        .with_advice("run keyhaul as root; from version 256 on, systemd can do it for others")
    })
}

pub(crate) fn no_key() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("this host has no key for credentials: {KEY} is not there"),
    )
}

pub(crate) fn refused_by_service() -> Error {
    let us = rustix::process::geteuid().as_raw();
    Error::new(
        ErrorKind::PermissionDenied,
        format!("systemd's service does not open credentials for uid {us}"),
    )
    .with_advice("see whether systemd-creds.socket is active, and polkit's rules for io.systemd.credentials.encrypt and io.systemd.credentials.decrypt; or run keyhaul as root")
}

pub(crate) fn no_tpm2(name: &str, sealed_to: SealedTo) -> Error {
    let is = if sealed_to.known {
        "is sealed to a TPM2"
    } else {
        "is sealed to something newer than this keyhaul, maybe a TPM2"
    };
    Error::new(
        ErrorKind::Unavailable,
        format!("the credential {name} {is}, and there is none that systemd can use"),
    )
    .with_advice("`systemd-creds has-tpm2` says what is missing: firmware, driver or libraries")
}

/// Why no signature says that the PCRs are as they should be, where that is so.
pub(crate) fn no_signature(name: &str) -> Option<Error> {
    let is_there = |above: &&str| Path::new(above).join(SIGNATURE).exists();
    if SIGNATURES.iter().any(is_there) {
        return None;
    }
    let error = Error::new(
        ErrorKind::Unavailable,
        format!(
            "the credential {name} is sealed to signed PCRs, and there is no signature of them"
        ),
    );
    Some(error.with_advice(format!(
        "a unified kernel image that was signed brings it as /run/{SIGNATURE}: see what was booted"
    )))
}
