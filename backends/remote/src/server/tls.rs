//! TLS: whom the server believes, and who it is.

use std::path::Path;
use std::sync::Arc;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::policy::check_trust;
use keyhaul_core::{Error, ErrorKind, Result};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::config::TlsFiles;
use super::lists::Lists;

/// Bytes that a reader of PEM takes.
const MAX_PEM: u64 = 16 * 1024 * 1024;

/// TLS as one generation of the configuration has it.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    lists: Lists,
}

impl Tls {
    /// Reads all files. Blocks.
    ///
    /// # Errors
    /// `InvalidConfig` or `PermissionDenied` with the file.
    pub(super) fn load(files: &TlsFiles) -> Result<Self> {
        let provider = Arc::new(provider());
        let (verifier, lists) = verifier(files, Arc::clone(&provider))?;
        let what = what("certificate", &files.certificate);
        let chain = certificates(&files.certificate, &what)?;
        let key = key(&files.key)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "TLS could not be set up").with_source(error)
            })?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain, key)
            .map_err(|error| {
                let rule = "and its `key` do not fit each other";
                invalid(&what, rule).with_source(error)
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Every connection shows its certificate anew: nothing outlives a revocation.
        config.send_tls13_tickets = 0;
        lists.warn();
        Ok(Self {
            config: Arc::new(config),
            verifier,
            lists,
        })
    }

    /// Tells the log of revocation lists that should have been replaced.
    pub(super) fn warn(&self) {
        self.lists.warn();
    }

    /// Judges a chain as at a handshake now: revoked and expired ones fail.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((certificate, others)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier
            .verify_client_cert(certificate, others, UnixTime::now())
            .map(|_| ())
    }
}

/// aws-lc-rs, with the hybrid post-quantum key exchange first: who records the traffic today does
/// not read it with tomorrow's machine.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

fn verifier(
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, Lists)> {
    let authorities = what("client-ca", &files.client_ca);
    // Who can write it can be any node, any manager and any operator.
    check_trust("`client-ca`", &files.client_ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca, &authorities)? {
        roots.add(certificate).map_err(|error| {
            invalid(&authorities, "holds a certificate that is none").with_source(error)
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let mut what = authorities;
    let mut ends = Lists::default();
    if let Some(path) = &files.crl {
        what = self::what("crl", path);
        // Who can write it can take a revocation back.
        check_trust("`crl`", path)?;
        let pem = read(path, &what)?;
        let lists = CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| invalid(&what, "is no PEM").with_source(error))?;
        if lists.is_empty() {
            return Err(invalid(&what, "holds no revocation list in PEM"));
        }
        ends = Lists::of(path, &lists);
        builder = builder.with_crls(lists);
    }
    // A list that is past its `nextUpdate` is used all the same, as is the default of rustls: what
    // it revokes stays revoked, and no host is locked out because a timer failed.
    let verifier = builder
        .build()
        .map_err(|error| invalid(&what, "cannot be used").with_source(error))?;
    Ok((verifier, ends))
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(&read(path, what)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(what, "is no PEM").with_source(error))?;
    if certificates.is_empty() {
        return Err(invalid(what, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let what = what("key", path);
    let text = CredentialSource::File(path.to_owned()).read();
    let text = text.map_err(|error| {
        let refused = Error::new(error.kind(), format!("{what}: {}", error.message()));
        match error.advice() {
            Some(advice) => refused.with_advice(advice.to_owned()),
            None => refused,
        }
    })?;
    // The parser's words stay out: they are about a key.
    PrivateKeyDer::from_pem_slice(text.expose())
        .map_err(|_| invalid(&what, "holds no private key in PEM"))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    let unreadable = |error| invalid(what, "cannot be read").with_source(error);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_PEM {
        return Err(invalid(what, "is not a file of at most 16 MiB"));
    }
    std::fs::read(path).map_err(unreadable)
}

fn what(option: &str, path: &Path) -> String {
    format!("`{option}` {}", path.display())
}

fn invalid(what: &str, rule: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{what} {rule}"))
}
