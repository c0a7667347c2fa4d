//! keyhaul's stores in Vault and OpenBao.
//!
//! # Values
//!
//! A secret there is a map of fields. A value is one of them, or the whole map for the field `*`;
//! writing a field keeps its siblings. From the server's answer to the caller a value is never in a
//! plain `String` or a JSON tree: `kv::fields` finds it where it lies and unescapes it into locked
//! memory, and builds requests there. Bytes that are no text are base64, with a marker beside them in the
//! same version.
//!
//! # Engines
//!
//! `kv` is KV versions 1 and 2, `lease` is any engine that makes its secrets at each reading. Which
//! KV version is mounted is declared, or asked of the server once.
//!
//! # The wire
//!
//! One `http::Http` per configured store carries all its requests: `send` gives the answer of any
//! status, and `Answer::refusal` the error that the status stands for. Time limits, redirects, proxies
//! and TLS are the wire's; tokens are given to it. vaultrs' endpoint types describe requests without
//! secrets; docs/adr/0012-vault-client.md says where the line runs.

mod auth;
mod config;
mod environment;
mod error;
#[cfg(test)]
mod hostile;
mod http;
mod kv;
mod lease;
mod policy;
mod store;
mod wire;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

pub use auth::{Login, Question, login, logout, next_request_spends, question};
pub use policy::{Access, Covered, least_policy};
pub use store::VaultStore;

/// Makes stores in Vault and OpenBao: `vault+https`, `vault+http`, `vault+unix`, and `vault`, whose
/// address is the environment's.
#[derive(Clone, Copy, Debug, Default)]
pub struct VaultFactory;

impl StoreFactory for VaultFactory {
    fn schemes(&self) -> &[&'static str] {
        &[
            config::ENVIRONMENT,
            config::HTTP,
            config::HTTPS,
            config::UNIX,
        ]
    }

    fn summary(&self) -> &'static str {
        "Vault and OpenBao: key-value engines, and credentials on a lease"
    }

    fn options(&self) -> &[OptionSpec] {
        &config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        Some(Limits::new(store::AT_ONCE, None))
    }

    fn alias(&self) -> Option<&'static str> {
        Some("vault")
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(VaultStore::open(config)?))
    }
}
