//! keyhaul's encrypted file store, and QEMU's clear-text files.
//!
//! # `file`: encrypted
//!
//! One file per secret under a root. A random store key encrypts them; age wraps that key to the
//! host's identity and to recovery recipients kept elsewhere. What lies under the root can sit on
//! NFS or in a backup: without an identity it opens nothing. That is why the identity itself is
//! refused there.
//!
//! ```text
//! ROOT/store.key.age     the store key, an age file: `age -d -i IDENTITY` opens it
//! ROOT/recipients.json   to whom it is wrapped, in clear text, for people
//! ROOT/.lock             writers take it; readers take none
//! ROOT/.tmp-…            a write in progress, or what a killed writer left
//! ROOT/secrets/web01/root-disk.secret
//! ```
//!
//! Each secret's encryption binds its path, version and metadata: a file copied over another, cut
//! short or edited is `Corrupt`, and harms no neighbour. **An older copy of the same file put in its
//! place is not noticed**, nor is a file removed: whoever can write to the root can do both. Names
//! of secrets and, roughly, their lengths can be seen by whoever can list the root.
//!
//! # `file+plain`: clear text
//!
//! `ROOT/SCOPE/NAME`, each file the bare value, as QEMU's own `file=` reads it; deeper folders are
//! `ROOT/SCOPE/FOLDER.d/NAME`. For moving to and from that convention. The one thing that it has no
//! room for is a secret directly in the root that is called like a scope. Whoever reads the disk or a backup reads the secrets.
//!
//! # Both
//!
//! Writes are atomic and durable (temporary file, fsync, rename, fsync of the folders) and exclude
//! each other, across processes. Symbolic links below the root are refused, and so are files and
//! folders that belong to somebody else or that others can get at.
//!
//! Why not a database? One file per secret can be backed up, copied, compared and restored with the
//! tools that every host has, and damage stays where it is.

mod admin;
mod change;
mod config;
mod cursor;
mod encrypted;
mod error;
mod identity;
mod keys;
mod list;
mod lock;
mod names;
mod plain;
mod readers;
mod record;
mod store;
mod temporary;
mod tree;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

pub use admin::{Initialised, Rewrapped, generate_identity, initialise, recipients, rewrap};
pub use store::FileStore;

/// The longest value the stores of this backend take, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

/// Makes file stores: `file` and `file+plain`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileFactory;

impl StoreFactory for FileFactory {
    fn schemes(&self) -> &[&'static str] {
        &[config::ENCRYPTED, config::PLAIN]
    }

    fn summary(&self) -> &'static str {
        "files on this host: encrypted (file), or clear text as QEMU reads it (file+plain)"
    }

    fn options(&self) -> &[OptionSpec] {
        config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(FileStore::open(config)?))
    }
}
