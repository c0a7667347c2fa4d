//! keyhaul's stores in the desktop's keyring and in the kernel's.
//!
//! # `keyring+secret-service`
//!
//! The service behind GNOME's, KDE's and KeePassXC's keyrings, over D-Bus. An item has the
//! attributes `service` (`keyhaul`, or what the policy says) and `username` (the path), as
//! `secret-tool` and the keyring libraries of other languages write and look them up. An item with
//! more attributes than these is the same secret.
//!
//! # `keyring+kernel`
//!
//! Keys of type `user` in a keyring of the kernel, described `keyhaul:PATH`, as `keyctl` reads and
//! writes them. They live in the kernel's memory: **a reboot forgets them**.
//!
//! # Both
//!
//! Neither keeps versions, and neither can hold a write against a version. A secret put there by
//! another program is one of keyhaul's, and the reverse: that is what these stores are for.
//!
//! Why not the keyring family of crates? They block, run a runtime of their own that a prompt
//! nobody answers keeps from ending, and hide what operation needs to know: whether a collection
//! is locked, when a key expires, which keyring it is in.

mod config;
mod kernel;
mod service;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

use crate::config::Settings;

pub use kernel::KernelStore;
pub use service::SecretServiceStore;

/// Makes keyring stores: `keyring+secret-service` and `keyring+kernel`.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyringFactory;

impl StoreFactory for KeyringFactory {
    fn schemes(&self) -> &[&'static str] {
        &[config::SECRET_SERVICE, config::KERNEL]
    }

    fn summary(&self) -> &'static str {
        "keyrings on this host: the desktop's (keyring+secret-service), or the kernel's until reboot (keyring+kernel)"
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
        Ok(match Settings::new(config)? {
            Settings::Service(settings) => Arc::new(SecretServiceStore::new(config, settings)),
            Settings::Kernel(settings) => Arc::new(KernelStore::new(config, settings)),
        })
    }
}
