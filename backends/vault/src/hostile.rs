//! Stores before servers that answer what no Vault answers: the pages of load balancers, half an
//! answer, another answer, none.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use keyhaul_core::registry::Options;
use keyhaul_core::{
    ErrorKind, Field, GetOptions, ListOptions, PutMode, PutOptions, Request, SecretBytes,
    SecretPath, SecretStore as _, StoreConfig, Version,
};
use tempfile::TempDir;

use crate::VaultStore;
use crate::http::tests::Raw;
use crate::http::tests::raw::response;

/// A store at a server of few words, with a token.
struct Site {
    store: VaultStore,
    _folder: TempDir,
}

impl Site {
    fn at(server: &Raw, given: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let token = folder.path().join("token");
        let mut file = std::fs::OpenOptions::new();
        let mut file = file
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&token)
            .expect("opened");
        file.write_all(b"hvs.hunter2").expect("written");
        let source = format!("file:{}", token.display());
        let place = "keyhaul.toml:2:1";
        let auth = Options::at(place, [("method", "token"), ("token", &source)]);
        let mut options = Options::at(place, given.iter().copied());
        options.0.extend(Options::at(place, [("auth", auth)]).0);
        let url = format!("vault+{}/secret", server.url());
        let config = StoreConfig::new("site", &url, options, "keyhaul.toml:1:1").expect("a store");
        Self {
            store: VaultStore::open(&config).expect("opens"),
            _folder: folder,
        }
    }
}

fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

fn read() -> GetOptions {
    GetOptions::default()
}

fn say(stream: &mut TcpStream, status: u16, body: &str) -> bool {
    // A client that has gone is a client that has heard enough.
    let _ = stream.write_all(&response(status, "", body));
    false
}

