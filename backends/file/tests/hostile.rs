//! Files and folders that are not as the store left them.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use keyhaul_core::{
    DeleteOptions, ErrorKind, GetOptions, ListOptions, SecretPath, SecretStore, SecretStoreExt,
};
use support::*;

/// After harm to `web01/a`, its neighbour is as before.
async fn neighbours_are_well(store: &keyhaul_file::FileStore) {
    assert_eq!(get(store, "web01/neighbour").await.expect("read"), b"well");
    let all = store.list_all(&SecretPath::root()).await.expect("listed");
    assert!(all.contains(&path("web01/neighbour")));
}

async fn host_with_two() -> (Host, keyhaul_file::FileStore) {
    let host = Host::new();
    let store = host.store();
    put(&store, "web01/a", b"value").await;
    put(&store, "web01/neighbour", b"well").await;
    (host, store)
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_corrupt_and_never_another_value() {
    let (host, store) = host_with_two().await;
    let file = host.file("web01/a");
    let good = fs::read(&file).expect("read");
    for offset in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[offset] ^= 1 << bit;
            fs::write(&file, &bad).expect("written");
            let error = refused(&store, "web01/a").await;
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "offset {offset} bit {bit}"
            );
            assert!(error.message().contains("web01/a.secret"), "{error}");
            let error = store.stat(&path("web01/a"), &GetOptions::default()).await;
            assert_eq!(
                error.expect_err("no metadata either").kind(),
                ErrorKind::Corrupt
            );
        }
    }
    neighbours_are_well(&store).await;
    fs::write(&file, &good).expect("restored");
    assert_eq!(get(&store, "web01/a").await.expect("the control"), b"value");
}

#[tokio::test]
async fn cut_short_anywhere_or_with_something_behind_is_corrupt() {
    let (host, store) = host_with_two().await;
    let file = host.file("web01/a");
    let first = fs::read(&file).expect("read");
    put(&store, "web01/a", b"second").await;
    let good = fs::read(&file).expect("read");
    // One cut leaves a whole record, the newest: dropping an older version is as good as putting
    // an older backup back, and not noticed.
    let magic = 8;
    let whole = good.len() - (first.len() - magic);
    for len in 0..good.len() {
        fs::write(&file, &good[..len]).expect("written");
        let found = get(&store, "web01/a").await;
        match found {
            Ok(value) => assert!(len == whole && value == b"second", "{len}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}"),
        }
    }
    for more in [&b"\0"[..], b"junk", &good] {
        fs::write(&file, [&good, more].concat()).expect("written");
        assert_eq!(refused(&store, "web01/a").await.kind(), ErrorKind::Corrupt);
    }
    neighbours_are_well(&store).await;
}

#[tokio::test]
async fn a_file_copied_over_another_is_corrupt() {
    let (host, store) = host_with_two().await;
    fs::copy(host.file("web01/neighbour"), host.file("web01/a")).expect("copied");
    assert_eq!(refused(&store, "web01/a").await.kind(), ErrorKind::Corrupt);
    fs::rename(
        host.root().join("secrets/web01"),
        host.root().join("secrets/web02"),
    )
    .expect("moved");
    assert_eq!(
        refused(&store, "web02/neighbour").await.kind(),
        ErrorKind::Corrupt
    );
    fs::rename(
        host.root().join("secrets/web02"),
        host.root().join("secrets/web01"),
    )
    .expect("moved");
    neighbours_are_well(&store).await;
}

#[tokio::test]
async fn a_record_moved_between_secrets_or_versions_is_corrupt() {
    let (host, store) = host_with_two().await;
    let one = fs::read(host.file("web01/a")).expect("read");
    put(&store, "web01/a", b"value").await;
    let two = fs::read(host.file("web01/a")).expect("read");
    assert!(
        two.ends_with(&one[8..]),
        "the older record is kept as it was"
    );
    // The newest record's metadata with the older one's value: same path, same key, same length.
    let blob = |bytes: &[u8]| u32::from_le_bytes(bytes[8..12].try_into().expect("four")) as usize;
    let (head, tail) = (12 + blob(&two), 12 + blob(&one));
    let mixed = [&two[..head], &one[tail..]].concat();
    fs::write(host.file("web01/a"), mixed).expect("written");
    assert_eq!(refused(&store, "web01/a").await.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn foreign_files_are_corrupt_or_not_ours() {
    let (host, store) = host_with_two().await;
    let other = Host::new();
    put(&other.store(), "web01/a", b"value").await;
    for bytes in [
        fs::read(other.file("web01/a")).expect("read"),
        b"".to_vec(),
        b"hunter2\n".to_vec(),
        vec![0; 4096],
        fs::read(host.root().join("store.key.age")).expect("read"),
    ] {
        fs::write(host.file("web01/a"), bytes).expect("written");
        assert_eq!(refused(&store, "web01/a").await.kind(), ErrorKind::Corrupt);
    }
    let folder = host.root().join("secrets/web01");
    for name in [
        "README",
        ".nfs0001",
        "x.secret~",
        "%zz.secret",
        "a b.secret",
    ] {
        fs::write(folder.join(name), "junk").expect("written");
        set_mode(&folder.join(name), 0o600);
    }
    let all = store.list_all(&SecretPath::root()).await.expect("listed");
    assert_eq!(all, [path("web01/a"), path("web01/neighbour")]);
    neighbours_are_well(&store).await;
}

#[tokio::test]
async fn a_damaged_secret_is_not_written_over_and_can_be_deleted() {
    let (host, store) = host_with_two().await;
    fs::write(host.file("web01/a"), "half").expect("written");
    let value = keyhaul_core::SecretBytes::copy_from(b"new");
    let error = store
        .put(&path("web01/a"), &value, &Default::default())
        .await
        .expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("delete"))
    );
    assert_eq!(
        fs::read(host.file("web01/a")).expect("still there"),
        b"half"
    );
    store
        .delete(&path("web01/a"), &DeleteOptions::default())
        .await
        .expect("deleted");
    assert_eq!(put(&store, "web01/a", b"new").await, "1");
}

