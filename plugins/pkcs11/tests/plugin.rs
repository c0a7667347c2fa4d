//! The store in the library that a policy names: loaded as any plugin is.

#[path = "../../host/tests/support/mod.rs"]
mod host;
mod support;

use std::sync::Arc;

use host::{Folder, built};
use keyhaul_conformance::Handles;
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{ErrorKind, Registry, SecretStore, StoreConfig};
use keyhaul_plugin_host::PluginFactory;
use support::{Hsm, PIN, in_own_process, layered, text};

/// A deployment's plugins, as a process has them once.
struct Plugins {
    registry: Registry,
    folder: Folder,
}

impl Plugins {
    fn new() -> Self {
        Self {
            registry: Registry::new().with(PluginFactory::default()),
            folder: Folder::new(),
        }
    }

    fn store(&self, hsm: &Hsm) -> Arc<dyn SecretStore> {
        self.store_with(hsm, &[])
    }

    fn store_with(&self, hsm: &Hsm, more: &[(&str, Value)]) -> Arc<dyn SecretStore> {
        let library = self.folder.install(&built("deps", "libkeyhaul_pkcs11.so"));
        let options = Options::at("keyhaul.toml:2:1", [("options", hsm.options(more))]);
        let url = format!("plugin://{}", library.display());
        let config = StoreConfig::new("hsm", &url, options, "keyhaul.toml:1:1");
        let store = self.registry.open(&config.expect("a config"));
        store.expect("no I/O, no failure")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_keeps_the_contract() {
    if !in_own_process("the_plugin_keeps_the_contract") {
        return;
    }
    let (plugins, hsm) = (Plugins::new(), Hsm::new("vms"));
    let store = plugins.store(&hsm);
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    let through = keyhaul_conformance::run(async || Handles::same(layered(store.clone()))).await;
    assert!(
        through >= bare && bare > 25,
        "{bare} trials, {through} through layers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_is_tried_once_through_the_plugin() {
    if !in_own_process("a_wrong_pin_is_tried_once_through_the_plugin") {
        return;
    }
    let (plugins, hsm) = (Plugins::new(), Hsm::with_trouble("vms"));
    hsm.set_pin("wrong");
    // Two stores of one library.
    for store in [plugins.store(&hsm), plugins.store(&hsm)] {
        for _ in 0..5 {
            let error = store.probe().await.expect_err("the PIN is wrong");
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
            assert!(error.message().contains("`pin`"), "{error}");
        }
    }
    assert_eq!(hsm.calls("C_Login"), 1);
    // A store reads its PIN when it is opened.
    hsm.set_pin(PIN);
    plugins.store(&hsm).probe().await.expect("the PIN is right");
    assert_eq!(hsm.calls("C_Login"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_takes_a_uri_beside_options_that_agree_with_it() {
    if !in_own_process("the_plugin_takes_a_uri_beside_options_that_agree_with_it") {
        return;
    }
    let (plugins, hsm) = (Plugins::new(), Hsm::new("vms"));
    let module = hsm.module().display();
    let at = |uri: &str| plugins.store_with(&hsm, &[("url", text(uri))]);
    let uri = format!("pkcs11:token=vms;model=SoftHSM%20v2?module-path={module}");
    at(&uri).probe().await.expect("there");
    for (uri, rule) in [
        ("pkcs11:token=other", "do not say the same"),
        ("pkcs11:tokn=vms", "unknown attribute"),
        ("pkcs11:?pin-source=/etc/pin", "do not say the same"),
    ] {
        let error = at(uri).probe().await.expect_err(uri);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(rule), "{error}");
    }
}
