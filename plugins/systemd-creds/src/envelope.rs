//! The one thing that the store looks at in an encrypted credential itself: what it is sealed to.
//!
//! A credential is Base64, and begins with the 16 bytes of an id that says so.

use base64ct::{Base64, Encoding as _};
use keyhaul_core::{Error, ErrorKind, Result};

/// The id of systemd's fixed key of no length, `CRED_AES256_GCM_BY_NULL`.
const NO_KEY: u128 = 0x058469da_f6f54324_800549da_0f8ea2fb;

/// What a credential needs to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedTo {
    pub(crate) host_key: bool,
    pub(crate) tpm2: bool,
    /// A signature of the TPM2's state, and not that state alone.
    pub(crate) signature: bool,
    /// Whether it is one of those below. Of others it may be anything, so both keys are needed.
    pub(crate) known: bool,
}

impl SealedTo {
    const HOST: Self = Self {
        host_key: true,
        tpm2: false,
        signature: false,
        known: true,
    };
    const TPM2: Self = Self {
        host_key: false,
        tpm2: true,
        ..Self::HOST
    };
    const TPM2_SIGNED: Self = Self {
        signature: true,
        ..Self::TPM2
    };
    const HOST_AND_TPM2: Self = Self {
        tpm2: true,
        ..Self::HOST
    };
    const HOST_AND_TPM2_SIGNED: Self = Self {
        signature: true,
        ..Self::HOST_AND_TPM2
    };
    const UNKNOWN: Self = Self {
        known: false,
        ..Self::HOST_AND_TPM2
    };
}

/// The ids that systemd knows, each by its name there without `CRED_AES256_GCM_BY_`. The scoped ones
/// are a user's own, from version 256 on.
const KNOWN: [(u128, SealedTo); 8] = [
    // HOST
    (0x5a1c6a86_df9d4096_b1d5a65e_0862f19a, SealedTo::HOST),
    // HOST_SCOPED
    (0x55b9ed1d_38594d43_a8319d2e_bb332ac6, SealedTo::HOST),
    // TPM2_HMAC
    (0x0c7cc07b_11764591_9c4b0bea_08bc20fe, SealedTo::TPM2),
    // TPM2_HMAC_WITH_PK
    (0xfaf7eb93_41e3412c_a1a436f9_5a29362f, SealedTo::TPM2_SIGNED),
    // HOST_AND_TPM2_HMAC
    (
        0x93a89409_48744490_90caf2fc_93cab553,
        SealedTo::HOST_AND_TPM2,
    ),
    // HOST_AND_TPM2_HMAC_SCOPED
    (
        0xef4ac136_79a9480e_a7db6889_7f9f165d,
        SealedTo::HOST_AND_TPM2,
    ),
    // HOST_AND_TPM2_HMAC_WITH_PK
    (
        0xaf4950a8_49134eb1_a7384630_4ff30c05,
        SealedTo::HOST_AND_TPM2_SIGNED,
    ),
    // HOST_AND_TPM2_HMAC_WITH_PK_SCOPED
    (
        0xadbc4ca3_efb64201_ba881b6f_2e4095ea,
        SealedTo::HOST_AND_TPM2_SIGNED,
    ),
];

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
    if bytes.starts_with(&NO_KEY.to_be_bytes()) {
        return Err(
            corrupt("is encrypted to no key: anybody could have made it").with_advice(
                "encrypt it anew with --with-key=host, or set the secret through keyhaul",
            ),
        );
    }
    let known = KNOWN
        .iter()
        .find(|(id, _)| bytes.starts_with(&id.to_be_bytes()));
    Ok(known.map_or(SealedTo::UNKNOWN, |(_, sealed_to)| *sealed_to))
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
        assert_eq!(host.expect("the host's key"), SealedTo::HOST);
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
