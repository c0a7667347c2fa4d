//! The contract, as the suite that every backend runs: bare, through every layer, and on many
//! threads.

mod support;

use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::SecretStore;
use support::{layered, store_of};

async fn holds(store: Arc<dyn SecretStore>) {
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(bare > 25, "only {bare} trials");
}

#[tokio::test]
async fn a_kmip_server_keeps_the_contract() {
    holds(store_of("alice")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kmip_server_keeps_the_contract_on_many_threads() {
    holds(store_of("bob")).await;
}

#[tokio::test]
async fn a_kmip_server_keeps_the_contract_through_every_layer() {
    holds(layered(store_of("carol"))).await;
}