/// What is not there may be made; what a page in between says is not known to be absent.
#[tokio::test]
async fn a_page_that_is_not_the_servers_is_never_taken_for_an_absent_secret() {
    let pages = [
        "<html>404 page not found</html>",
        r#"{"message":"no route"}"#,
        "",
        "null",
    ];
    for version in ["1", "2"] {
        for (page, expected) in pages
            .map(|page| (page, ErrorKind::Unavailable))
            .into_iter()
            .chain([(r#"{"errors":[]}"#, ErrorKind::NotFound)])
        {
            let server = Raw::answering(404, "", page);
            let site = Site::at(&server, &[("kv-version", version)]);
            let (at, what) = (path("vms/web01"), format!("{version} {page}"));
            let got = site.store.get(&at, &read()).await.expect_err("nothing");
            assert_eq!(got.kind(), expected, "{what}: {got}");
            let known = site.store.stat(&at, &read()).await.expect_err("nothing");
            assert_eq!(known.kind(), expected, "{what}: {known}");
            let listed = site.store.list(&at, &ListOptions::default()).await;
            match expected {
                ErrorKind::NotFound => assert!(listed.expect("nothing there").secrets.is_empty()),
                _ => assert_eq!(listed.expect_err("no list").kind(), expected, "{what}"),
            }
        }
    }
}

/// KV version 1 replaces maps: without their siblings, fields would be lost.
#[tokio::test]
async fn siblings_that_a_page_in_between_hides_are_not_written_over() {
    let server = Raw::new(|_, head, stream| match head {
        head if head.starts_with("GET /v1/sys/") => say(stream, 403, r#"{"errors":["no"]}"#),
        head if head.starts_with("GET /v1/auth/") => say(stream, 200, r#"{"data":{"ttl":0}}"#),
        head if head.starts_with("GET ") => say(stream, 404, "<html>404</html>"),
        _ => say(stream, 204, ""),
    });
    let site = Site::at(&server, &[("kv-version", "1")]);
    let value = SecretBytes::copy_from(b"x");
    let (at, options) = (path("a"), PutOptions::default());
    let error = site.store.put(&at, &value, &options).await;
    assert_eq!(error.expect_err("unseen").kind(), ErrorKind::Unavailable);
    assert!(!server.seen().iter().any(|head| head.starts_with("POST ")));
}

#[tokio::test]
async fn a_success_that_holds_no_secret_is_no_answer_and_stays_unprinted() {
    let deep = format!(r#"{{"data":{}"hunter2""#, "[".repeat(200_000));
    for (status, body) in [
        (200, r#"{"errors":["hunter2"]}"#),
        (200, r#"{"data":null,"hunter2":1}"#),
        (200, r#"{"data":{"data":{"value":"hunter2"}}}"#),
        (
            200,
            r#"{"data":{"data":{"value":"hunter2"},"metadata":{"version":"1"}}}"#,
        ),
        (200, r#"{"data":{"data":{"value":"hunter2"#),
        (200, r#"{"data":["hunter2"]}"#),
        (200, "<html>hunter2</html>"),
        (200, deep.as_str()),
        (204, ""),
    ] {
        let server = Raw::answering(status, "", body);
        let site = Site::at(&server, &[("kv-version", "2")]);
        let error = site.store.get(&path("a"), &read()).await.expect_err("none");
        let shown: String = body.chars().take(60).collect();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{shown}: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

fn version_3(value: &str) -> String {
    format!(
        r#"{{"data":{{"data":{value},"metadata":{{"version":3,"created_time":"2026-01-01T00:00:00Z","deletion_time":"","destroyed":false,"custom_metadata":null}}}}}}"#
    )
}

#[tokio::test]
async fn another_version_than_the_one_asked_for_is_no_answer() {
    let server = Raw::answering(200, "", &version_3(r#"{"value":"x"}"#));
    let site = Site::at(&server, &[("kv-version", "2")]);
    let version = |number: &str| read().version(Version::new(number).ok());
    let three = site.store.get(&path("a"), &version("3")).await;
    assert_eq!(three.expect("the one").value.expose(), b"x");
    let two = site.store.get(&path("a"), &version("2")).await;
    assert_eq!(two.expect_err("another").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn half_a_character_is_corrupt() {
    for (map, expected) in [
        (r#"{"value":"hunter2\ud800"}"#, ErrorKind::Corrupt),
        (r#"{"value":null}"#, ErrorKind::NotFound),
        (r#"["hunter2"]"#, ErrorKind::Corrupt),
    ] {
        let server = Raw::answering(200, "", &version_3(map));
        let site = Site::at(&server, &[("kv-version", "2")]);
        let error = site.store.get(&path("a"), &read()).await.expect_err(map);
        assert_eq!(error.kind(), expected, "{map}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Everybody waits for the answer which engine is mounted, and nobody for another's time limit.
#[tokio::test]
async fn a_hundred_who_wait_for_a_server_that_stalls_wait_once() {
    let server = Raw::new(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(60));
        false
    });
    let site = Site::at(&server, &[("client-timeout", "400ms")]);
    let paths: Vec<_> = (0..100)
        .map(|number| path(&format!("vms/{number}")))
        .collect();
    let start = Instant::now();
    for answer in site.store.get_many(&paths, &read()).await {
        assert_eq!(answer.expect_err("stalled").kind(), ErrorKind::Timeout);
    }
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn whoever_waits_for_anothers_question_keeps_to_the_own_deadline() {
    let server = Raw::new(|_, _, _| {
        std::thread::park_timeout(Duration::from_secs(60));
        false
    });
    let site = Site::at(&server, &[("client-timeout", "5s")]);
    let deadline = Instant::now() + Duration::from_millis(400);
    let hurried = read().request(Request::default().deadline(Some(deadline)));
    let (at, patient) = (path("a"), read());
    let error = tokio::select! {
        biased;
        _ = site.store.get(&at, &patient) => panic!("the first waits longer"),
        error = site.store.get(&at, &hurried) => error.expect_err("stalled"),
    };
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(Instant::now() < deadline + Duration::from_secs(2));
}

/// Each asks whether the token lives; that question stalling is no reason to ask it a hundred times.
#[tokio::test]
async fn a_hundred_who_are_denied_wait_once_for_a_lookup_that_stalls() {
    let server = Raw::new(|_, head, stream| {
        if head.contains("/auth/token/") {
            std::thread::park_timeout(Duration::from_secs(60));
            return false;
        }
        say(stream, 403, r#"{"errors":["permission denied"]}"#)
    });
    let given = [("client-timeout", "1500ms"), ("kv-version", "2")];
    let site = Site::at(&server, &given);
    let paths: Vec<_> = (0..50)
        .map(|number| path(&format!("vms/{number}")))
        .collect();
    let start = Instant::now();
    for answer in site.store.get_many(&paths, &read()).await {
        assert_eq!(answer.expect_err("unsettled").kind(), ErrorKind::Timeout);
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}

/// A refusal that has nothing to do with versions is told as what it is, and soon.
#[tokio::test]
async fn what_the_server_does_not_take_is_no_contention() {
    for current in [
        (404, r#"{"errors":[]}"#.to_owned()),
        (200, version_3(r#"{"other":"x"}"#)),
        (404, version_3("null")),
    ] {
        for mode in [
            PutMode::Create,
            PutMode::Overwrite,
            PutMode::Update(Version::new("3").expect("a version")),
        ] {
            let (status, body) = current.clone();
            let gone = status == 404;
            let server = Raw::new(move |_, head, stream| match head {
                head if head.starts_with("GET /v1/sys/internal/") => say(
                    stream,
                    200,
                    r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#,
                ),
                head if head.starts_with("GET ") => say(stream, status, &body),
                _ => say(stream, 400, r#"{"errors":["too complex"]}"#),
            });
            let site = Site::at(&server, &[]);
            let options = PutOptions::default()
                .mode(mode.clone())
                .field(Field::new("value").ok());
            let value = SecretBytes::copy_from(b"hunter2");
            let put = site.store.put(&path("a"), &value, &options).await;
            let error = put.expect_err("refused");
            let expected = match mode {
                PutMode::Update(_) if gone => ErrorKind::NotFound,
                _ => ErrorKind::InvalidReference,
            };
            assert_eq!(error.kind(), expected, "{mode:?} {status}: {error}");
            let requests = server.seen().len();
            assert!(requests < 40, "{mode:?} {status}: {requests} requests");
        }
    }
}

/// A 400 to a reading: of an engine that is not ready, of letters that servers take in no path, and of a
/// server that speaks only TLS.
#[tokio::test]
async fn a_reading_that_is_refused_is_told_by_who_refuses_it() {
    let not_now = r#"{"errors":["Upgrading from non-versioned to versioned data."]}"#;
    let tls_only = "Client sent an HTTP request to an HTTPS server.\n";
    for (body, at, expected) in [
        (not_now, "vms/a", ErrorKind::Unavailable),
        (not_now, "vms/a\u{a0}", ErrorKind::InvalidReference),
        (tls_only, "vms/a", ErrorKind::InvalidConfig),
    ] {
        let server = Raw::new(move |_, head, stream| match head {
            head if head.starts_with("GET /v1/sys/internal/") => say(
                stream,
                200,
                r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#,
            ),
            _ => say(stream, 400, body),
        });
        let site = Site::at(&server, &[]);
        let (at, value) = (path(at), SecretBytes::copy_from(b"x"));
        let create = PutOptions::default().mode(PutMode::Create);
        for error in [
            site.store.get(&at, &read()).await.map(drop),
            site.store.stat(&at, &read()).await.map(drop),
            site.store
                .list(&at, &ListOptions::default())
                .await
                .map(drop),
            site.store.put(&at, &value, &create).await.map(drop),
        ] {
            let error = error.expect_err("refused");
            assert_eq!(error.kind(), expected, "{body}: {error}");
        }
    }
}

/// A name that is not in the map costs no credential that nobody knows of.
#[tokio::test]
async fn a_credential_without_the_field_meant_is_given_back() {
    let server = Raw::new(|_, head, stream| match head {
        head if head.starts_with("GET ") => say(
            stream,
            200,
            r#"{"lease_id":"secret/creds/web/7","lease_duration":60,"data":{"password":"x"}}"#,
        ),
        _ => say(stream, 204, ""),
    });
    let site = Site::at(&server, &[("engine", "leased")]);
    let options = read().field(Field::new("pasword").ok());
    let error = site.store.get(&path("creds/web"), &options).await;
    assert_eq!(error.expect_err("no such").kind(), ErrorKind::NotFound);
    let given_back = "PUT /v1/sys/leases/revoke/secret/creds/web/7 ";
    assert!(
        server
            .seen()
            .iter()
            .any(|head| head.starts_with(given_back))
    );
    let named = read().field(Field::new("password").ok());
    let before = server.seen().len();
    site.store
        .get(&path("creds/web"), &named)
        .await
        .expect("kept");
    assert_eq!(server.seen().len(), before + 1);
}

/// The greatest numbers that JSON and headers have room for do not break clocks.
#[tokio::test]
async fn times_without_end_are_no_panic() {
    let most = u64::MAX;
    let lent = format!(
        r#"{{"lease_id":"database/creds/web/1","lease_duration":{most},"renewable":true,"data":{{"password":"x"}}}}"#
    );
    let server = Raw::answering(200, "", &lent);
    let site = Site::at(&server, &[("engine", "leased")]);
    let secret = site.store.get(&path("creds/web"), &read()).await;
    let metadata = secret.expect("lent").metadata;
    assert_eq!(metadata.expires, None);
    assert_eq!(
        metadata.lease.expect("a lease").duration,
        Duration::from_secs(most)
    );

    let server = Raw::answering(429, &format!("Retry-After: {most}\r\n"), "{}");
    let milliseconds = format!("{most}ms");
    let given = [
        ("kv-version", "2"),
        ("client-timeout", milliseconds.as_str()),
    ];
    let site = Site::at(&server, &given);
    let error = site.store.get(&path("a"), &read()).await.expect_err("429");
    assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");

    // A token that never ends, as far as numbers go.
    let life = format!(
        r#"{{"data":{{"ttl":{most},"creation_ttl":{most},"period":{most},"renewable":true,"num_uses":-1}}}}"#
    );
    let server = Raw::new(move |_, head, stream| match head {
        head if head.contains("lookup-self") => say(stream, 200, &life),
        _ => say(stream, 403, r#"{"errors":["permission denied"]}"#),
    });
    let site = Site::at(&server, &[("kv-version", "2")]);
    for _ in 0..2 {
        let error = site.store.get(&path("a"), &read()).await.expect_err("403");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}
