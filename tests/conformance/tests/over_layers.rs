//! The suite over each layer by itself, and over all of them.

use std::sync::Arc;
use std::time::Duration;

use keyhaul_conformance::{Handles, run};
use keyhaul_core::layers::{
    self, Audit, Context, Deadline, JsonLinesSink, Layer, LayerSettings, Retry, Timeout,
};
use keyhaul_core::{Capability, MemoryStore, SecretStore};

fn memory() -> Arc<dyn SecretStore> {
    Arc::new(MemoryStore::new("layered"))
}

async fn keeps_the_contract(store: Arc<dyn SecretStore>) {
    let trials = run(async || Handles::same(store.clone())).await;
    assert!(trials >= 50, "only {trials} trials ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn context() {
    keeps_the_contract(Context.over(memory())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout() {
    keeps_the_contract(Timeout::new(Duration::from_secs(10)).over(memory())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry() {
    keeps_the_contract(Retry::new(3).over(memory())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline() {
    keeps_the_contract(Deadline::new(Duration::from_secs(30)).over(memory())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit() {
    let folder = tempfile::tempdir().expect("folder");
    let sink = JsonLinesSink::open(folder.path().join("audit")).expect("opened");
    keeps_the_contract(Audit::new(Arc::new(sink)).over(memory())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them() {
    let folder = tempfile::tempdir().expect("folder");
    let sink = JsonLinesSink::open(folder.path().join("audit")).expect("opened");
    let settings = LayerSettings::default();
    keeps_the_contract(layers::standard(memory(), &settings, Some(Arc::new(sink)))).await;
}

/// A layer must not do for a store what the store cannot do itself.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_around_a_store_that_can_do_little() {
    for can in [
        Capability::empty(),
        Capability::READ | Capability::CREATE | Capability::UPDATE,
        Capability::READ | Capability::WRITE | Capability::LIST,
    ] {
        let store = Arc::new(MemoryStore::new("little").with_capabilities(can));
        let store = layers::standard(store, &LayerSettings::default(), None);
        assert!(run(async || Handles::same(store.clone())).await >= 10);
    }
}
