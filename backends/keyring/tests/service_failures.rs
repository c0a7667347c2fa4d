//! What can be wrong with a desktop's keyring: each its own error, in time, with a way out.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::registry::Value;
use keyhaul_core::{Error, ErrorKind, GetOptions, PutOptions, SecretStore};
use keyhaul_servers::{SecretService, SessionBus, dead_socket};
use support::{impatient, open, path, run, secret, text};

const URL: &str = "keyring+secret-service:";

fn store(bus: &str) -> Arc<dyn SecretStore> {
    open(URL, &[("bus", text(bus))])
}

async fn fails(store: &dyn SecretStore) -> Error {
    let start = Instant::now();
    let read = store.get(&path("a/b"), &GetOptions::default()).await;
    let probed = store.probe().await.expect_err("a probe that fails");
    let error = read.expect_err("a failure");
    assert_eq!(error.kind(), probed.kind());
    assert_eq!(error.message(), probed.message());
    assert!(error.advice().is_some(), "{error} says what to do");
    assert!(start.elapsed() < Duration::from_secs(10), "{error} in time");
    error
}

/// The limit of the layer around it is kept, to the second.
async fn is_late(store: &dyn SecretStore) {
    let start = Instant::now();
    let error = store.get(&path("a/b"), &GetOptions::default()).await;
    assert_eq!(error.expect_err("no answer").kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[track_caller]
fn says(error: &Error, kind: ErrorKind, words: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.message().contains(words), "{error:?}");
}

#[tokio::test]
async fn a_bus_that_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = format!("unix:path={}/bus", folder.path().display());
    let error = fails(&*store(&absent)).await;
    says(&error, ErrorKind::Unavailable, "no D-Bus session bus at");
    // A socket that a dead bus left behind.
    let left = folder.path().join("left");
    dead_socket(&left);
    let error = fails(&*store(&format!("unix:path={}", left.display()))).await;
    says(&error, ErrorKind::Unavailable, "no D-Bus session bus at");
    let error = fails(&*store("unix:nonsense")).await;
    says(&error, ErrorKind::InvalidConfig, "none that D-Bus knows");
}

/// The environment is a process' own: this very test again, without one.
#[tokio::test]
async fn no_session_at_all() {
    const TEST: &str = "no_session_at_all";
    let bare = [
        "env",
        "-u",
        "DBUS_SESSION_BUS_ADDRESS",
        "-u",
        "XDG_RUNTIME_DIR",
    ];
    if support::in_session_by(TEST, &bare) {
        let error = fails(&*open(URL, &[])).await;
        says(&error, ErrorKind::Unavailable, "there is no D-Bus session:");
    }
}

#[tokio::test]
async fn the_environment_leads_to_the_bus() {
    if support::is_inside() {
        open(URL, &[])
            .probe()
            .await
            .expect("the bus of the environment");
        return;
    }
    let service = SecretService::start();
    let address = format!("DBUS_SESSION_BUS_ADDRESS={}", service.address());
    let folder = service.bus().socket();
    let folder = format!(
        "XDG_RUNTIME_DIR={}",
        folder.parent().expect("run").display()
    );
    let test = "the_environment_leads_to_the_bus";
    support::in_session_by(test, &["env", "-u", "XDG_RUNTIME_DIR", &address]);
    support::in_session_by(test, &["env", "-u", "DBUS_SESSION_BUS_ADDRESS", &folder]);
}

#[tokio::test]
async fn a_bus_without_a_service() {
    let bus = SessionBus::start();
    let error = fails(&*store(&bus.address())).await;
    says(
        &error,
        ErrorKind::Unavailable,
        "no Secret Service on the session bus",
    );
}

/// First the folder keeps that user out, then the bus itself.
#[tokio::test]
async fn a_bus_of_another_user() {
    const TEST: &str = "a_bus_of_another_user";
    if support::is_inside() {
        let error = fails(&*open(URL, &[])).await;
        says(&error, ErrorKind::PermissionDenied, "this user");
        return;
    }
    let bus = SessionBus::start();
    let address = format!("DBUS_SESSION_BUS_ADDRESS={}", bus.address());
    support::as_another_user(TEST, &["env", &address]);
    let folders = bus.socket();
    for folder in folders.ancestors().skip(1).take(2) {
        let mode = Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, mode).expect("a mode");
    }
    support::as_another_user(TEST, &["env", &address]);
}

