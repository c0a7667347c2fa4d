//! The contract, over the client against a live server: with a node that reads, an operator that
//! writes and a manager that does the rest, on every kind of store that the service may stand on.

mod handles;
mod manage;
mod service;
mod tombstones;

use std::sync::Arc;
use std::time::Duration;

use keyhaul_conformance::{Fault, FaultStore, Handles, Report};
use keyhaul_core::layers::{self, LayerSettings};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{Capability, ErrorKind, Field, MemoryStore, SecretStore, StoreConfig};
use keyhaul_file::FileStore;
use keyhaul_servers::OpenBao;
use keyhaul_vault::VaultStore;
use service::Live;

/// What is deleted is gone at once.
const AT_ONCE: &str = "0s";
/// What is deleted stays in the store, hidden.
const SOFTLY: &str = "7d";

/// Holds a service over `store` to the contract, bare and under the standard layers, and says what
/// it can do.
async fn keeps_the_contract(store: Arc<dyn SecretStore>, window: &str) -> Capability {
    let live = Live::over(store, window).await;
    let handles = live.handles();
    let bare = keyhaul_conformance::run(async || handles.clone()).await;
    let layered = layered(&handles, &LayerSettings::default());
    let over = keyhaul_conformance::run(async || layered.clone()).await;
    assert_eq!(bare, over, "layers change nothing of what a store can do");
    let mut can = Capability::empty();
    for store in [&handles.reader, &handles.writer, &handles.manager] {
        can |= store.capabilities().await.expect("capabilities").can;
    }
    live.end().await;
    can
}

fn layered(handles: &Handles, settings: &LayerSettings) -> Handles {
    let over = |store: &Arc<dyn SecretStore>| layers::standard(Arc::clone(store), settings, None);
    Handles {
        reader: over(&handles.reader),
        writer: over(&handles.writer),
        manager: over(&handles.manager),
    }
}

fn config(url: &str, options: impl IntoIterator<Item = (&'static str, Value)>) -> StoreConfig {
    let place = "keyhaul.toml:2:1";
    StoreConfig::new("behind", url, Options::at(place, options), place).expect("a store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_encrypted_file_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let identity = format!("file:{}", folder.path().join("identity").display());
    let url = format!("file://{}", folder.path().join("store").display());
    let options = [("identity", identity.into()), ("create", true.into())];
    let store = FileStore::open(&config(&url, options)).expect("opens");
    let own = store.capabilities().await.expect("capabilities").can;
    let can = keeps_the_contract(Arc::new(store), AT_ONCE).await;
    assert_eq!(can, own | Capability::GENERATES_REMOTELY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_store_with_fields() {
    let main = Field::new("value").expect("plain letters");
    let store = MemoryStore::new("behind").with_fields(main);
    let can = keeps_the_contract(Arc::new(store), AT_ONCE).await;
    assert_eq!(can, Capability::all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_store_with_soft_deletion() {
    keeps_the_contract(Arc::new(MemoryStore::new("behind")), SOFTLY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_store_that_can_do_little() {
    let little = Capability::READ | Capability::CREATE | Capability::DELETE | Capability::LIST;
    let store = MemoryStore::new("behind").with_capabilities(little);
    assert_eq!(keeps_the_contract(Arc::new(store), AT_ONCE).await, little);
}

/// The service tells of its store's bad days in kinds that the layers know what to do about: under
/// them, nobody notices. An `Overwrite`, which this store refuses, would be refused by a fault
/// instead where one hit it, since it is never tried again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_store_on_a_bad_day() {
    let can = Capability::all() - Capability::WRITE;
    let memory = MemoryStore::new("behind").with_capabilities(can);
    let bad = [
        Fault::Fail(ErrorKind::Unavailable),
        Fault::LoseAnswer(ErrorKind::Timeout),
        Fault::FailFor(ErrorKind::RateLimited, Duration::from_millis(1)),
        Fault::Delay(Duration::from_millis(5)),
        Fault::LoseAnswer(ErrorKind::Unavailable),
        Fault::Half(vec![0], ErrorKind::Unavailable),
    ];
    // Each eleventh request has a fault, for as long as the suite can last.
    let faults = (0..100_000).map(|index| match index % 11 {
        10 => bad[(index / 11) % bad.len()].clone(),
        _ => Fault::None,
    });
    let store = FaultStore::sparing_overwrites(Arc::new(memory), faults);
    let live = Live::over(store.clone(), AT_ONCE).await;
    let handles = live.handles();

    let mut settings = LayerSettings::default();
    settings.retries = 7;
    let layered = layered(&handles, &settings);
    keyhaul_conformance::run(async || layered.clone()).await;
    assert!(store.seen().len() > 11 * bad.len(), "every fault came");
    // The control: without layers, the bad day is seen.
    let report: Report = keyhaul_conformance::report(handles).await;
    assert!(!report.is_ok());
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_openbao() {
    let (_server, store) = openbao();
    let lacks = Capability::EXPIRY | Capability::IDEMPOTENT;
    let can = keeps_the_contract(store, SOFTLY).await;
    assert_eq!(can, Capability::all() - lacks);
}

/// A mount of version 2 on a server of its own, which is there as long as it is held.
fn openbao() -> (OpenBao, Arc<dyn SecretStore>) {
    let server = OpenBao::dev();
    server.kv("site", 2);
    let token = server.folder().join("client-token");
    std::fs::write(&token, server.root_token()).expect("written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token, private).expect("private");
    let source = format!("file:{}", token.display());
    let auth = [("method", "token"), ("token", &source)];
    let auth = Options::at("keyhaul.toml:3:1", auth);
    let url = format!("vault+{}/site", server.address());
    let store = VaultStore::open(&config(&url, [("auth", auth.into())])).expect("opens");
    (server, Arc::new(store))
}
