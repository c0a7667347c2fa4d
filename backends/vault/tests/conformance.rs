//! The contract, as the suite that every backend runs, against a real OpenBao.

mod support;

use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::layers::{self, LayerSettings};
use keyhaul_core::{Capability, SecretStore};
use keyhaul_servers::OpenBao;
use keyhaul_vault::VaultStore;
use support::{config_at, fresh, mount, server, store};

/// Holds a store to the contract, bare and under the standard layers, and says what it can do.
async fn keeps_the_contract(store: VaultStore) -> Capability {
    let store: Arc<dyn SecretStore> = Arc::new(store);
    let layered = layers::standard(Arc::clone(&store), &LayerSettings::default(), None);
    let bare = keyhaul_conformance::run(async || Handles::same(Arc::clone(&store))).await;
    let over = keyhaul_conformance::run(async || Handles::same(Arc::clone(&layered))).await;
    assert_eq!(bare, over, "layers change nothing of what a store can do");
    store.capabilities().await.expect("capabilities").can
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_2_keeps_the_contract() {
    let can = keeps_the_contract(store(&mount(2), &[])).await;
    let lacks = Capability::EXPIRY | Capability::IDEMPOTENT | Capability::GENERATES_REMOTELY;
    assert_eq!(can, Capability::all() - lacks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_1_keeps_the_contract() {
    let can = keeps_the_contract(store(&mount(1), &[])).await;
    assert!(!can.intersects(Capability::CREATE | Capability::UPDATE | Capability::VERSIONS));
    assert!(can.contains(Capability::FIELDS | Capability::LIST));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soft_deletion_keeps_the_contract() {
    keeps_the_contract(store(&mount(2), &[("delete", "soft")])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_encoding_keeps_the_contract() {
    let declared = [("encoding", "hex"), ("kv-version", "2"), ("field", "key")];
    keeps_the_contract(store(&mount(2), &declared)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_keeps_the_contract() {
    let namespace = fresh("tenant");
    server().namespace(&namespace);
    let options = serde_json::json!({"type": "kv", "options": {"version": "2"}});
    server().write(&format!("{namespace}/sys/mounts/kv/prod"), &options);
    let ready = || {
        let config = format!("{namespace}/kv/prod/config");
        server()
            .request("GET", &config, server().root_token(), None)
            .status
            == 200
    };
    keyhaul_servers::eventually(
        "the engine is ready",
        std::time::Duration::from_secs(30),
        ready,
    );
    keeps_the_contract(store("kv/prod", &[("namespace", &namespace)])).await;
}

/// Over TLS and HTTP/2, and with raft's limit on what it stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_and_raft_storage_keeps_the_contract() {
    let server = OpenBao::tls();
    server.kv("secret", 2);
    let ca = server.ca_path();
    let ca = ca.to_str().expect("text");
    let config = config_at(&server, server.root_token(), "secret", &[("ca-cert", ca)]);
    keeps_the_contract(VaultStore::open(&config).expect("opens")).await;
}
