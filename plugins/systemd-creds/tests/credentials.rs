//! What lies in the folder: systemd's own credentials, and what passes for them.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keyhaul_core::{
    ErrorKind, GetOptions, ListOptions, PutOptions, Request, Result, SecretBytes, SecretPath,
    SecretStore,
};
use support::{Place, creds, open, options, path, secret};

async fn read(store: &dyn SecretStore, name: &str) -> Result<String> {
    let came = store.get(&path(name), &GetOptions::default()).await?;
    Ok(String::from_utf8(came.value.expose().to_vec()).expect("text"))
}

async fn write(store: &dyn SecretStore, name: &str, value: &str) {
    let options = PutOptions::default();
    let done = store.put(&path(name), &secret(value), &options).await;
    done.expect("put");
}

async fn kind(store: &dyn SecretStore, name: &str) -> ErrorKind {
    read(store, name).await.expect_err(name).kind()
}

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
async fn the_value_is_in_no_argument_no_environment_and_no_file() {
    let place = Place::new();
    let seen = place.path().join(".seen");
    let seen = seen.to_string_lossy();
    let does = format!("{{ echo \"$@\"; env; ls -l /proc/self/fd; }} >>{seen}");
    let program = place.program(&does);
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    write(&*store, "a-name", "very-secret-value").await;
    assert_eq!(
        read(&*store, "a-name").await.expect("read"),
        "very-secret-value"
    );
    for file in fs::read_dir(place.path()).expect("listed") {
        let bytes = fs::read(file.expect("an entry").path()).expect("read");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("very-secret"), "{text}");
    }
    let seen = fs::read_to_string(&*seen).expect("seen");
    // The controls: both runs were seen, and what was in them.
    for part in ["encrypt --name=a-name", "decrypt --name=a-name", "PWD=/"] {
        assert!(seen.contains(part), "{seen}");
    }
    assert!(!seen.contains("CARGO"), "{seen}");
}

#[tokio::test]
async fn a_program_that_hangs_is_given_up_by_the_callers_deadline() {
    let place = Place::new();
    let program = place.program("exec sleep 1000");
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    place.encrypt("a", &["--with-key=host"], "value");
    let begun = Instant::now();
    let request = Request::default().deadline(Some(begun + Duration::from_millis(200)));
    let options = GetOptions::default().request(request.clone());
    let error = store.get(&path("a"), &options).await.expect_err("hangs");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let options = PutOptions::default().request(request);
    let error = store.put(&path("a"), &secret("new"), &options).await;
    assert_eq!(error.expect_err("hangs").kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(10));
    // What was there is intact.
    assert_eq!(read(&*place.store(), "a").await.expect("read"), "value");
}