#[tokio::test]
async fn symbolic_links_are_refused_wherever_they_are() {
    let (host, store) = host_with_two().await;
    let secrets = host.root().join("secrets");
    // A secret that is a link, even to a good file of the same store.
    fs::remove_file(host.file("web01/a")).expect("removed");
    symlink(host.file("web01/neighbour"), host.file("web01/a")).expect("linked");
    let error = refused(&store, "web01/a").await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("symbolic link"), "{error}");
    // A folder that is a link out of the root.
    let outside = host.path("outside");
    fs::rename(secrets.join("web01"), &outside).expect("moved");
    symlink(&outside, secrets.join("web01")).expect("linked");
    assert_eq!(
        refused(&store, "web01/neighbour").await.kind(),
        ErrorKind::PermissionDenied
    );
    let value = keyhaul_core::SecretBytes::copy_from(b"new");
    let before = files(&outside);
    let error = store
        .put(&path("web01/new"), &value, &Default::default())
        .await;
    assert_eq!(
        error.expect_err("refused").kind(),
        ErrorKind::PermissionDenied
    );
    let error = store
        .delete(&path("web01/neighbour"), &Default::default())
        .await;
    assert_eq!(
        error.expect_err("refused").kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(files(&outside), before);
    let error = store.list(&path("web01"), &ListOptions::default()).await;
    assert_eq!(
        error.expect_err("refused").kind(),
        ErrorKind::PermissionDenied
    );
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await
        .expect("listed");
    assert_eq!(page.secrets, [], "what the link leads to is not listed");
    // The secrets themselves, and the key.
    fs::remove_file(secrets.join("web01")).expect("removed");
    fs::rename(&outside, secrets.join("web01")).expect("moved back");
    neighbours_are_well(&store).await;
    let key = host.root().join("store.key.age");
    fs::rename(&key, host.path("key")).expect("moved");
    symlink(host.path("key"), &key).expect("linked");
    assert_eq!(
        refused(&host.store(), "web01/neighbour").await.kind(),
        ErrorKind::PermissionDenied
    );
    fs::rename(host.path("key"), &key).expect("moved back");
    fs::rename(&secrets, host.path("secrets")).expect("moved");
    symlink(host.path("secrets"), &secrets).expect("linked");
    assert_eq!(
        refused(&store, "web01/neighbour").await.kind(),
        ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn what_others_can_get_at_is_refused_with_the_command_that_mends_it() {
    let (host, store) = host_with_two().await;
    let folder = host.root().join("secrets/web01");
    for (place, good) in [
        (host.file("web01/a"), 0o600),
        (folder, 0o700),
        (host.root().join("secrets"), 0o700),
        (host.root(), 0o700),
        (host.root().join("store.key.age"), 0o600),
        (host.identity(), 0o600),
    ] {
        for loose in [0o040, 0o020, 0o004, 0o002, 0o001] {
            set_mode(&place, good | loose);
            let error = refused(&host.store(), "web01/a").await;
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            let advice = error.advice().expect("a way out");
            let command = format!("chmod {good:04o} {}", place.display());
            assert_eq!(advice, command);
            let words: Vec<&str> = advice.split(' ').collect();
            let mended = Command::new(words[0]).args(&words[1..]).status();
            assert!(mended.expect("chmod").success());
            assert_eq!(
                get(&host.store(), "web01/a").await.expect("mended"),
                b"value"
            );
        }
    }
    neighbours_are_well(&store).await;
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give files away; as a user, root's are trusted and others' do not exist.
        return;
    }
    let (host, store) = host_with_two().await;
    std::os::unix::fs::chown(host.file("web01/a"), Some(65534), None).expect("given away");
    let error = refused(&store, "web01/a").await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("belongs to user 65534"), "{error}");
    neighbours_are_well(&store).await;
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_not_waited_for() {
    let (host, store) = host_with_two().await;
    fs::remove_file(host.file("web01/a")).expect("removed");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        host.file("web01/a"),
        rustix::fs::Mode::RUSR,
    )
    .expect("a pipe");
    assert_eq!(refused(&store, "web01/a").await.kind(), ErrorKind::Corrupt);
    fs::remove_file(host.file("web01/a")).expect("removed");
    let _socket = std::os::unix::net::UnixListener::bind(host.file("web01/a")).expect("a socket");
    assert_eq!(refused(&store, "web01/a").await.kind(), ErrorKind::Corrupt);
    // A file where a folder would be.
    let file = host.root().join("secrets/web02");
    fs::write(&file, "junk").expect("written");
    set_mode(&file, 0o600);
    assert_eq!(refused(&store, "web02/a").await.kind(), ErrorKind::NotFound);
    let value = keyhaul_core::SecretBytes::copy_from(b"new");
    assert!(
        store
            .put(&path("web02/a"), &value, &Default::default())
            .await
            .is_err()
    );
    assert_eq!(fs::read(&file).expect("untouched"), b"junk");
    neighbours_are_well(&store).await;
}
