//! Whom to believe, and who we are, where both ends show certificates.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::{certificates, invalid, key, key_text, provider, read};

/// A client with a certificate of its own, as the options `ca-cert`, `client-cert` and `client-key`
/// name its files.
#[derive(Debug)]
pub struct Client {
    authority: PathBuf,
    certificate: PathBuf,
    key: CredentialSource,
    /// A key from a descriptor can be read only once.
    kept: Mutex<Option<Arc<SecretBytes>>>,
}

impl Client {
    /// Reads nothing yet.
    pub fn new(authority: PathBuf, certificate: PathBuf, key: CredentialSource) -> Self {
        Self {
            authority,
            certificate,
            key,
            kept: Mutex::default(),
        }
    }

    /// The files that can change: the authorities', the certificate's, and the key's where it is one.
    pub fn files(&self) -> [Option<PathBuf>; 3] {
        [
            Some(self.authority.clone()),
            Some(self.certificate.clone()),
            self.key.path().ok().flatten(),
        ]
    }

    /// How TLS of one of these versions is spoken now, and our certificate. Blocks.
    ///
    /// # Errors
    /// `InvalidConfig` with the option whose file is not there or not what it must be,
    /// `PermissionDenied` where others can read the key.
    pub fn load(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<(ClientConfig, CertificateDer<'static>)> {
        let roots = self.roots()?;
        let what = format!("`client-cert` {}", self.certificate.display());
        let chain = certificates(&read(&self.certificate, &what)?, &what)?;
        // `certificates` gives at least one.
        let own = chain[0].clone();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "TLS could not be set up").with_source(error)
            })?;
        let mut config = builder
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, self.key()?)
            .map_err(|error| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "`client-cert` and `client-key` do not fit each other",
                )
                .with_advice("see that both are of the same issue: a renewed certificate comes with a key of its own")
                .with_source(error)
            })?;
        // Each connection proves anew that we hold the key.
        config.resumption = Resumption::disabled();
        Ok((config, own))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let what = format!("`ca-cert` {}", self.authority.display());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&read(&self.authority, &what)?, &what)? {
            roots.add(certificate).map_err(|error| {
                invalid(&what, "holds a certificate that is no authority's").with_source(error)
            })?;
        }
        Ok(roots)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        let what = format!("`client-key` {}", self.key);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match &*kept {
            Some(text) => Arc::clone(text),
            None => Arc::new(key_text(&self.key, &what)?),
        };
        if matches!(self.key, CredentialSource::Fd(_)) {
            *kept = Some(Arc::clone(&text));
        }
        key(&text, &what)
    }
}
