//! TLS: whom the server believes, and who it is.

use std::path::Path;
use std::sync::Arc;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::policy::check_trust;
use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_tls::{certificates, invalid, key, key_text, provider};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
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
        let chain = certificates(&read(&files.certificate, &what)?, &what)?;
        let source = CredentialSource::File(files.key.clone());
        let which = self::what("key", &files.key);
        let key = key(&key_text(&source, &which)?, &which)?;
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

fn verifier(
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, Lists)> {
    let authorities = what("client-ca", &files.client_ca);
    // Who can write it can be any node, any manager and any operator.
    check_trust("`client-ca`", &files.client_ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&read(&files.client_ca, &authorities)?, &authorities)? {
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
