//! The contract, as the suite that every backend runs, over the examples.

mod support;

use std::path::Path;

use keyhaul_conformance::Handles;
use keyhaul_core::layers::{self, LayerSettings};
use keyhaul_core::{
    DeleteOptions, Error, ErrorKind, GetOptions, PutMode, PutOptions, SecretBytes, SecretPath,
};
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

/// As whoever forgets `args` starts it: nothing is looked at, least of all what lies where it is started.
#[test]
fn the_shell_example_does_nothing_without_a_folder() {
    let place = Place::new();
    let program = place.install("shell/folder.sh");
    let folder = place.folder("elsewhere");
    let old = format!("{folder}/.17");
    std::fs::write(&old, "").expect("written");
    let run = |command: &mut std::process::Command| {
        let done = command.current_dir(&folder).output().expect("run");
        (done.status.success(), done.stdout.is_empty())
    };
    let aged = run(std::process::Command::new("touch").args(["-d", "-1 hour", &old]));
    assert!(aged.0);
    for arguments in [&[][..], &[""], &["/no/such/folder"]] {
        let done = run(std::process::Command::new(&program).args(arguments));
        assert_eq!(done, (false, true), "{arguments:?}");
        assert!(std::path::Path::new(&old).exists(), "{arguments:?}");
    }
    // The control: told to, it looks there.
    assert!(!run(std::process::Command::new(&program).arg(&folder)).1);
    assert!(!std::path::Path::new(&old).exists());
}

#[tokio::test]
async fn the_shell_example_keeps_what_is_there_and_no_copy_of_it() {
    let place = Place::new();
    let program = place.install("shell/folder.sh");
    let folder = place.folder("secrets");
    let files = || {
        let entries = std::fs::read_dir(&folder).expect("read");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.collect::<Vec<_>>()
    };
    // What one that was killed has left, with a value in it, goes; what is new stays: another's.
    let (old, new) = (format!("{folder}/.17"), format!("{folder}/.18"));
    for left in [&old, &new] {
        std::fs::write(left, "aHVudGVyMg==").expect("written");
    }
    let aged = std::process::Command::new("touch")
        .args(["-d", "-1 hour", &old])
        .status();
    assert!(aged.expect("touch").success());
    let store = place.store(&program, &[&folder]);
    let path = SecretPath::new("web01/disk").expect("a path");
    let value = SecretBytes::copy_from(b"hunter2");
    let put = async |mode| -> Result<(), Error> {
        let options = PutOptions::default().mode(mode);
        store.put(&path, &value, &options).await.map(|_| ())
    };
    put(PutMode::Create).await.expect("made");
    let left: Vec<_> = [&old, &new].map(|name| Path::new(name).exists()).into();
    assert_eq!(left, [false, true]);
    std::fs::remove_file(&new).expect("removed");
    assert_eq!(files().len(), 1, "{:?}", files());
    let error = put(PutMode::Create).await.expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    put(PutMode::Overwrite).await.expect("written");
    assert_eq!(files().len(), 1, "{:?}", files());
    store
        .delete(&path, &DeleteOptions::default())
        .await
        .expect("deleted");
    assert_eq!(files().len(), 0, "{:?}", files());

    // What is there and cannot be read or written is neither absent nor in the way of a create.
    put(PutMode::Create).await.expect("made");
    let file = files().remove(0);
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("a folder in its place");
    let get = store.get(&path, &GetOptions::default()).await;
    assert_eq!(get.expect_err("no file").kind(), ErrorKind::Unavailable);
    let error = put(PutMode::Overwrite).await.expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(files(), [file], "no copy of the value");
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
