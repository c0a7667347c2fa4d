//! The store in the library that a policy names: loaded as any plugin is.

use keyhaul_conformance::Handles;
use keyhaul_core::ErrorKind;

use crate::host::{self, Folder, built};
use crate::support::{Place, layered, path};

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_keeps_the_contract() {
    let (folder, place) = (Folder::new(), Place::new());
    let library = folder.install(&built("deps", "libkeyhaul_systemd_creds.so"));
    let store = host::open("creds", &library, place.options(&[])).expect("a store");
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    let through = keyhaul_conformance::run(async || Handles::same(layered(store.clone()))).await;
    assert!(
        through >= bare && bare > 30,
        "{bare} trials, {through} through layers"
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_through_the_plugin() {
    let (folder, place) = (Folder::new(), Place::new());
    let library = folder.install(&built("deps", "libkeyhaul_systemd_creds.so"));
    let nowhere = place.options(&[("program", "/nowhere/systemd-creds")]);
    let store = host::open("creds", &library, nowhere).expect("a store");
    place.encrypt("a", &["--with-key=host"], "value");
    let error = store.get(&path("a"), &Default::default()).await;
    let error = error.expect_err("no program");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.message().contains("/nowhere"), "{error}");
}
