//! What tests of layers have in common.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::time::Duration;

use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::{
    GetOptions, MemoryStore, PutMode, PutOptions, Request, SecretBytes, SecretPath, SecretStore,
};
use tokio::time::Instant;

/// The value of every secret here. No output may show it.
pub const CANARY: &[u8] = b"canary-7c1f0e55aa9d";

pub const SECOND: Duration = Duration::from_secs(1);

pub fn get() -> GetOptions {
    GetOptions::default()
}

pub fn create() -> PutOptions {
    PutOptions::default().mode(PutMode::Create)
}

pub fn until(deadline: Instant) -> Request {
    Request::default().deadline(Some(deadline.into_std()))
}

pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a legal path")
}

pub fn value() -> SecretBytes {
    SecretBytes::copy_from(CANARY)
}

/// A store named `site` with secrets `a`, `b` and `c`, and these faults to come.
pub async fn faulty(faults: impl IntoIterator<Item = Fault>) -> Arc<FaultStore> {
    let store = MemoryStore::new("site");
    for name in ["a", "b", "c"] {
        let (path, options) = (path(name), PutOptions::default());
        store.put(&path, &value(), &options).await.expect("seeded");
    }
    FaultStore::new(Arc::new(store), faults)
}