#[tokio::test]
async fn a_program_that_seals_another_value_overwrites_nothing() {
    let place = Place::new();
    write(&*place.store(), "a", "value").await;
    let program = place.program(
        "if [ \"$1\" = encrypt ]; then { echo more; cat; } | /usr/bin/systemd-creds \"$@\"; exit; fi",
    );
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    let options = PutOptions::default();
    let error = store.put(&path("a"), &secret("new"), &options).await;
    let error = error.expect_err("another value");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(read(&*store, "a").await.expect("read"), "value");
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

#[tokio::test]
async fn a_credential_for_a_tpm2_that_is_not_there_is_no_damage() {
    // Where there is one, what it does not open is damaged.
    let expected = match creds(&["has-tpm2"], "").status.success() {
        true => ErrorKind::Corrupt,
        false => ErrorKind::Unavailable,
    };
    let place = Place::new();
    let store = place.store();
    // Begun as one that is sealed to a TPM2 alone, and as one that needs the host's key, too.
    for start in ["DHzAexF2RZGcSwvqCLwg/g", "k6iUCUh0RJCQyvL8k8q1Uw"] {
        fs::write(
            place.path().join("a"),
            format!("{start}{}", "A".repeat(200)),
        )
        .expect("written");
        let error = read(&*store, "a").await.expect_err("no TPM2");
        assert_eq!(error.kind(), expected, "{error:?}");
        let told = error
            .advice()
            .is_some_and(|advice| advice.contains("tpm2") || advice.contains("TPM2"));
        assert!(told, "{error:?}");
    }
    // The control.
    fs::write(
        place.path().join("a"),
        format!("Whxqht+dQJax1aZeCGLxmi{}", "A".repeat(200)),
    )
    .expect("written");
    assert_eq!(kind(&*store, "a").await, ErrorKind::Corrupt);
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

/// Runs this one test again, by these words before it, with this in its environment. What it said.
fn again(words: &[&str], test: &str, folder: &Path) -> String {
    let place = tempfile::tempdir().expect("a folder");
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    // Where anybody can run it.
    let copy = place.path().join("test");
    fs::copy(std::env::current_exe().expect("itself"), &copy).expect("copied");
    let done = Command::new(words[0])
        .args(&words[1..])
        .arg(&copy)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, folder)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; apt-get install util-linux", words[0]));
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    said
}

/// Set inside of what `again` runs.
const INSIDE: &str = "KEYHAUL_TEST_FOLDER";

#[tokio::test]
async fn whoever_may_not_use_the_hosts_key_is_told_so() {
    if let Ok(folder) = std::env::var(INSIDE) {
        let store = open(options(&[("folder", &folder), ("key", "host")]));
        // From version 256 on, a service of systemd's may do it for others, or refuse in its turn.
        if let Err(error) = read(&*store, "a").await {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        }
        return;
    }
    let place = Place::new();
    place.encrypt("a", &["--with-key=host"], "value");
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let readable = PermissionsExt::from_mode(0o644);
    fs::set_permissions(place.path().join("a"), readable).expect("a mode");
    let nobody = [
        "setpriv",
        "--reuid=61234",
        "--regid=61234",
        "--clear-groups",
    ];
    again(
        &nobody,
        "whoever_may_not_use_the_hosts_key_is_told_so",
        place.path(),
    );
}

#[tokio::test]
async fn a_host_without_a_key_says_so_and_makes_one_with_the_first_write() {
    const HOST_KEY: &str = "/var/lib/systemd/credential.secret";
    if let Ok(folder) = std::env::var(INSIDE) {
        assert!(!Path::new(HOST_KEY).exists());
        let store = open(options(&[("folder", &folder), ("key", "host")]));
        let error = read(&*store, "theirs").await.expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains(HOST_KEY), "{error}");
        write(&*store, "ours", "value").await;
        assert_eq!(read(&*store, "ours").await.expect("read"), "value");
        // Now there is a key, and it is another one.
        assert_eq!(kind(&*store, "theirs").await, ErrorKind::Corrupt);

        // systemd keeps from sealing to a key that is gone with the next boot, unless it is told to.
        fs::remove_file(HOST_KEY).expect("gone");
        let store = open(options(&[("folder", &folder)]));
        let value = secret("value");
        let options = PutOptions::default();
        let done = store.put(&path("auto"), &value, &options).await;
        let done = done.map_err(|error| error.kind()).map(|_| ());
        let has_tpm2 = creds(&["has-tpm2"], "").status.success();
        let expected = has_tpm2.then_some(()).ok_or(ErrorKind::Unavailable);
        assert_eq!(done, expected);
        return;
    }
    let place = Place::new();
    place.encrypt("theirs", &["--with-key=host"], "value");
    // A host that was never booted, as a container is: systemd's folder is empty, and in memory.
    let script = "mount -t tmpfs none /var/lib/systemd && exec \"$@\"";
    again(
        &["unshare", "--mount", "sh", "-c", script, "sh"],
        "a_host_without_a_key_says_so_and_makes_one_with_the_first_write",
        place.path(),
    );
    // The control: here it opens.
    assert_eq!(
        read(&*place.store(), "theirs").await.expect("ours"),
        "value"
    );
}
