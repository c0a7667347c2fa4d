//! Disks that are full or read-only: real ones, mounted in a namespace of the test's own.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use keyhaul_core::{
    DeleteOptions, ErrorKind, PutOptions, SecretBytes, SecretPath, SecretStore, SecretStoreExt,
};
use keyhaul_file::FileStore;
use support::processes::{block_on, child_with_mounts};
use support::*;

fn main() -> ExitCode {
    processes::main(
        &[
            ("a_full_disk_loses_nothing", || in_namespace("full")),
            ("a_disk_too_full_for_a_store_leaves_none_behind", || {
                in_namespace("tiny")
            }),
            ("a_read_only_disk_can_be_read", || in_namespace("read-only")),
        ],
        &[("full", full), ("tiny", tiny), ("read-only", read_only)],
    )
}

fn in_namespace(role: &str) {
    let host = Host::new();
    fs::create_dir(host.path("disk")).expect("made");
    let mut child = child_with_mounts(role);
    child.arg(host.path("disk")).arg(host.identity());
    let done = child
        .status()
        .expect("the program `unshare`, of util-linux");
    assert!(done.success(), "{role}: {done}");
}

fn mount(options: &str, disk: &str) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "keyhaul-test", disk])
        .status();
    assert!(mounted.expect("mount").success());
}

fn store_on(arguments: &[String]) -> FileStore {
    let root = Path::new(&arguments[0]).join("store");
    FileStore::open(&config(&root, Path::new(&arguments[1]), vec![])).expect("valid")
}

fn try_put(store: &FileStore, name: &str, value: &[u8]) -> Option<ErrorKind> {
    let value = SecretBytes::copy_from(value);
    let done = block_on(store.put(&path(name), &value, &PutOptions::default()));
    done.err().map(|error| error.kind())
}

fn full(arguments: &[String]) {
    mount("size=128k,mode=0700", &arguments[0]);
    let store = store_on(arguments);
    block_on(put(&store, "web01/root", b"old"));
    block_on(put(&store, "web01/vnc", b"old"));
    let large = vec![7; 200 * 1024];
    assert_eq!(
        try_put(&store, "web01/root", &large),
        Some(ErrorKind::StorageFull)
    );
    assert_eq!(
        try_put(&store, "web02/deep/new", &large),
        Some(ErrorKind::StorageFull)
    );
    // Full to the last block: not even small values fit any more.
    fs::write(Path::new(&arguments[0]).join("filler"), &large).expect_err("the disk fills up");
    assert_eq!(
        try_put(&store, "web01/root", b"new"),
        Some(ErrorKind::StorageFull)
    );
    assert_eq!(
        try_put(&store, "web03/deep/new", b"new"),
        Some(ErrorKind::StorageFull)
    );
    let all = block_on(store.list_all(&SecretPath::root())).expect("listed");
    assert_eq!(all, [path("web01/root"), path("web01/vnc")]);
    for name in ["web01/root", "web01/vnc"] {
        assert_eq!(
            block_on(get(&store_on(arguments), name)).expect("read"),
            b"old"
        );
    }
    let left = files(&Path::new(&arguments[0]).join("store"));
    assert!(
        left.iter()
            .all(|file| !file.to_string_lossy().contains(".tmp-")),
        "{left:?}"
    );
    assert!(
        !Path::new(&arguments[0])
            .join("store/secrets/web03")
            .exists()
    );
    // Making room is possible with the store itself, and then it goes on.
    block_on(store.delete(&path("web01/vnc"), &DeleteOptions::default())).expect("deleted");
    fs::remove_file(Path::new(&arguments[0]).join("filler")).expect("removed");
    assert_eq!(try_put(&store, "web01/root", b"new"), None);
    assert_eq!(block_on(get(&store, "web01/root")).expect("read"), b"new");
}

fn tiny(arguments: &[String]) {
    mount("size=64k,mode=0700", &arguments[0]);
    let filler = Path::new(&arguments[0]).join("filler");
    fs::write(&filler, vec![7; 100 * 1024]).expect_err("the disk fills up");
    let store = store_on(arguments);
    assert_eq!(try_put(&store, "a", b"value"), Some(ErrorKind::StorageFull));
    fs::remove_file(&filler).expect("removed");
    assert_eq!(try_put(&store, "a", b"value"), None);
    assert_eq!(block_on(get(&store, "a")).expect("read"), b"value");
}

fn read_only(arguments: &[String]) {
    mount("size=256k,mode=0700", &arguments[0]);
    let store = store_on(arguments);
    block_on(put(&store, "web01/root", b"old"));
    mount("remount,ro", &arguments[0]);
    for store in [store, store_on(arguments)] {
        assert_eq!(block_on(get(&store, "web01/root")).expect("read"), b"old");
        let value = SecretBytes::copy_from(b"new");
        let error = block_on(store.put(&path("web01/root"), &value, &PutOptions::default()));
        let error = error.expect_err("read-only");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.message().contains("read-only"), "{error}");
        let error = block_on(store.delete(&path("web01/root"), &DeleteOptions::default()));
        assert_eq!(
            error.expect_err("read-only").kind(),
            ErrorKind::PermissionDenied
        );
        assert_eq!(block_on(get(&store, "web01/root")).expect("read"), b"old");
    }
}
