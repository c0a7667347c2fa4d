//! Certificates: wrong ones, in words that help, and new ones, without a restart.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, GetOptions, SecretStore as _};
use keyhaul_servers::{Authority, Issued, Mode, Proxy, free_port};
use tokio::io::AsyncWriteExt as _;

use crate::keys::{Keys, problem};
use crate::path;
use crate::site::{Site, config};
use crate::stage::{self, Said, Stage};

/// What a client says of a server with this certificate, for clients of this authority.
async fn refusal(site: &Site, issued: &Issued, clients: &str, protocol: &[u8]) -> Error {
    let stage = Stage::new(stage::tls(issued, clients, protocol), |_| Said::Nothing).await;
    let address = stage.address().to_string();
    let store = site.store(std::slice::from_ref(&address));
    let error = store.probe().await.expect_err("refused");
    assert!(error.message().contains(&address), "{error}");
    assert_eq!(stage.requests(), Vec::<String>::new(), "nothing was asked");
    error
}

#[tokio::test]
async fn each_thing_that_is_wrong_with_a_servers_certificate_has_its_words() {
    let site = Site::new();
    let ours = site.authority.pem();
    let here = &["127.0.0.1"];
    let namesake = Authority::new("keys of the test");
    let cases = [
        (
            Authority::new("another").server(here),
            "authority that is not the one of `ca-cert`",
        ),
        (
            namesake.server(here),
            "that the authority of that name did not sign",
        ),
        (site.authority.expired_server(here), "has expired"),
        (
            site.authority.server(&["keys.example.com"]),
            "for another name",
        ),
        (site.authority.client("y"), "cannot be used"),
    ];
    for (issued, words) in cases {
        let error = refusal(&site, &issued, &ours, b"h2").await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.message().contains(words), "{error}");
        assert!(error.advice().is_some());
    }
    let issued = site.authority.server(here);
    let error = refusal(&site, &issued, &ours, b"http/1.1").await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.message().contains("does not speak HTTP/2"), "{error}");
}

#[tokio::test]
async fn each_thing_that_is_wrong_with_our_certificate_has_its_words() {
    let site = Site::new();
    let here = site.authority.server(&["127.0.0.1"]);
    let another = Authority::new("another").pem();
    let error = refusal(&site, &here, &another, b"h2").await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    assert!(
        error.message().contains("authority of our certificate"),
        "{error}"
    );
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("client-ca"))
    );

    // For servers, but its time is judged first.
    let expired = site.authority.expired_server(&["y"]);
    expired.write(site.folder.path(), "y");
    let error = refusal(&site, &here, &site.authority.pem(), b"h2").await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    assert!(
        error.message().contains("our certificate has expired"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_tls_server_has_its_words() {
    let site = Site::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = site.store(&[address]).probe().await.expect_err("no TLS");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.message().contains("does not speak TLS"), "{error}");

    let nobody = format!("127.0.0.1:{}", free_port());
    let error = site.store(&[nobody]).probe().await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("nothing listens there"), "{error}");

    let nowhere = "keys.invalid:8443".to_owned();
    let error = site.store(&[nowhere]).probe().await.expect_err("nowhere");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("keys.invalid"), "{error}");
}

#[tokio::test]
async fn files_that_are_wrong_are_named_by_their_options() {
    let break_one = |name: &'static str, text: Option<&'static str>| async move {
        let site = Site::new();
        match text {
            Some(text) => std::fs::write(site.path(name), text).expect("written"),
            None => std::fs::remove_file(site.path(name)).expect("removed"),
        }
        let store = site.store(&[format!("127.0.0.1:{}", free_port())]);
        let error = store.probe().await.expect_err("a file that is wrong");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        error.message().to_owned()
    };
    for (name, option) in [
        ("ca.pem", "ca-cert"),
        ("y.crt", "client-cert"),
        ("y.key", "client-key"),
    ] {
        for text in [None, Some("hunter2")] {
            let message = break_one(name, text).await;
            assert!(message.contains(&format!("`{option}`")), "{message}");
        }
    }
    let site = Site::new();
    std::fs::write(site.path("y.key"), site.authority.client("z").key_pem).expect("written");
    let store = site.store(&[format!("127.0.0.1:{}", free_port())]);
    let error = store.probe().await.expect_err("another's key");
    assert!(error.message().contains("do not fit each other"), "{error}");
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(site.path("y.key"), open).expect("opened up");
    let store = site.store(&[format!("127.0.0.1:{}", free_port())]);
    let error = store.probe().await.expect_err("open to others");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.message().contains("`client-key`"), "{error}");
}

