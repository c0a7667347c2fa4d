//! What lies in the folder: systemd's own credentials, and what passes for them.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use keyhaul_core::{
    ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, SecretBytes, SecretPath,
};
use support::steps::{INSIDE, again, kind, read, write};
use support::{Place, creds, open, options, path, secret};

#[tokio::test]
async fn credentials_are_systemds_both_ways() {
    let place = Place::new();
    let store = place.store();
    // Named after its file, as systemd-creds does by itself.
    place.encrypt("web01%2Froot", &["--with-key=host"], "theirs");
    assert_eq!(read(&*store, "web01/root").await.expect("read"), "theirs");

    write(&*store, "web01.vnc", "in the clear").await;
    let file = place.path().join("web01.vnc");
    let done = creds(&["decrypt", &file.to_string_lossy(), "-"], "");
    assert_eq!(done.stdout, b"in the clear", "{done:?}");
    let bytes = fs::read(&file).expect("there");
    assert!(!bytes.windows(9).any(|part| part == b"the clear"));
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await
        .expect("listed");
    assert_eq!(page.secrets, [path("web01.vnc"), path("web01/root")]);
}

#[tokio::test]
async fn a_file_that_is_another_secrets_or_damaged_is_corrupt() {
    let place = Place::new();
    let store = place.store();
    write(&*store, "a", "value-of-a").await;
    write(&*store, "b", "value-of-b").await;
    fs::copy(place.path().join("b"), place.path().join("a")).expect("exchanged");
    let error = read(&*store, "a").await.expect_err("b's");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(!format!("{error:?}").contains("value-of"), "{error:?}");
    // The control.
    assert_eq!(read(&*store, "b").await.expect("untouched"), "value-of-b");

    let mut bytes = fs::read(place.path().join("b")).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    fs::write(place.path().join("b"), &bytes).expect("damaged");
    assert_eq!(kind(&*store, "b").await, ErrorKind::Corrupt);
    for bytes in [&b""[..], b"plain text", &bytes[..bytes.len() - 8]] {
        fs::write(place.path().join("b"), bytes).expect("damaged");
        assert_eq!(kind(&*store, "b").await, ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn a_credential_under_no_key_is_refused_although_systemd_opens_it() {
    let place = Place::new();
    let store = place.store();
    // Its name in version 252; later ones have `null` too, and still know this one.
    place.encrypt("a", &["--with-key=tpm2-absent"], "planted");
    let file = place.path().join("a");
    let error = read(&*store, "a").await.expect_err("no key");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("no key"), "{error}");
    // The control: what it is refused for is the key.
    let done = creds(&["decrypt", &file.to_string_lossy(), "-"], "");
    let refuses = String::from_utf8_lossy(&done.stderr).contains("null");
    assert!(done.stdout == b"planted" || refuses, "{done:?}");
}

#[tokio::test]
async fn a_credential_past_its_time_is_not_found_and_still_there() {
    let place = Place::new();
    let store = place.store();
    let times = ["--with-key=host", "--timestamp=@1", "--not-after=@2"];
    place.encrypt("a", &times, "expired");
    let a = path("a");
    let error = read(&*store, "a").await.expect_err("expired");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("expired"), "{error}");
    let options = GetOptions::default();
    store.stat(&a, &options).await.expect("still there");
    let came = store.get(&a, &options.expired(true)).await;
    assert_eq!(came.expect("asked for").value.expose(), b"expired");
}

#[tokio::test]
async fn nothing_but_files_in_a_folder_of_ones_own_is_read() {
    let place = Place::new();
    let store = place.store();
    write(&*store, "there", "value").await;
    let (folder, link) = (place.path(), place.path().join("link"));
    std::os::unix::fs::symlink(folder.join("there"), link).expect("linked");
    let made = Command::new("mkfifo").arg(folder.join("pipe")).status();
    assert!(made.expect("mkfifo").success());
    fs::create_dir(folder.join("folder")).expect("made");
    for name in ["link", "pipe", "folder"] {
        assert_eq!(kind(&*store, name).await, ErrorKind::Corrupt, "{name}");
    }
    fs::set_permissions(folder, PermissionsExt::from_mode(0o770)).expect("a mode");
    assert_eq!(kind(&*store, "there").await, ErrorKind::PermissionDenied);
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("a mode");
    assert_eq!(read(&*store, "there").await.expect("read"), "value");
}

#[tokio::test]
async fn no_way_leads_to_where_systemd_takes_its_own_credentials_from() {
    const SYSTEMDS: &str = "/run/credstore.encrypted";
    if let Ok(folder) = std::env::var(INSIDE) {
        let ways = ["link", "bound", "turned", "systemds/sub/.."];
        for way in ways.map(|way| format!("{folder}/{way}")) {
            let store = open(options(&[("folder", &way), ("key", "host")]));
            let path = path("tmpfiles.extra");
            let (value, put) = (secret("value"), PutOptions::default());
            let (root, list) = (SecretPath::root(), ListOptions::default());
            for error in [
                store.get(&path, &GetOptions::default()).await.err(),
                store.put(&path, &value, &put).await.err(),
                store.list(&root, &list).await.err(),
                store.delete(&path, &Default::default()).await.err(),
                store.probe().await.err(),
            ] {
                let error = error.unwrap_or_else(|| panic!("{way} is taken"));
                assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{way}: {error}");
                assert!(error.message().contains("systemd takes"), "{error}");
            }
        }
        let theirs = fs::read_dir(SYSTEMDS).expect("listed").count();
        assert_eq!(theirs, 2, "the credential and the folder sub");
        // The control.
        let own = format!("{folder}/own");
        let store = open(options(&[("folder", &own), ("key", "host")]));
        write(&*store, "tmpfiles.extra", "value").await;
        return;
    }
    let place = Place::new();
    let script = format!(
        "set -e; cd \"${INSIDE}\"; mount -t tmpfs none /run; umask 077; mkdir -p {SYSTEMDS}/sub bound own turned
        echo theirs >{SYSTEMDS}/tmpfiles.extra
        ln -s {SYSTEMDS} link; ln -s /run systemds-above; ln -s {SYSTEMDS} systemds
        mount --bind {SYSTEMDS} bound; ln -s \"$PWD/turned\" /run/credstore
        exec \"$@\""
    );
    again(
        &["unshare", "--mount", "sh", "-c", &script, "sh"],
        "no_way_leads_to_where_systemd_takes_its_own_credentials_from",
        place.path(),
    );
}

#[tokio::test]
async fn a_folder_below_one_that_others_can_write_is_not_read() {
    let place = Place::new();
    let (outer, inner) = (place.path().join("outer"), place.path().join("outer/inner"));
    fs::create_dir_all(&inner).expect("made");
    let store = open(options(&[
        ("folder", &inner.to_string_lossy()),
        ("key", "host"),
    ]));
    write(&*store, "a", "value").await;
    fs::set_permissions(&outer, PermissionsExt::from_mode(0o777)).expect("a mode");
    let error = read(&*store, "a").await.expect_err("another may lie there");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("mode 0777"), "{error}");
    // In a sticky one, nobody else can put another in its place.
    fs::set_permissions(&outer, PermissionsExt::from_mode(0o1777)).expect("a mode");
    assert_eq!(read(&*store, "a").await.expect("read"), "value");
}

