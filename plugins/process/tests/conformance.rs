//! The contract, as the suite that every backend runs, over the examples.

mod support;

use keyhaul_conformance::Handles;
use keyhaul_core::layers::{self, LayerSettings};
use support::Place;

#[tokio::test]
async fn the_shell_example_keeps_the_contract() {
    let place = Place::new();
    let program = place.install("shell/folder.sh");
    let folder = place.folder("secrets");
    let store = place.store(&program, &[&folder]);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 20, "{trials} trials");
}

#[tokio::test]
async fn the_shell_example_keeps_the_contract_under_the_standard_layers() {
    let place = Place::new();
    let program = place.install("shell/folder.sh");
    let store = place.store(&program, &[&place.folder("secrets")]);
    let store = layers::standard(store, &LayerSettings::default(), None);
    keyhaul_conformance::run(async || Handles::same(store.clone())).await;
}

#[test]
fn the_shell_example_has_at_most_thirty_lines() {
    let script = include_str!("../../examples/shell/folder.sh");
    assert!(script.lines().count() <= 30);
}

#[tokio::test]
async fn the_python_example_keeps_the_contract() {
    let place = Place::new();
    let program = place.install("python/database.py");
    let database = format!("{}/secrets.db", place.folder("data"));
    let store = place.store(&program, &[&database]);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 35, "{trials} trials");
}

#[tokio::test]
async fn the_python_example_keeps_the_contract_under_the_standard_layers() {
    let place = Place::new();
    let program = place.install("python/database.py");
    let database = format!("{}/secrets.db", place.folder("data"));
    let store = place.store(&program, &[&database]);
    let store = layers::standard(store, &LayerSettings::default(), None);
    keyhaul_conformance::run(async || Handles::same(store.clone())).await;
}
