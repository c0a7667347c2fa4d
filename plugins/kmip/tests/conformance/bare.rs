//! The contract, as the suite that every backend runs: bare, on many threads, and through every layer.

use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::SecretStore;
use keyhaul_servers::PyKmip;

use crate::support::{layered, store};

/// Each on a server of its own: PyKMIP looks at all of its objects to find one.
async fn holds(layer: impl FnOnce(Arc<dyn SecretStore>) -> Arc<dyn SecretStore>) {
    let server = PyKmip::start();
    let files = server.client("alice");
    let store = layer(store(&server.url(), &server.ca_path(), &files, &[]));
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(bare > 25, "only {bare} trials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kmip_server_keeps_the_contract() {
    holds(|store| store).await;
}

#[tokio::test]
async fn a_kmip_server_keeps_the_contract_through_every_layer() {
    holds(layered).await;
}
