//! Certificates and private keys in PEM. `what` a text is stands first in each error: the setting
//! that names it, and its path.

use std::path::Path;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file of certificates, which are no secret. Blocks.
///
/// # Errors
/// `InvalidConfig` where it cannot be read.
pub fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| invalid(what, "cannot be read").with_source(error))
}

/// The certificates in a text, at least one.
///
/// # Errors
/// `InvalidConfig` where there is none, or the text is no PEM.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(what, "is no PEM").with_source(error))?;
    if certificates.is_empty() {
        return Err(invalid(what, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// The text of a private key, from where it is kept. Blocks.
///
/// # Errors
/// As [`CredentialSource::read`], with `what` before it.
pub fn key_text(source: &CredentialSource, what: &str) -> Result<SecretBytes> {
    source.read().map_err(|error| {
        let refused = Error::new(error.kind(), format!("{what}: {}", error.message()));
        match error.advice() {
            Some(advice) => refused.with_advice(advice.to_owned()),
            None => refused,
        }
    })
}

/// The private key in a text.
///
/// # Errors
/// `InvalidConfig` where there is none.
pub fn key(text: &SecretBytes, what: &str) -> Result<PrivateKeyDer<'static>> {
    // The parser's words stay out: they are about a key.
    PrivateKeyDer::from_pem_slice(text.expose())
        .map_err(|_| invalid(what, "holds no private key in PEM"))
}

/// That what is configured breaks a rule.
pub fn invalid(what: &str, rule: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{what} {rule}"))
}
