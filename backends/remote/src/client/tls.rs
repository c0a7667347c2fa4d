//! Whom to believe over TLS, and who we are there.
//!
//! Certificates live for days, programs for months: the files are looked at again now and then, and
//! what has changed is read. Connections that stand keep what they were made with; the next one is
//! made with the new.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use keyhaul_core::Result;
use keyhaul_tls::Client;
use rustls::ClientConfig;
use rustls::version::TLS13;

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
pub(super) struct Source(Client);

impl Source {
    pub(super) fn new(settings: &Settings) -> Self {
        Self(Client::new(
            settings.authority.clone(),
            settings.certificate.clone(),
            settings.key.clone(),
        ))
    }

    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// As [`Client::load`].
    pub(super) fn load(&self) -> Result<Identity> {
        // Before the files: what changes while they are read is read again.
        let stamp = self.stamp();
        let (mut tls, own) = self.0.load(&[&TLS13])?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let mut certificate = [0; 32];
        certificate.copy_from_slice(digest(&SHA256, &own).as_ref());
        Ok(Identity {
            tls: Arc::new(tls),
            certificate,
            stamp,
        })
    }

    /// Whether the files are no longer those that `identity` was read from. Blocks.
    pub(super) fn has_changed_since(&self, identity: &Identity) -> bool {
        self.stamp() != identity.stamp
    }

    fn stamp(&self) -> Stamp {
        Stamp(self.0.files().map(|path| Look::at(&path?)))
    }
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
