//! The key service as a backend, `keyhaul+https`, and as the hand of those who manage it.
//!
//! [`RemoteFactory`] makes stores for policies: a node's reads, an operator's writes, a manager's
//! names. [`Service`] is everything else that the protocol has: grants, migrations, nodes, the
//! audit. Both take the same options, and no I/O happens before the first request.
//!
//! Values travel sealed, between this process and the server's: what TLS and HTTP libraries hold in
//! their buffers is ciphertext. A store's paths are `SCOPE/NAME`, as in references; anything else is
//! refused before it is sent.

mod call;
mod config;
mod diagnose;
mod error;
mod pool;
mod reading;
mod service;
mod store;
mod tls;
mod wire;
mod writing;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

pub use service::Service;
pub use store::RemoteStore;

/// Makes stores of key services.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoteFactory;

impl StoreFactory for RemoteFactory {
    fn schemes(&self) -> &[&'static str] {
        &[config::SCHEME]
    }

    fn summary(&self) -> &'static str {
        "a key service, which reads for this host what it is granted (keyhaul+https)"
    }

    fn options(&self) -> &[OptionSpec] {
        config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        true
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(RemoteStore::open(config)?))
    }
}
