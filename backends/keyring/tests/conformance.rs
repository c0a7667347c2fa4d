//! The contract, as the suite that every backend runs: bare, and through every layer.

mod support;

use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::SecretStore;
use keyhaul_servers::SecretService;
use support::{in_own_session, layered, open, text};

async fn holds(store: Arc<dyn SecretStore>) {
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    let through = keyhaul_conformance::run(async || Handles::same(layered(store.clone()))).await;
    // Layers can add trials, as those of idempotency, and take none away.
    assert!(
        through >= bare && bare > 30,
        "{bare} trials, {through} through layers"
    );
}

async fn service_holds(session: &str) {
    let service = SecretService::start();
    let options = [
        ("bus", text(&service.address())),
        ("session", text(session)),
    ];
    holds(open("keyring+secret-service:", &options)).await;
}

#[tokio::test]
async fn the_secret_service_store_keeps_the_contract() {
    service_holds("dh").await;
}

#[tokio::test]
async fn the_secret_service_store_keeps_the_contract_over_a_plain_session() {
    service_holds("plain").await;
}

#[tokio::test]
async fn a_collection_by_name_keeps_the_contract() {
    let service = SecretService::start();
    let options = [
        ("bus", text(&service.address())),
        ("session", text("plain")),
    ];
    holds(open("keyring+secret-service:/session", &options)).await;
}

#[tokio::test]
async fn the_session_keyring_keeps_the_contract() {
    if in_own_session("the_session_keyring_keeps_the_contract") {
        holds(open("keyring+kernel:session", &[])).await;
    }
}

#[tokio::test]
async fn the_user_keyring_keeps_the_contract() {
    if in_own_session("the_user_keyring_keeps_the_contract") {
        holds(open("keyring+kernel:user", &[])).await;
    }
}

#[tokio::test]
async fn the_persistent_keyring_keeps_the_contract() {
    if in_own_session("the_persistent_keyring_keeps_the_contract") {
        holds(open("keyring+kernel:persistent", &[])).await;
    }
}

/// Threads have keyrings of their own: a store must not depend on the one it began on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kernel_keyring_keeps_the_contract_on_many_threads() {
    if in_own_session("a_kernel_keyring_keeps_the_contract_on_many_threads") {
        holds(open(
            "keyring+kernel:user",
            &[("prefix", text("many threads"))],
        ))
        .await;
    }
}
