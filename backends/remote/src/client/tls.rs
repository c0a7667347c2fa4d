//! Whom to believe over TLS, and who we are there.
//!
//! Certificates live for days, programs for months: the files are looked at again now and then, and
//! what has changed is read. Connections that stand keep what they were made with; the next one is
//! made with the new.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use keyhaul_tls::{certificates, invalid, key, key_text, provider, read};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::Settings;

/// How TLS is spoken, and as whom.
#[derive(Debug)]
pub(super) struct Identity {
    /// For connections.
    pub(super) tls: Arc<ClientConfig>,
    /// The SHA-256 of our certificate, which values are bound to.
    pub(super) certificate: [u8; 32],
    /// What the files looked like before they were read.
    stamp: Stamp,
}

/// Reads identities from the files that the settings name.
#[derive(Debug)]
pub(super) struct Source {
    authority: PathBuf,
    certificate: PathBuf,
    key: CredentialSource,
    /// A key from a descriptor can be read only once.
    kept: Mutex<Option<Arc<SecretBytes>>>,
}

impl Source {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            authority: settings.authority.clone(),
            certificate: settings.certificate.clone(),
            key: settings.key.clone(),
            kept: Mutex::default(),
        }
    }

    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// `InvalidConfig` with the option whose file is not there or not what it must be,
    /// `PermissionDenied` where others can read the key.
    pub(super) fn load(&self) -> Result<Identity> {
        // Before the files: what changes while they are read is read again.
        let stamp = self.stamp();
        let what = format!("`ca-cert` {}", self.authority.display());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&read(&self.authority, &what)?, &what)? {
            roots.add(certificate).map_err(|error| {
                invalid(&what, "holds a certificate that is no authority's").with_source(error)
            })?;
        }
        let what = format!("`client-cert` {}", self.certificate.display());
        let chain = certificates(&read(&self.certificate, &what)?, &what)?;
        let mut hash = [0; 32];
        // `certificates` gives at least one.
        hash.copy_from_slice(digest(&SHA256, &chain[0]).as_ref());
        let tls = assemble(roots, chain, self.key()?)?;
        Ok(Identity {
            tls: Arc::new(tls),
            certificate: hash,
            stamp,
        })
    }

    /// Whether the files are no longer those that `identity` was read from. Blocks.
    pub(super) fn has_changed_since(&self, identity: &Identity) -> bool {
        self.stamp() != identity.stamp
    }

    fn stamp(&self) -> Stamp {
        let key = self.key.path().ok().flatten();
        let paths = [Some(&self.authority), Some(&self.certificate), key.as_ref()];
        Stamp(paths.map(|path| path.and_then(|path| Look::at(path))))
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

fn assemble(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "TLS could not be set up").with_source(error)
        })?;
    let mut config = builder
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| {
            Error::new(
                ErrorKind::InvalidConfig,
                "`client-cert` and `client-key` do not fit each other",
            )
            .with_advice("see that both are of the same issue: a renewed certificate comes with a key of its own")
            .with_source(error)
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection proves anew that we hold the key.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What three files look like from outside; none for one that is not there, or is no file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([Option<Look>; 3]);

/// What a file looks like from outside.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
}
