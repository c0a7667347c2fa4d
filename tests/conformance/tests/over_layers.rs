//! The suite over each layer by itself, and over all of them.

use std::sync::Arc;
use std::time::Duration;

use keyhaul_conformance::{Handles, run};
use keyhaul_core::layers::{
    self, Audit, Breaker, BreakerSettings, Cache, CacheSettings, Context, Deadline, JsonLinesSink,
    Layer, LayerSettings, Retry, Throttle, Timeout,
};
use keyhaul_core::registry::Limits;
use keyhaul_core::{Capability, Field, MemoryStore, SecretStore};

fn memory() -> Arc<dyn SecretStore> {
    let main = Field::new("value").expect("plain letters");
    Arc::new(MemoryStore::new("layered").with_fields(main))
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
async fn throttle() {
    for limits in [Limits::new(1, None), Limits::new(8, Some(1_000_000))] {
        keeps_the_contract(Throttle::new(limits).over(memory())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn breaker() {
    keeps_the_contract(Breaker::new(BreakerSettings::default()).over(memory())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cache() {
    let ttl = Duration::from_secs(300);
    for settings in [
        CacheSettings::new(ttl),
        CacheSettings::new(ttl).bounded(2, 100),
    ] {
        keeps_the_contract(Cache::over(settings, memory())).await;
    }
}

fn everything() -> LayerSettings {
    let mut settings = LayerSettings::default();
    settings.limits = Some(Limits::new(8, Some(1_000_000)));
    settings.breaker = Some(BreakerSettings::default());
    settings.cache = Some(CacheSettings::new(Duration::from_secs(300)));
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them() {
    let folder = tempfile::tempdir().expect("folder");
    let sink = JsonLinesSink::open(folder.path().join("audit")).expect("opened");
    let settings = everything();
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
        let store = layers::standard(store, &everything(), None);
        assert!(run(async || Handles::same(store.clone())).await >= 10);
    }
}
