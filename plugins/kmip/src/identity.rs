//! Whom to believe over TLS, and who we are there.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use keyhaul_tls::{certificates, invalid, key, key_text, provider, read};
use rustls::client::Resumption;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};

use crate::config::Settings;

/// Reads the files that the settings name, anew for each connection: certificates live for days,
/// programs for months.
#[derive(Debug)]
pub(crate) struct Identity {
    authority: PathBuf,
    certificate: PathBuf,
    key: CredentialSource,
    /// A key from a descriptor can be read only once.
    kept: Mutex<Option<Arc<SecretBytes>>>,
}

impl Identity {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            authority: settings.authority.clone(),
            certificate: settings.certificate.clone(),
            key: settings.key.clone(),
            kept: Mutex::default(),
        }
    }

    /// How TLS is spoken now, and as whom. Blocks.
    ///
    /// # Errors
    /// `InvalidConfig` with the option whose file is not there or not what it must be,
    /// `PermissionDenied` where others can read the key.
    pub(crate) fn load(&self) -> Result<ClientConfig> {
        let what = format!("`ca-cert` {}", self.authority.display());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&read(&self.authority, &what)?, &what)? {
            roots.add(certificate).map_err(|error| {
                invalid(&what, "holds a certificate that is no authority's").with_source(error)
            })?;
        }
        let what = format!("`client-cert` {}", self.certificate.display());
        let chain = certificates(&read(&self.certificate, &what)?, &what)?;
        // 1.2 too: KMIP servers live long.
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
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
        Ok(config)
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