#[tokio::test]
async fn opening_a_store_touches_no_file_and_no_server() {
    let folder = std::path::Path::new("/nonexistent");
    let store = config(folder, &["keys.invalid".to_owned()]);
    keyhaul_remote::client::RemoteStore::open(&store).expect("opens");
}

/// A service that notes whom it has seen.
async fn noting(site: &Site) -> (Stage, Arc<Mutex<BTreeSet<[u8; 32]>>>) {
    let keys = Keys::new().with("web01/root", b"correct horse");
    let seen: Arc<Mutex<BTreeSet<[u8; 32]>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let stage = Stage::new(site.tls(), move |asked| {
        noted.lock().expect("a lock").insert(asked.client);
        keys.answer(asked)
    });
    (stage.await, seen)
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let site = Site::new();
    let (stage, seen) = noting(&site).await;
    let store = site.store(&[stage.address().to_string()]);
    let get = || async {
        let got = store.get(&path("web01/root"), &GetOptions::default()).await;
        assert_eq!(got.expect("read").value.expose(), b"correct horse");
        seen.lock().expect("a lock").len()
    };
    assert_eq!(get().await, 1);

    // Half a renewal: the old goes on.
    let renewed = site.authority.client("y");
    std::fs::write(site.path("y.crt"), &renewed.certificate_pem).expect("written");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(get().await, 1);

    renewed.write(site.folder.path(), "y");
    let start = std::time::Instant::now();
    while get().await == 1 {
        assert!(start.elapsed() < Duration::from_secs(10), "never taken up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stage.connections(), 2);
}

#[tokio::test]
async fn a_refused_certificate_that_was_renewed_meanwhile_is_shown_at_once() {
    let site = Site::new();
    let keys = Keys::new().with("web01/root", b"correct horse");
    let first: Mutex<Option<[u8; 32]>> = Mutex::default();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let stage = Stage::new(site.tls(), move |asked| {
        let mut first = first.lock().expect("a lock");
        let first = *first.get_or_insert(asked.client);
        // The first certificate is good for one request.
        if count.fetch_add(1, Ordering::SeqCst) > 0 && asked.client == first {
            return problem(ErrorKind::Unauthenticated, "the certificate has expired");
        }
        keys.answer(asked)
    })
    .await;
    let store = site.store(&[stage.address().to_string()]);
    let get = || async { store.get(&path("web01/root"), &GetOptions::default()).await };
    get().await.expect("read");
    let error = get().await.expect_err("nothing was renewed");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert_eq!(requests.load(Ordering::SeqCst), 2, "asked once");

    site.authority.client("y").write(site.folder.path(), "y");
    assert_eq!(
        get().await.expect("as renewed").value.expose(),
        b"correct horse"
    );
}

/// A long life ends with an expired or revoked certificate: whoever looks is told so, and not that
/// connections break.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_refused_after_years_of_service_is_told_as_that() {
    let site = Site::new();
    let (stage, _) = noting(&site).await;
    let proxy = Proxy::to(&stage.address().to_string());
    let store = site.store(&[proxy.address().to_string()]);
    let get = || async { store.get(&path("web01/root"), &GetOptions::default()).await };
    get().await.expect("read");

    let issued = site.authority.server(&["127.0.0.1"]);
    stage.speak(stage::tls(&issued, &Authority::new("another").pem(), b"h2"));
    proxy.set(Mode::Reset);
    proxy.set(Mode::Pass);
    // The first that fails may find the old connection broken; the layers would try again.
    let start = std::time::Instant::now();
    let first = loop {
        match get().await {
            Err(error) => break error,
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(10), "never reset"),
        }
    };
    let kinds = [ErrorKind::Unauthenticated, ErrorKind::Unavailable];
    assert!(kinds.contains(&first.kind()), "{first:?}");
    for _ in 0..3 {
        let error = get().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    }
}
