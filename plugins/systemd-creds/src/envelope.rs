//! The one thing that the store looks at in an encrypted credential itself: what it is sealed to.
//!
//! A credential is Base64, and begins with the 16 bytes of an id that says so.

use base64ct::{Base64, Encoding as _};
use keyhaul_core::{Error, ErrorKind, Result};

/// The id of systemd's fixed key of no length, `CRED_AES256_GCM_BY_NULL`.
const NO_KEY: [u8; 16] = [
    0x05, 0x84, 0x69, 0xda, 0xf6, 0xf5, 0x43, 0x24, 0x80, 0x05, 0x49, 0xda, 0x0f, 0x8e, 0xa2, 0xfb,
];
/// `CRED_AES256_GCM_BY_HOST`.
const HOST: [u8; 16] = [
    0x5a, 0x1c, 0x6a, 0x86, 0xdf, 0x9d, 0x40, 0x96, 0xb1, 0xd5, 0xa6, 0x5e, 0x08, 0x62, 0xf1, 0x9a,
];
/// `CRED_AES256_GCM_BY_TPM2_HMAC`.
const TPM2: [u8; 16] = [
    0x0c, 0x7c, 0xc0, 0x7b, 0x11, 0x76, 0x45, 0x91, 0x9c, 0x4b, 0x0b, 0xea, 0x08, 0xbc, 0x20, 0xfe,
];
/// `CRED_AES256_GCM_BY_HOST_AND_TPM2_HMAC`.
const HOST_AND_TPM2: [u8; 16] = [
    0x93, 0xa8, 0x94, 0x09, 0x48, 0x74, 0x44, 0x90, 0x90, 0xca, 0xf2, 0xfc, 0x93, 0xca, 0xb5, 0x53,
];

/// What a credential is sealed to. Newer versions of systemd know more than these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SealedTo {
    Host,
    HostAndTpm2,
    Other,
    Tpm2,
}

impl SealedTo {
    pub(crate) fn needs_host_key(self) -> bool {
        matches!(self, Self::Host | Self::HostAndTpm2)
    }

    pub(crate) fn needs_tpm2(self) -> bool {
        matches!(self, Self::HostAndTpm2 | Self::Tpm2)
    }
}

/// What a credential is sealed to.
///
/// # Errors
/// `Corrupt` where that is no key, and for what is no encrypted credential at all.
pub(crate) fn sealed_to(credential: &[u8]) -> Result<SealedTo> {
    let mut start = [0; 24];
    let mut letters = credential.iter().filter(|byte| !byte.is_ascii_whitespace());
    for place in &mut start {
        *place = *letters
            .next()
            .ok_or_else(|| corrupt("is too short for an encrypted credential"))?;
    }
    let mut bytes = [0; 18];
    match Base64::decode(start, &mut bytes) {
        Ok(decoded) if decoded.len() == 18 => {}
        _ => return Err(corrupt("is no encrypted credential")),
    }
    let is = |id: [u8; 16]| bytes.starts_with(&id);
    if is(NO_KEY) {
        return Err(
            corrupt("is encrypted to no key: anybody could have made it").with_advice(
                "encrypt it anew with --with-key=host, or set the secret through keyhaul",
            ),
        );
    }
    Ok(if is(HOST) {
        SealedTo::Host
    } else if is(TPM2) {
        SealedTo::Tpm2
    } else if is(HOST_AND_TPM2) {
        SealedTo::HostAndTpm2
    } else {
        SealedTo::Other
    })
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the credential's file {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_under_no_key_is_refused_however_it_is_broken_into_lines() {
        // As systemd-creds 252 began them, with --with-key=host and --with-key=tpm2-absent.
        let host = sealed_to(b"Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAADW");
        assert_eq!(host.expect("the host's key"), SealedTo::Host);
        for none in [
            "BYRp2vb1QySABUnaD46i+yAAAAABAAAADAAAABAAAADT",
            "BYRp\n2vb1 QySA\tBUnaD46i+yAA\r\nAAABAAAADAAAABAAAADT",
        ] {
            let error = sealed_to(none.as_bytes()).expect_err(none);
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.message().contains("no key"), "{error}");
        }
    }

    #[test]
    fn what_is_no_credential_is_corrupt() {
        for text in [
            "",
            "short",
            "a passphrase in the clear!",
            "====\u{f6}===================",
        ] {
            let error = sealed_to(text.as_bytes()).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(!error.to_string().contains("passphrase"), "{error}");
        }
    }
}
