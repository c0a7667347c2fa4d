//! The contract over a policy as one store: what a service serves.

#[path = "conformance/handles.rs"]
#[expect(
    dead_code,
    reason = "the handles of a live service are for the other suite"
)]
mod handles;

use std::sync::Arc;

use handles::Renamed;
use keyhaul_conformance::{Handles, run};
use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::resolver::Routed;
use keyhaul_core::{
    Field, MemoryStore, Policy, Registry, Resolver, Result, SecretStore, StoreConfig, StoreFactory,
};

#[derive(Debug)]
struct Memory;

impl StoreFactory for Memory {
    fn schemes(&self) -> &[&'static str] {
        &["memory"]
    }
    fn summary(&self) -> &'static str {
        "stores in this process's memory"
    }
    fn options(&self) -> &[OptionSpec] {
        &[]
    }
    fn is_key_service(&self) -> bool {
        false
    }
    fn limits(&self) -> Option<Limits> {
        None
    }
    fn alias(&self) -> Option<&'static str> {
        None
    }
    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        let store = MemoryStore::new(&config.name);
        Ok(match config.url.host_str() {
            Some("maps") => Arc::new(store.with_fields(Field::new("value")?)),
            _ => Arc::new(store),
        })
    }
}

async fn keeps_the_contract(store: &str, routes: &str) {
    let text = format!("version = 1\n[stores.main]\nurl = \"memory://{store}\"\n{routes}");
    let policy = Policy::parse("p.toml", &text).expect(routes);
    let resolver = Resolver::new(policy, Registry::new().with(Memory), None).expect("sound");
    let routed = Renamed(Arc::new(Routed::new(Arc::new(resolver))));
    let routed: Arc<dyn SecretStore> = Arc::new(routed);
    let trials = run(async || Handles::same(routed.clone())).await;
    assert!(trials >= 50, "only {trials} trials ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_route_passes_the_stores_pages_on() {
    let route = "[[routes]]\nmatch = \"**\"\nstore = \"main\"\npath = \"vms/{scope}/{name}\"\n";
    keeps_the_contract("plain", route).await;
    keeps_the_contract("maps", route).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_routes_and_encodings_make_pages_of_their_own() {
    keeps_the_contract(
        "plain",
        "[[routes]]\nmatch = \"x*0/**\"\nstore = \"main\"\nencoding = \"hex\"\n[[routes]]\nmatch = \"**\"\nstore = \"main\"\nencoding = \"base64\"\n",
    )
    .await;
}
