//! A plugin that panics ends its calls, and neither the program nor the silence.

#[path = "../../../plugins/host/tests/support/mod.rs"]
mod support;

use std::process::Command;

use keyhaul_core::registry::Options;
use keyhaul_core::{
    DeleteOptions, Error, ErrorKind, GetOptions, ListOptions, PutOptions, Recipe, SecretBytes,
    SecretPath,
};
use support::{Folder, built, open};

fn library() -> std::path::PathBuf {
    built("deps", "libkeyhaul_panics.so")
}

#[track_caller]
fn panicked(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("the plugin panicked"), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

/// Everything that panics, in one process, which the other test looks at from outside.
#[tokio::test]
async fn every_call_that_panics_is_an_internal_error_and_the_next_one_is_served() {
    let folder = Folder::new();
    let path = folder.install(&library());
    let store = open("panics", &path, Options::default()).expect("a store");
    let secret = SecretPath::new("a/b").expect("valid");
    let fine = SecretPath::new("fine").expect("valid");
    let get = GetOptions::default();
    let put = PutOptions::default();
    let value = SecretBytes::copy_from(b"x");
    for _ in 0..3 {
        panicked(&store.get(&secret, &get).await.expect_err("panics"));
        let many = store.get_many(std::slice::from_ref(&secret), &get).await;
        let [Err(error)] = &many[..] else {
            panic!("{many:?}")
        };
        panicked(error);
        panicked(&store.stat(&secret, &get).await.expect_err("panics"));
        panicked(&store.put(&secret, &value, &put).await.expect_err("panics"));
        let made = store.generate(&secret, &Recipe::default(), &put).await;
        panicked(&made.expect_err("panics"));
        let deleted = store.delete(&secret, &DeleteOptions::default()).await;
        panicked(&deleted.expect_err("panics"));
        let listed = store
            .list(&SecretPath::root(), &ListOptions::default())
            .await;
        panicked(&listed.expect_err("panics"));
        panicked(&store.probe().await.expect_err("panics"));
        let secret = store.get(&fine, &get).await.expect("served");
        assert_eq!(secret.value.expose(), b"fine");
    }
    drop(store);
    let broken = open("at-open", &path, Options::default()).expect("no I/O");
    panicked(&broken.probe().await.expect_err("panics"));
}

#[test]
fn panics_print_nothing() {
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture"])
        .arg("every_call_that_panics_is_an_internal_error_and_the_next_one_is_served")
        .output()
        .expect("started");
    let (out, words) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}{words}");
    assert!(out.contains("1 passed"), "{out}");
    assert!(
        !out.contains("panicked at") && !words.contains("panicked at"),
        "{out}{words}"
    );
    assert!(
        !out.contains("hunter2") && !words.contains("hunter2"),
        "{out}{words}"
    );
}

/// A panic of the host's own still tells: the plugin's silence is the plugin's.
#[test]
fn the_hosts_own_panics_still_print() {
    const CHILD: &str = "KEYHAUL_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let folder = Folder::new();
        let path = folder.install(&library());
        let factory = keyhaul_plugin_host::PluginFactory::default();
        let loaded = factory.examine(&path, None).outcome.expect("loaded");
        assert_eq!(loaded.summary, "panics");
        panic!("the host's own");
    }
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", "the_hosts_own_panics_still_print"])
        .env(CHILD, "1")
        .output()
        .expect("started");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(
        !done.status.success() && words.contains("the host's own"),
        "{words}"
    );
}

/// Compiles a plugin that exports what this expression makes, as far as to its types.
fn compiles(edition: &str, panic: &str, factory: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("plugin.rs");
    let program = format!("keyhaul_panics::sdk::export_plugin!({factory});\n");
    std::fs::write(&file, program).expect("written");
    let rlib = built("deps", "libkeyhaul_panics.rlib");
    let dependencies = rlib.parent().expect("a folder");
    let done = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--crate-type=lib", "--emit=metadata", "--edition", edition])
        .args(["-C", &format!("panic={panic}")])
        .arg(format!("-Ldependency={}", dependencies.display()))
        .arg(format!("--extern=keyhaul_panics={}", rlib.display()))
        .arg(&file)
        // What cargo tells each crate that it compiles.
        .env("CARGO_PKG_NAME", "plugin")
        .env("CARGO_PKG_VERSION", "1.0")
        .current_dir(folder.path())
        .output()
        .expect("rustc, which cargo brings");
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// A crate that would abort does not compile, and says why.
#[test]
fn a_build_that_aborts_on_panic_is_refused_by_the_compiler() {
    let words = compiles("2024", "abort", "keyhaul_panics::Panics").expect_err("refused");
    assert!(words.contains("would take keyhaul with it"), "{words}");
    compiles("2024", "unwind", "keyhaul_panics::Panics").expect("the control");
}

/// The macro's own `unsafe` is none for what is exported.
#[test]
fn nothing_unsafe_can_stand_in_what_is_exported_without_a_word() {
    let hidden = "{ std::hint::unreachable_unchecked(); keyhaul_panics::Panics }";
    for edition in ["2021", "2024"] {
        let words = compiles(edition, "unwind", hidden).expect_err("refused");
        assert!(words.contains("E0133"), "{words}");
    }
    let told = "{ let _: &u8 = unsafe { &*std::ptr::dangling::<u8>() }; keyhaul_panics::Panics }";
    compiles("2021", "unwind", told).expect("the control");
}
