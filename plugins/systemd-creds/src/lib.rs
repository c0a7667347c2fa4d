//! keyhaul's store of credentials encrypted by `systemd-creds`.
//!
//! A secret is a file in one folder, as `systemd-creds encrypt` writes it and as
//! `LoadCredentialEncrypted=` takes it: sealed to this host's key, to its TPM2 where there is one, and
//! to its own name. The file's name, which is the credential's, is the path: letters, digits and
//! `-_.@~+=,` as they are, every other byte as `%XX` (`web01/root` is `web01%2Froot`). So a route
//! with `path = "{scope}.{name}"` gives names as systemd's own are.
//!
//! It protects what lies on a disk or in a backup, as libvirt 12.1 does with the key around its own
//! secrets. On the running host, whoever is root opens everything.
//!
//! # By the program, and not by the format
//!
//! The format is laid out in a comment of systemd's source and nowhere promised; what systemd does
//! promise (systemd.io/CREDENTIALS, systemd-creds(1), and its interface promise for the command
//! line) is the program. It also knows what a reader of the format would have to learn anew: TPM2
//! policies, keys bound to a user, and, from version 256 on, asking a service where the caller is
//! not root. It costs a process for each value, 6 ms on a machine where all of keyhaul's own part
//! takes a tenth of that; [layers] have a cache for whom that is too much. Rejected: the format by
//! hand (a second AES-GCM and a TPM stack, for something that may change), and Varlink's
//! `io.systemd.Credentials` alone (Debian 12 has version 252, without it).
//!
//! What was sealed is opened once before it takes an older value's place: systemd 252 seals what it
//! never opens again, where the PCRs are none or the value is near its limit.
//!
//! The value goes through pipes, never through arguments, environment or a file in the clear; the
//! environment is cleared; each run has a deadline.
//!
//! # What is refused, and what is not claimed
//!
//! - **systemd's own folders** (`/etc/credstore.encrypted` and the like), whichever way leads there:
//!   its services import from them what has the right name, and names are what VMs' definitions say.
//! - A folder or a program that others could exchange: it and all above it are root's or the user's.
//! - **A credential under no key** (`--with-key=null`, in older versions `tpm2-absent`): anybody
//!   could have made it. systemd opens it where there is no TPM2; the store does not.
//! - A file under another's name is refused by systemd itself. Only one that was encrypted with an
//!   empty name opens under any; to make one takes the host's key. **An older copy of the same file
//!   is not noticed.**
//! - No versions, labels or compare-and-set: a file has no room for them. No expiry either: systemd
//!   keeps a credential's end inside the encryption, where `stat` does not reach. One that another
//!   program wrote with `--not-after=` is `NotFound` once it has passed.
//!
//! [layers]: keyhaul_core::layers

mod config;
mod credstore;
mod engine;
mod envelope;
mod error;
mod folder;
mod host;
mod names;
mod program;
mod sealer;
mod store;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

pub use store::SystemdCredsStore;

/// The longest value the store writes, in bytes. systemd's own limit is 1 MiB, and version 252 does
/// not open what it encrypted of that length.
pub const MAX_VALUE: usize = 512 * 1024;

/// How many programs run at the same time.
const PROGRAMS: u32 = 8;

/// Makes stores of encrypted credentials: `systemd-creds`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemdCredsFactory;

impl StoreFactory for SystemdCredsFactory {
    fn schemes(&self) -> &[&'static str] {
        &[config::SCHEME]
    }

    fn summary(&self) -> &'static str {
        "a folder of credentials encrypted by systemd-creds, to this host's key and its TPM2"
    }

    fn options(&self) -> &[OptionSpec] {
        config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        Some(Limits::new(PROGRAMS, None))
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(SystemdCredsStore::open(config)?))
    }
}

keyhaul_plugin_sdk::export_plugin!(SystemdCredsFactory);
