//! The contract, as the suite that every backend runs: bare, on many threads, and through every layer,
//! there on a server that gives a name to one object only, as the standard says.

use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::SecretStore;
use keyhaul_servers::{KmipRule, PyKmip};

use crate::support::{layered, store};

/// Each on a server of its own: PyKMIP looks at all of its objects to find one.
async fn holds(server: PyKmip, layer: impl FnOnce(Arc<dyn SecretStore>) -> Arc<dyn SecretStore>) {
    let files = server.client("alice");
    let store = layer(store(&server.url(), &server.ca_path(), &files, &[]));
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(bare > 25, "only {bare} trials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kmip_server_keeps_the_contract() {
    holds(PyKmip::start(), |store| store).await;
}

#[tokio::test]
async fn a_kmip_server_keeps_the_contract_through_every_layer() {
    holds(PyKmip::strict(&[KmipRule::UniqueNames]), layered).await;
}
