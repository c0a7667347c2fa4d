//! The contract, as the suite that every backend runs: bare, and through every layer.

mod support;

use keyhaul_conformance::Handles;
use support::{Hsm, in_own_process, layered};

#[tokio::test]
async fn a_token_keeps_the_contract() {
    if in_own_process("a_token_keeps_the_contract") {
        holds().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_keeps_the_contract_on_many_threads() {
    if in_own_process("a_token_keeps_the_contract_on_many_threads") {
        holds().await;
    }
}

async fn holds() {
    let hsm = Hsm::new("vms");
    let store = hsm.store();
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    let through = keyhaul_conformance::run(async || Handles::same(layered(store.clone()))).await;
    assert!(
        through >= bare && bare > 25,
        "{bare} trials, {through} through layers"
    );
}