#[tokio::test]
async fn a_new_secret_needs_no_second_link() {
    if let Ok(folder) = std::env::var(INSIDE) {
        let store = open(options(&[("folder", &folder), ("key", "host")]));
        let mut options = PutOptions::default();
        options.mode = PutMode::Create;
        let done = store.put(&path("a"), &secret("value"), &options).await;
        done.expect("made");
        assert_eq!(read(&*store, "a").await.expect("read"), "value");
        // The control: there is room for one file, and a second link of its counts as one more.
        let folder = Path::new(&folder);
        let error = fs::hard_link(folder.join("a"), folder.join("b")).expect_err("no room");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        return;
    }
    let place = Place::new();
    let script =
        format!("mount -t tmpfs -o nr_inodes=2,mode=700 none \"${INSIDE}\" && exec \"$@\"");
    again(
        &["unshare", "--mount", "sh", "-c", &script, "sh"],
        "a_new_secret_needs_no_second_link",
        place.path(),
    );
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_made_only_where_the_policy_says_so() {
    let place = Place::new();
    let inner = place.path().join("inner").to_string_lossy().into_owned();
    let store = open(options(&[("folder", &inner), ("key", "host")]));
    assert_eq!(kind(&*store, "a").await, ErrorKind::Unavailable);
    let error = store.probe().await.expect_err("no folder");
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    let store = open(options(&[
        ("folder", &inner),
        ("key", "host"),
        ("create", "true"),
    ]));
    store.probe().await.expect("nothing amiss");
    assert_eq!(kind(&*store, "a").await, ErrorKind::NotFound);
    write(&*store, "a", "value").await;
    assert_eq!(read(&*store, "a").await.expect("read"), "value");
    let mode = fs::metadata(&inner).expect("made").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

/// libvirt 12.1 and later keep the key of their secrets so: made by their unit
/// `virt-secret-init-encryption.service`, which is this command.
#[tokio::test]
async fn the_key_around_libvirts_secrets_is_read_and_written() {
    let place = Place::new();
    let store = place.store();
    let file = place.path().join("secrets-encryption-key");
    let made = Command::new("sh")
        .args(["-c", "umask 0077; dd if=/dev/random status=none bs=32 count=1 | tee \"$1.clear\" | systemd-creds encrypt --name=secrets-encryption-key - \"$1\"", "sh"])
        .arg(&file)
        .status();
    assert!(made.expect("a shell").success());
    let key = fs::read(place.path().join("secrets-encryption-key.clear")).expect("there");
    assert_eq!(key.len(), 32);
    let options = GetOptions::default();
    let path = path("secrets-encryption-key");
    let came = store.get(&path, &options).await.expect("read");
    assert_eq!(came.value.expose(), key);

    // As `LoadCredentialEncrypted=secrets-encryption-key:FILE` opens it.
    let other: Vec<u8> = key.iter().map(|byte| !byte).collect();
    let value = SecretBytes::copy_from(&other);
    let done = store.put(&path, &value, &PutOptions::default()).await;
    done.expect("put");
    let name = "--name=secrets-encryption-key";
    let done = creds(&["decrypt", name, &file.to_string_lossy(), "-"], "");
    assert_eq!(done.stdout, other, "{done:?}");
}
