//! What tests of layers have in common.

use std::sync::Arc;

use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::{MemoryStore, PutOptions, SecretBytes, SecretPath, SecretStore};

/// The value of every secret here, in any of which no output may show it.
pub const CANARY: &[u8] = b"canary-7c1f0e55aa9d";

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
