//! The C example keeps the contract, compiled as its first lines say.

mod support;

use std::path::Path;
use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::registry::Options;
use keyhaul_core::{ErrorKind, Recipe, SecretPath, SecretStore, StoreConfig};
use keyhaul_plugin_host::PluginFactory;
use support::{Folder, compile, open, open_pinned, options};

fn jar(folder: &Folder) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c/jar.c");
    compile(folder, "libjar.so", &source, &[])
}

async fn keeps_the_contract(store: Arc<dyn SecretStore>) {
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials >= 20, "only {trials} trials ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jar_keeps_the_contract() {
    let folder = Folder::new();
    keeps_the_contract(open("jar", &jar(&folder), Options::default()).expect("a store")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jar_keeps_the_contract_under_the_standard_layers() {
    let folder = Folder::new();
    let store = open("jar", &jar(&folder), Options::default()).expect("a store");
    keeps_the_contract(standard(store, &LayerSettings::default(), None)).await;
}

#[tokio::test]
async fn the_host_makes_values_where_the_plugin_does_not() {
    let folder = Folder::new();
    let store = open("jar", &jar(&folder), Options::default()).expect("a store");
    let path = SecretPath::new("a").expect("valid");
    let made = store
        .generate(&path, &Recipe::default(), &Default::default())
        .await;
    made.expect("made");
    let secret = store.get(&path, &Default::default()).await.expect("there");
    assert_eq!(secret.value.len(), 32);
    assert!(secret.value.expose().iter().all(u8::is_ascii_alphanumeric));
}

#[tokio::test]
async fn the_jar_begins_with_its_contents() {
    let folder = Folder::new();
    let library = jar(&folder);
    let holding = |text: &str| {
        let contents = folder.credential("contents", text);
        open("jar", &library, options([("contents", contents)])).expect("no I/O")
    };
    let path = |path| SecretPath::new(path).expect("valid");
    let store = holding("web01/root hunter2 and more\nempty \nlast x");
    for (at, value) in [
        ("web01/root", "hunter2 and more"),
        ("empty", ""),
        ("last", "x"),
    ] {
        let secret = store.get(&path(at), &Default::default()).await.expect(at);
        assert_eq!(secret.value.expose(), value.as_bytes(), "{at}");
    }
    for wrong in ["no-value\n", " no-path\n", "a x\n\n", "a x\na y\n"] {
        let error = holding(wrong).probe().await.expect_err(wrong);
        assert!(
            error.message().contains("a path, a space and a value"),
            "{error}"
        );
        // The option's, which the plugin names in its words.
        assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:3:1"));
    }
    let nowhere = options([("contents", "file:/nonexistent/contents".into())]);
    let store = open("jar", &library, nowhere).expect("no I/O");
    let error = store.probe().await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("/nonexistent/contents"), "{error}");
    assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:3:1"));
}

/// As the policy names it, and without a store.
#[test]
fn a_stores_plugin_is_loaded_by_the_stores_settings() {
    let folder = Folder::new();
    let path = jar(&folder);
    let factory = PluginFactory::default();
    let config = |pin: Option<&str>| {
        let pin = pin.map(|pin| ("sha256", pin));
        let url = format!("plugin://{}", path.display());
        let options = Options::at("keyhaul.toml:2:1", pin);
        StoreConfig::new("jar", &url, options, "keyhaul.toml:1:1")
    };
    let loaded = factory.load(&config(None).expect("valid")).expect("loaded");
    assert_eq!(
        (loaded.name.as_str(), loaded.interface),
        ("jar-in-c", (1, 0))
    );
    let functions = "open close capabilities get stat put remove list";
    assert_eq!(loaded.functions.join(" "), functions);
    assert_eq!(factory.loaded().len(), 1);
    let other = config(Some(&"0".repeat(64))).expect("valid");
    let error = factory.load(&other).expect_err("another digest");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:1:1"));
    assert_eq!(factory.loaded().len(), 1);
}

#[tokio::test]
async fn a_pin_is_held_to_and_what_is_loaded_is_told() {
    let folder = Folder::new();
    let path = jar(&folder);
    let loaded = PluginFactory::default().examine(&path, None);
    let loaded = loaded.outcome.expect("loaded");
    assert_eq!(
        (loaded.name.as_str(), loaded.version.as_str()),
        ("jar-in-c", "1.0")
    );
    let digest = std::process::Command::new("sha256sum")
        .arg(&path)
        .output()
        .expect("sha256sum");
    let digest = String::from_utf8_lossy(&digest.stdout)[..64].to_owned();
    assert_eq!(loaded.digest.to_string(), digest);
    let pinned =
        |digest: &str| open_pinned("jar", &path, Options::default(), Some(digest)).expect("no I/O");
    pinned(&digest).probe().await.expect("as pinned");
    pinned(&digest.to_uppercase())
        .probe()
        .await
        .expect("as pinned");
    let error = pinned(&"0".repeat(64)).probe().await.expect_err("another");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let error = open_pinned("jar", &path, Options::default(), Some("abc")).expect_err("no digest");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}
