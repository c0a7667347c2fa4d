//! The contract, held by a plugin that is loaded as any other.

#[path = "../../../host/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{ErrorKind, SecretBytes, SecretPath, SecretStore};
use support::{Folder, built, open, options};

fn library() -> std::path::PathBuf {
    built("deps", "libkeyhaul_plugin_example.so")
}

fn jar(folder: &Folder, given: Options) -> Arc<dyn SecretStore> {
    open("jar", &folder.install(&library()), given).expect("a store")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jar_keeps_the_contract() {
    let folder = Folder::new();
    let store = jar(&folder, Options::default());
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials >= 30, "only {trials} trials ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jar_keeps_the_contract_under_the_standard_layers() {
    let folder = Folder::new();
    let store = standard(
        jar(&folder, Options::default()),
        &LayerSettings::default(),
        None,
    );
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials >= 30, "only {trials} trials ran");
}

#[tokio::test]
async fn options_and_credentials_arrive() {
    let folder = Folder::new();
    let source = folder.credential("lid", "a long passphrase");
    let given = options([("largest", Value::Integer(10)), ("lid", source)]);
    let store = jar(&folder, given.clone());
    let capabilities = store.capabilities().await.expect("open");
    assert_eq!(capabilities.max_value, 10);
    let path = SecretPath::new("a").expect("valid");
    let value = SecretBytes::copy_from(&[7; 11]);
    let error = store
        .put(&path, &value, &Default::default())
        .await
        .expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge);

    // The control: another credential is refused by the plugin itself, so it does get the bytes.
    folder.credential("lid", "short");
    let error = jar(&folder, given)
        .capabilities()
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("at least 8 bytes"), "{error}");
    assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:1:1"));
}

#[tokio::test]
async fn a_jar_begins_with_its_contents() {
    let folder = Folder::new();
    let given = |text: &str| options([("contents", folder.credential("contents", text))]);
    let store = jar(&folder, given("web01/root hunter2 and more\nb x\n"));
    let path = SecretPath::new("web01/root").expect("valid");
    let secret = store.get(&path, &Default::default()).await.expect("there");
    assert_eq!(secret.value.expose(), b"hunter2 and more");
    let store = jar(&folder, given("no-value\n"));
    let error = store.probe().await.expect_err("no line of contents");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error.message().contains("a path, a space and a value"),
        "{error}"
    );
}

#[tokio::test]
async fn a_credential_that_cannot_be_read_says_why() {
    let folder = Folder::new();
    let given = options([("lid", "file:/nonexistent/lid".into())]);
    let store = jar(&folder, given);
    let error = store.probe().await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("/nonexistent/lid"), "{error}");
}

#[tokio::test]
async fn an_option_that_the_plugin_does_not_take_is_refused_at_its_place() {
    let folder = Folder::new();
    let store = jar(&folder, options([("larges", Value::Integer(10))]));
    let error = store.probe().await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error
            .message()
            .contains("known are: contents, largest, lid, url"),
        "{error}"
    );
    assert_eq!(error.advice(), Some("did you mean `largest`?"));
    assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:3:1"));
}

#[tokio::test]
async fn two_stores_of_one_plugin_are_two_stores() {
    let folder = Folder::new();
    let path = SecretPath::new("a").expect("valid");
    let (one, other) = (
        jar(&folder, Options::default()),
        jar(&folder, Options::default()),
    );
    let value = SecretBytes::copy_from(b"hunter2");
    one.put(&path, &value, &Default::default())
        .await
        .expect("put");
    assert_eq!(
        other
            .get(&path, &Default::default())
            .await
            .expect_err("empty")
            .kind(),
        ErrorKind::NotFound
    );
    assert!(
        one.get(&path, &Default::default())
            .await
            .expect("there")
            .value
            == value
    );
}