#[tokio::test]
async fn a_socket_that_is_no_bus() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("bus");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    // It takes connections and says nothing.
    let silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let store = impatient(
        store(&format!("unix:path={}", socket.display())),
        Duration::from_millis(500),
    );
    is_late(&*store).await;
    silent.abort();
}

#[tokio::test]
async fn a_locked_collection_is_known_beforehand() {
    let service = SecretService::start();
    let store = store(&service.address());
    let put = store
        .put(&path("a/b"), &secret("x"), &PutOptions::default())
        .await;
    put.expect("unlocked");
    service.lock();
    let error = fails(&*store).await;
    says(&error, ErrorKind::Unauthenticated, "collection is locked");
    let refused = store
        .put(&path("a/b"), &secret("y"), &PutOptions::default())
        .await;
    says(
        &refused.expect_err("locked"),
        ErrorKind::Unauthenticated,
        "collection is locked",
    );
    let listed = store
        .list(&keyhaul_core::SecretPath::root(), &Default::default())
        .await;
    says(
        &listed.expect_err("locked"),
        ErrorKind::Unauthenticated,
        "collection is locked",
    );
}

/// gnome-keyring has nobody to show a prompt on this bus, and takes that for a no.
#[tokio::test]
async fn a_prompt_dismissed() {
    let service = SecretService::start();
    service.lock();
    let options = [
        ("bus", text(&service.address())),
        ("prompt", Value::Boolean(true)),
    ];
    let error = fails(&*open(URL, &options)).await;
    says(
        &error,
        ErrorKind::Unauthenticated,
        "prompt to unlock the keyring was dismissed",
    );
}

/// The name of GNOME's prompter belongs to somebody who never answers.
#[tokio::test]
async fn a_prompt_never_answered() {
    let service = SecretService::start();
    service.lock();
    let prompter = zbus::connection::Builder::address(service.address().as_str())
        .expect("an address")
        .name("org.gnome.keyring.SystemPrompter")
        .expect("a name")
        .build()
        .await
        .expect("on the bus");
    let options = [
        ("bus", text(&service.address())),
        ("prompt", Value::Boolean(true)),
    ];
    let store = impatient(open(URL, &options), Duration::from_secs(1));
    is_late(&*store).await;
    drop(prompter);
}

#[tokio::test]
async fn a_collection_that_is_missing_is_named_beside_those_there_are() {
    let service = SecretService::start();
    let options = [("bus", text(&service.address()))];
    let error = fails(&*open("keyring+secret-service:/nowhere", &options)).await;
    says(&error, ErrorKind::InvalidConfig, "no collection `nowhere`");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("login"))
    );
    // By alias, by the object's name and by label it is found.
    for name in ["default", "login", "Login"] {
        let found = open(&format!("keyring+secret-service:/{name}"), &options)
            .probe()
            .await;
        found.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

#[tokio::test]
async fn a_keyring_without_a_default_collection() {
    let service = SecretService::start();
    let store = store(&service.address());
    store.probe().await.expect("there is one");
    let mut command = service.command("dbus-send");
    command.args([
        "--session",
        "--print-reply",
        "--dest=org.freedesktop.secrets",
        "/org/freedesktop/secrets",
        "org.freedesktop.Secret.Service.SetAlias",
        "string:default",
        "objpath:/",
    ]);
    support::says(command, b"");
    let error = fails(&*store).await;
    says(&error, ErrorKind::InvalidConfig, "no default collection");
}

#[tokio::test]
async fn a_service_that_hangs() {
    let service = SecretService::start();
    let bare = store(&service.address());
    bare.probe().await.expect("it answers");
    let store = impatient(bare.clone(), Duration::from_millis(500));
    service.freeze();
    is_late(&*store).await;
    // The store's own limit is below the layer's of ten seconds, whose words know nothing of this.
    let start = Instant::now();
    let error = bare.probe().await.expect_err("no answer");
    says(&error, ErrorKind::Timeout, "did not answer in time");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("restart it"))
    );
    assert!(start.elapsed() < Duration::from_secs(10));
    service.thaw();
    bare.probe().await.expect("it answers again");
}

