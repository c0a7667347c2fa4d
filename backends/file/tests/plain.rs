//! The clear-text store.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::SystemTime;

use keyhaul_core::{
    Capability, DeleteOptions, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Recipe,
    SecretBytes, SecretPath, SecretStore, SecretStoreExt,
};
use support::*;

#[tokio::test]
async fn each_file_is_the_bare_value_under_its_own_name() {
    let host = Host::new();
    let store = host.plain();
    for value in [&b""[..], b"hunter2", b"with newline\n", &[0, 255, 10]] {
        put(&store, "web01/vnc", value).await;
        assert_eq!(
            fs::read(host.root().join("web01/vnc")).expect("there"),
            value
        );
        assert_eq!(get(&store, "web01/vnc").await.expect("read"), value);
    }
    let mode = fs::metadata(host.root().join("web01/vnc"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    // What somebody else put there by hand is served.
    fs::write(host.root().join("web01/luks.key"), "by hand").expect("written");
    set_mode(&host.root().join("web01/luks.key"), 0o600);
    assert_eq!(
        get(&store, "web01/luks.key").await.expect("read"),
        b"by hand"
    );
    let all = store.list_all(&SecretPath::root()).await.expect("listed");
    assert_eq!(all, [path("web01/luks.key"), path("web01/vnc")]);
    store
        .delete(&path("web01/vnc"), &DeleteOptions::default())
        .await
        .expect("deleted");
    store
        .delete(&path("web01/vnc"), &DeleteOptions::default())
        .await
        .expect("again");
    assert!(!host.root().join("web01/vnc").exists());
}

#[tokio::test]
async fn create_only_refuses_what_is_there() {
    let host = Host::new();
    let store = host.plain();
    let create = PutOptions::default().mode(PutMode::Create);
    store
        .generate(&path("a/b"), &Recipe::default(), &create)
        .await
        .expect("made");
    let made = get(&store, "a/b").await.expect("read");
    assert_eq!(made.len(), 32);
    let again = store
        .put(&path("a/b"), &SecretBytes::copy_from(b"x"), &create)
        .await;
    assert_eq!(again.expect_err("there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(get(&store, "a/b").await.expect("read"), made);
}

#[tokio::test]
async fn what_it_cannot_do_is_unsupported_and_has_no_effect() {
    let host = Host::new();
    let store = host.plain();
    let can = store.capabilities().await.expect("known").can;
    let expected = Capability::READ
        | Capability::WRITE
        | Capability::CREATE
        | Capability::DELETE
        | Capability::LIST
        | Capability::GENERATE;
    assert_eq!(can, expected);
    put(&store, "a/b", b"old").await;
    let value = SecretBytes::copy_from(b"new");
    let labels: BTreeMap<_, _> = [("k".to_owned(), "v".to_owned())].into();
    for options in [
        update("1"),
        PutOptions::default().labels(labels),
        PutOptions::default().expires(Some(SystemTime::now())),
    ] {
        let error = store.put(&path("a/b"), &value, &options).await;
        assert_eq!(
            error.expect_err("unsupported").kind(),
            ErrorKind::Unsupported
        );
        let error = store
            .generate(&path("a/c"), &Recipe::default(), &options)
            .await;
        assert_eq!(
            error.expect_err("unsupported").kind(),
            ErrorKind::Unsupported
        );
    }
    let one = GetOptions::default().version(Some(version("1")));
    assert_eq!(
        store.get(&path("a/b"), &one).await.expect_err("no").kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        store.stat(&path("x"), &one).await.expect_err("no").kind(),
        ErrorKind::Unsupported
    );
    let one = DeleteOptions::default().version(Some(version("1")));
    assert_eq!(
        store
            .delete(&path("a/b"), &one)
            .await
            .expect_err("no")
            .kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(get(&store, "a/b").await.expect("read"), b"old");
    assert_eq!(refused(&store, "a/c").await.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_secret_can_be_called_like_a_folder_but_not_like_a_scope() {
    let host = Host::new();
    let store = host.plain();
    put(&store, "web01/luks", b"secret").await;
    put(&store, "web01/luks/root", b"below").await;
    let found = fs::read(host.root().join("web01/luks")).expect("there");
    assert_eq!(found, b"secret");
    let found = fs::read(host.root().join("web01/luks.d/root")).expect("there");
    assert_eq!(found, b"below");
    put(&store, "a/b", b"one").await;
    put(&store, "c", b"two").await;
    let value = SecretBytes::copy_from(b"x");
    for name in ["a", "c/d", "c/d/e"] {
        let error = store.put(&path(name), &value, &PutOptions::default()).await;
        assert_eq!(error.expect_err(name).kind(), ErrorKind::InvalidReference);
        assert_eq!(refused(&store, name).await.kind(), ErrorKind::NotFound);
        store
            .delete(&path(name), &DeleteOptions::default())
            .await
            .expect("absent");
    }
    assert_eq!(get(&store, "a/b").await.expect("read"), b"one");
    assert_eq!(get(&store, "c").await.expect("read"), b"two");
    let left: Vec<_> = files(&host.root());
    assert!(
        left.iter()
            .all(|file| !file.to_string_lossy().contains(".tmp-")),
        "{left:?}"
    );
}

#[tokio::test]
async fn links_loose_modes_and_long_files_are_refused() {
    let host = Host::new();
    let store = host.plain();
    put(&store, "a/b", b"value").await;
    let file = host.root().join("a/b");
    set_mode(&file, 0o644);
    assert_eq!(
        refused(&store, "a/b").await.kind(),
        ErrorKind::PermissionDenied
    );
    set_mode(&file, 0o600);
    symlink("/etc/passwd", host.root().join("a/link")).expect("linked");
    symlink("/etc", host.root().join("etc")).expect("linked");
    assert_eq!(
        refused(&store, "a/link").await.kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(
        refused(&store, "etc/passwd").await.kind(),
        ErrorKind::PermissionDenied
    );
    fs::write(&file, vec![0; keyhaul_file::MAX_VALUE + 1]).expect("written");
    assert_eq!(refused(&store, "a/b").await.kind(), ErrorKind::TooLarge);
    fs::write(&file, "").expect("written");
    assert_eq!(get(&store, "a/b").await.expect("empty is a value"), b"");
}

#[tokio::test]
async fn hidden_files_are_no_secrets_and_hidden_names_are() {
    let host = Host::new();
    let store = host.plain();
    put(&store, ".x/.tmp-y", b"value").await;
    assert!(host.root().join(".lock").exists());
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await
        .expect("listed");
    assert_eq!(page.secrets, [path(".x/.tmp-y")]);
    assert_eq!(get(&store, ".x/.tmp-y").await.expect("read"), b"value");
    assert_eq!(refused(&store, ".lock").await.kind(), ErrorKind::NotFound);
    // What a killed writer left is swept by the next: the lock file's mode says that it was killed.
    set_mode(&host.root().join(".lock"), 0o700);
    fs::write(host.root().join(".tmp-0123"), "half").expect("written");
    put(&store, "b", b"value").await;
    assert!(!host.root().join(".tmp-0123").exists());
}
