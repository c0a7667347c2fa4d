//! The contract, as the suite that every backend runs.

mod support;

use std::sync::Arc;

use keyhaul_conformance::Handles;
use support::Host;

#[tokio::test]
async fn the_encrypted_store_keeps_the_contract() {
    let host = Host::new();
    keyhaul_conformance::run(async || Handles::same(Arc::new(host.store()))).await;
}

#[tokio::test]
async fn the_clear_text_store_keeps_the_contract() {
    let host = Host::new();
    keyhaul_conformance::run(async || Handles::same(Arc::new(host.plain()))).await;
}