/// A process with a request on the way to a service that hangs still ends.
#[tokio::test]
async fn a_hung_service_does_not_keep_the_process() {
    const TEST: &str = "a_hung_service_does_not_keep_the_process";
    if support::is_inside() {
        let waiting = impatient(open(URL, &[]), Duration::from_millis(300));
        let error = waiting.probe().await.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        return;
    }
    let service = SecretService::start();
    service.freeze();
    let start = Instant::now();
    let address = format!("DBUS_SESSION_BUS_ADDRESS={}", service.address());
    support::in_session_by(TEST, &["env", &address]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    service.thaw();
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_and_comes_back() {
    let mut service = SecretService::start();
    let store = store(&service.address());
    let (name, put) = (path("a/b"), PutOptions::default());
    store.put(&name, &secret("kept"), &put).await.expect("put");
    service.freeze();
    let asked = {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move { store.get(&name, &GetOptions::default()).await })
    };
    // The request is on its way once its task has run as far as it can.
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.kill();
    let error = asked.await.expect("no panic").expect_err("it died");
    says(&error, ErrorKind::Unavailable, "");
    let error = fails(&*store).await;
    says(
        &error,
        ErrorKind::Unavailable,
        "no Secret Service on the session bus",
    );
    service.restart();
    let came = store.get(&name, &GetOptions::default()).await.expect("get");
    assert_eq!(came.value, secret("kept"));
    // A new service under an old connection: also a write goes through at the first try.
    service.restart();
    store.put(&name, &secret("new"), &put).await.expect("put");
}

#[tokio::test]
async fn a_bus_that_dies_under_a_connection() {
    let service = SecretService::start();
    let store = store(&service.address());
    store.probe().await.expect("it answers");
    drop(service);
    let error = fails(&*store).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

/// The values cross the bus encrypted unless the policy says `plain`: the bus itself tells.
#[tokio::test]
async fn only_a_plain_session_shows_values_to_the_bus() {
    let service = SecretService::start();
    for (session, seen) in [("dh", false), ("plain", true)] {
        let value = format!("needle-{session}-b4f1c2d3e4a5");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = service.command("dbus-monitor");
        command
            .args(["--session", "--pcap"])
            .stdout(log.reopen().expect("the file"));
        let mut monitor = command.spawn().expect("dbus-monitor: apt-get install dbus");
        let options = [
            ("bus", text(&service.address())),
            ("session", text(session)),
        ];
        let store = open(URL, &options);
        let read = || std::fs::read(log.path()).expect("the log");
        let holds = |needle: &str| {
            read()
                .windows(needle.len())
                .any(|at| at == needle.as_bytes())
        };
        // The monitor sees, once it sees anything, all that comes after.
        let start = Instant::now();
        while !holds("probe-of-the-monitor") {
            assert!(start.elapsed() < Duration::from_secs(10), "the monitor");
            let mut asked = service.command("secret-tool");
            asked.args(["lookup", "any", "probe-of-the-monitor"]);
            run(asked, b"");
        }
        let name = path(&format!("watched/{session}"));
        store
            .put(&name, &secret(&value), &PutOptions::default())
            .await
            .expect("put");
        store.get(&name, &GetOptions::default()).await.expect("get");
        let start = Instant::now();
        let end = format!("end-{session}");
        while !holds(&end) {
            assert!(start.elapsed() < Duration::from_secs(10), "the monitor");
            let mut asked = service.command("secret-tool");
            asked.args(["lookup", "any", &end]);
            run(asked, b"");
        }
        monitor.kill().expect("ended");
        monitor.wait().expect("ended");
        assert_eq!(holds(&value), seen, "{session}");
    }
}
