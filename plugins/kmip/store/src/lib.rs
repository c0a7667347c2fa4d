//! keyhaul's store on a KMIP server: secret data and symmetric keys, found by name.
//!
//! A secret's path is the **Name** of an object; its value is that of **secret data** (of type Password,
//! where keyhaul registers it) or of a **symmetric key**, as bytes. What other clients of the server
//! put there so is a secret of keyhaul's, and the reverse.
//!
//! # What it does not claim
//!
//! KMIP has no call that creates an object only where there is none of that name, and none that
//! compares and sets. So the store has neither `create` nor `update`, no versions, labels or
//! expiry: a promise that holds only while nobody else writes is none.
//!
//! # How a value is replaced
//!
//! The new object is registered first, the old ones are destroyed after: a crash between leaves
//! both. Which one counts stands beside each (see `turn.rs`): the later one. A server that follows the
//! standard gives a name to one object only: there the new object has a name of its own, is found by
//! what stands beside it, and takes the name over once that is free.
//!
//! Objects are left as they are registered, pre-active: KMIP lets those be read and destroyed. One
//! that somebody activated is revoked before it is destroyed.
//!
//! # Connections
//!
//! - Mutual TLS, 1.3 or 1.2; who asks is the certificate's subject, and the server decides what that
//!   one may. Certificates and key are read anew for each connection.
//! - Connections are kept, as many as `connections` says, each for ten minutes at most, and for one
//!   that is idle. One is used again only after its answer was read to the end, and where nothing
//!   followed it. Where one gives no answer in time, none that was kept is used again.
//! - An answer has at most 1 MiB, which is held against its announced length before any memory is
//!   taken.
//!
//! # Memory
//!
//! Requests and answers with values are in memory that is kept as a secret's, encoded and decoded
//! where they lie. What TLS keeps of them in its own buffers, before it encrypts and after it
//! decrypts, is out of reach: wiping it as it is freed is for the allocator of the program, or of the
//! library that is loaded.

mod config;
mod connection;
mod described;
mod error;
#[cfg(test)]
mod every_way;
mod failure;
mod idle;
mod message;
mod names;
mod objects;
mod operations;
mod pool;
mod reason;
mod register;
mod search;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod ttlv;
mod turn;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

use crate::store::KmipStore;

/// The longest value the store takes, in bytes. Servers can take less, and longer ones of other
/// clients are read up to the limit of an answer.
pub const MAX_VALUE: usize = 64 * 1024;

/// Makes stores on KMIP servers: `kmip`.
#[derive(Clone, Copy, Debug, Default)]
pub struct KmipFactory;

impl StoreFactory for KmipFactory {
    fn schemes(&self) -> &[&'static str] {
        &[config::SCHEME]
    }

    fn summary(&self) -> &'static str {
        "secret data and symmetric keys on a KMIP server"
    }

    fn options(&self) -> &[OptionSpec] {
        config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        Some(Limits::new(config::DEFAULT_CONNECTIONS, None))
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(KmipStore::open(config)?))
    }
}
