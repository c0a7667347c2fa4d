//! Whom to believe over TLS, and who we are there.

use std::path::Path;
use std::sync::Arc;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_tls::{certificates, invalid, key_text, provider, read};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::Tls;

/// The configuration of TLS, for an address that speaks it or, `used` being false, for one that
/// does not: the library wants one all the same.
///
/// # Errors
/// `InvalidConfig` with the setting whose file is not there or not what it must be.
pub(super) async fn config(tls: &Tls, used: bool) -> Result<ClientConfig> {
    if !used {
        return assemble(RootCertStore::empty(), None, true);
    }
    if !tls.verify {
        tracing::warn!(
            "certificates are not verified (skip-verify): whoever is on the way can read and change everything"
        );
    }
    let verify = tls.verify;
    let files = Files {
        ca_cert: tls.ca_cert.clone(),
        ca_bytes: tls.ca_bytes.clone(),
        ca_path: tls.ca_path.clone(),
        client: tls.client.clone(),
    };
    let read = tokio::task::spawn_blocking(move || {
        let roots = if verify {
            files.roots()?
        } else {
            RootCertStore::empty()
        };
        assemble(roots, files.identity()?, verify)
    });
    read.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Internal,
            "reading certificates ended early",
        ))
    })
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn assemble(
    roots: RootCertStore,
    identity: Option<Identity>,
    verify: bool,
) -> Result<ClientConfig> {
    let internal = |error: rustls::Error| {
        Error::new(ErrorKind::Internal, "TLS could not be set up").with_source(error)
    };
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(internal)?;
    let builder = if verify {
        builder.with_root_certificates(roots)
    } else {
        let anyone = Arc::new(Anyone(provider));
        builder.dangerous().with_custom_certificate_verifier(anyone)
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            Error::new(
                ErrorKind::InvalidConfig,
                "`client-cert` (VAULT_CLIENT_CERT) and `client-key` (VAULT_CLIENT_KEY) do not fit each other",
            )
            .with_source(error)
        })?,
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The files that the settings name.
struct Files {
    ca_cert: Option<std::path::PathBuf>,
    ca_bytes: Option<String>,
    ca_path: Option<std::path::PathBuf>,
    client: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

impl Files {
    /// The authorities: the store's own, and the system's only where it has none.
    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        // As Vault's client has it: the file wins over the text, and the text over the folder.
        if let Some(path) = &self.ca_cert {
            let what = format!("`ca-cert` (VAULT_CACERT) {}", path.display());
            add(&mut roots, &read(path, &what)?, &what)?;
        } else if let Some(text) = &self.ca_bytes {
            let what = "`ca-cert-bytes` (VAULT_CACERT_BYTES)";
            add(&mut roots, text.as_bytes(), what)?;
        } else if let Some(folder) = &self.ca_path {
            add_folder(&mut roots, folder)?;
        } else {
            // Single certificates that cannot be read are the system's affair; none at all is ours.
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "this system has no certificates of authorities",
                )
                .with_advice("name the one that signed the server's: `ca-cert` (VAULT_CACERT), or install ca-certificates"));
            }
        }
        Ok(roots)
    }

    fn identity(&self) -> Result<Option<Identity>> {
        let Some((certificate, key)) = &self.client else {
            return Ok(None);
        };
        let what = format!(
            "`client-cert` (VAULT_CLIENT_CERT) {}",
            certificate.display()
        );
        let chain = certificates(&read(certificate, &what)?, &what)?;
        let what = format!("`client-key` (VAULT_CLIENT_KEY) {}", key.display());
        let text = key_text(&CredentialSource::File(key.clone()), &what)?;
        let key = keyhaul_tls::key(&text, &what)?;
        Ok(Some((chain, key)))
    }
}

fn add(roots: &mut RootCertStore, pem: &[u8], what: &str) -> Result<()> {
    for certificate in certificates(pem, what)? {
        roots.add(certificate).map_err(|error| {
            invalid(what, "holds a certificate that is none").with_source(error)
        })?;
    }
    Ok(())
}

/// Adds every certificate in the folder's files; files that hold none are passed over.
fn add_folder(roots: &mut RootCertStore, folder: &Path) -> Result<()> {
    let what = format!("`ca-path` (VAULT_CAPATH) {}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(&what, error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(&what, error))?.path();
        if path.is_file() {
            let pem = std::fs::read(&path).map_err(|error| unreadable(&what, error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
                // Another client's file in the same folder is not our affair.
                let _ = roots.add(certificate);
            }
        }
    }
    if roots.is_empty() {
        return Err(invalid(&what, "holds no certificate in PEM"));
    }
    Ok(())
}

fn unreadable(what: &str, error: std::io::Error) -> Error {
    invalid(what, "cannot be read").with_source(error)
}

/// Believes any certificate, but still holds the server to the key in it.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
