//! What is malformed, oversized, slow or hostile: refused, with the others still served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use keyhaul_remote::protocol::path;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::site::{Peer, Site, client_config};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn raw(site: &Site) -> TlsStream<TcpStream> {
    let issued = site.authority.client(321, &["spiffe://site/operator/all"]);
    let config = client_config(site, Some(&issued), &[b"http/1.1"]);
    let stream = TcpStream::connect(site.server.addresses()[0])
        .await
        .expect("connected");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.expect("a handshake")
}

/// Everything that is answered until the far end closes, or says no more for a while.
async fn said(stream: &mut TlsStream<TcpStream>, patience: Duration) -> (String, bool) {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
            Ok(Ok(0) | Err(_)) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(Ok(n)) => answer.extend_from_slice(&buffer[..n]),
        }
    }
}

async fn ask(site: &Site, request: &str) -> (String, bool) {
    let mut stream = raw(site).await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    said(&mut stream, Duration::from_secs(2)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_methods_are_matched_to_the_byte() {
    let site = Site::start().await;
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let issued = site.authority.client(322, &["spiffe://site/operator/all"]);
        let peer = Peer::new(&site, Some(&issued), &[alpn]);
        for at in [
            "/",
            "/v1",
            "/v1/",
            "/v2/service",
            "/v1/service/",
            "//v1/service",
            "/v1//service",
            "/%761/service",
            "/v1/service%2f",
            "/v1/Service",
            "/v1/secrets/read/x",
            "/v1/service;x",
        ] {
            let answer = peer
                .send(Method::GET, at, &[], None)
                .await
                .expect("an answer");
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{at}");
            assert_eq!(answer.kind(), "NotFound", "{at}");
        }
        for (method, at, allow) in [
            (Method::OPTIONS, path::SERVICE, "GET"),
            (Method::POST, path::SERVICE, "GET"),
            (Method::GET, path::READ, "POST"),
            (Method::PUT, path::GRANTS, "GET, POST"),
            (Method::DELETE, path::SECRETS, "GET"),
        ] {
            let answer = peer
                .send(method.clone(), at, &[], None)
                .await
                .expect("an answer");
            assert_eq!(
                answer.status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {at}"
            );
            assert_eq!(answer.headers["allow"], allow);
            assert_eq!(answer.kind(), "Unsupported");
        }
        let head = peer
            .send(Method::HEAD, path::SERVICE, &[], None)
            .await
            .expect("an answer");
        assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let (answer, _) = ask(&site, "GET /v1/../v1/service HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let absolute = "GET https://elsewhere/v1/service HTTP/1.1\r\nhost: x\r\n\r\n";
    let (answer, _) = ask(&site, absolute).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_servers_could_read_differently_is_not_read_at_all() {
    let site = Site::start().await;
    let body = "{}";
    let smuggled = "GET /v1/audit HTTP/1.1\r\nhost: x\r\n\r\n";
    let head = "POST /v1/secrets/write HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for (what, request) in [
        (
            "two lengths",
            format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{body}{smuggled}"),
        ),
        (
            "a length and chunks",
            format!(
                "{head}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "chunks that are none",
            format!("{head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked twice",
            format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a space before the colon",
            format!("{head}content-length : 2\r\n\r\n{body}{smuggled}"),
        ),
        (
            "a folded header",
            format!("{head}x: a\r\n content-length: 2\r\n\r\n{body}{smuggled}"),
        ),
        (
            "a bare line",
            format!("{head}content-length: +2\r\n\r\n{body}{smuggled}"),
        ),
        ("no version", "GET /v1/service\r\n\r\n".to_owned()),
    ] {
        let (answer, closed) = ask(&site, &request).await;
        assert!(!answer.contains("\"records\""), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
        assert!(closed, "{what}: {answer}");
    }
    // The control: the two, one after the other as they should be.
    let request = format!("{head}content-length: 2\r\n\r\n{body}{smuggled}");
    let (answer, _) = ask(&site, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("\"records\""),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_headers_are_what_they_must_be() {
    let site = Site::start().await;
    let operator = site.operator();
    let post = async |headers: &[(&str, &str)], body: &str| {
        let sent = operator.send(Method::POST, path::WRITE, headers, Some(body.to_owned()));
        sent.await.expect("an answer")
    };
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let deep = format!("{{\"labels\":{deep}}}");
    for (what, headers, body) in [
        ("no content-type", vec![], "{}"),
        ("another", vec![("content-type", "text/plain")], "{}"),
        ("two", vec![JSON, JSON], "{}"),
        (
            "a charset",
            vec![("content-type", "application/json; charset=latin1")],
            "{}",
        ),
        (
            "an encoding",
            vec![JSON, ("content-encoding", "gzip")],
            "{}",
        ),
        ("no JSON", vec![JSON], "{"),
        (
            "an unknown key",
            vec![JSON],
            r#"{"secret":"a/b","wrong":1}"#,
        ),
        (
            "a key twice",
            vec![JSON],
            r#"{"secret":"a/b","secret":"a/c"}"#,
        ),
        ("depth", vec![JSON], &deep),
        (
            "an idempotency key",
            vec![JSON, ("idempotency-key", "x")],
            "{}",
        ),
        (
            "its sign",
            vec![
                JSON,
                ("idempotency-key", "+0000000000000000000000000000001"),
            ],
            "{}",
        ),
        ("a timeout", vec![JSON, ("keyhaul-timeout-ms", "-1")], "{}"),
    ] {
        let answer = post(&headers, body).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{what}: {}",
            answer.text()
        );
        assert_eq!(answer.kind(), "InvalidReference", "{what}");
    }
    let query = format!("{}?x=1", path::WRITE);
    let answer = operator
        .send(Method::POST, &query, &[JSON], Some("{}".into()))
        .await;
    assert_eq!(answer.expect("an answer").status, StatusCode::BAD_REQUEST);

    let long = "x".repeat(2 * 1024 * 1024 + 1);
    let sent = operator
        .send(Method::POST, path::WRITE, &[JSON], Some(long))
        .await;
    // The refusal may overtake the body, which is then reset.
    if let Ok(answer) = sent {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let id = [("x-request-id", "abc.DEF-1_2")];
    let answer = operator
        .send(Method::GET, path::SERVICE, &id, None)
        .await
        .expect("an answer");
    assert_eq!(answer.headers["x-request-id"], "abc.DEF-1_2");
    let id = [("x-request-id", "not legal")];
    let answer = operator
        .send(Method::GET, path::SERVICE, &id, None)
        .await
        .expect("an answer");
    assert_ne!(answer.headers["x-request-id"], "not legal");
    let huge = "x".repeat(60_000);
    let sent = operator
        .send(Method::GET, path::SERVICE, &[("x-huge", &huge)], None)
        .await;
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status.is_client_error()));
    assert_eq!(
        site.operator().get(path::SERVICE).await.status,
        StatusCode::OK,
        "others"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_is_not_waited_for_and_holds_nobody_up() {
    let more = "[limits]\nhandshake = \"500ms\"\nbody = \"500ms\"\nidle = \"1s\"\n";
    let site = Site::with(more).await;
    let started = Instant::now();
    let mut silent = Vec::new();
    // More than there is room for.
    for _ in 0..600 {
        silent.push(
            TcpStream::connect(site.server.addresses()[0])
                .await
                .expect("connected"),
        );
    }
    assert_eq!(
        site.operator().get(path::SERVICE).await.status,
        StatusCode::OK
    );
    for stream in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "closed without a word");
    }
    let head = "POST /v1/secrets/write HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let mut slow = raw(&site).await;
    slow.write_all(head.as_bytes()).await.expect("sent");
    let (answer, _) = said(&mut slow, Duration::from_secs(5)).await;
    assert!(answer.contains("\"Timeout\""), "{answer}");
    let mut slower = raw(&site).await;
    slower
        .write_all(b"GET /v1/service HTT")
        .await
        .expect("sent");
    let (answer, closed) = said(&mut slower, Duration::from_secs(10)).await;
    assert!(closed, "{answer}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_nothing_ends() {
    let site = Site::with("[limits]\nidle = \"500ms\"\n").await;
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let issued = site.authority.client(323, &["spiffe://site/operator/all"]);
        let config = client_config(&site, Some(&issued), &[alpn]);
        let stream = TcpStream::connect(site.server.addresses()[0])
            .await
            .expect("connected");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        let mut stream = stream.expect("a handshake");
        if alpn == b"h2" {
            // The preface and empty settings: a good client that has nothing to ask.
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stream.write_all(preface).await.expect("sent");
        }
        let (_, closed) = said(&mut stream, Duration::from_secs(10)).await;
        assert!(closed, "{alpn:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited_and_room_comes_back() {
    let site = Site::with("[limits]\nconnections = 2\n").await;
    let (one, two, three) = (site.node("a"), site.node("b"), site.node("c"));
    assert_eq!(one.get(path::SERVICE).await.status, StatusCode::OK);
    assert_eq!(two.get(path::SERVICE).await.status, StatusCode::OK);
    // It hears why, and asks another server of the service.
    let answer = three.get(path::SERVICE).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.kind(), "Unavailable");
    drop(one);
    let started = Instant::now();
    while three.get(path::SERVICE).await.status != StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_request_and_nothing_else() {
    let site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    site.grant("web01", "y").await;
    let node = site.node("y");
    let recipient = keyhaul_remote::protocol::seal::Recipient::new().expect("a key");
    let request = super::site::read_request(&recipient, &["web01/panic"]);
    let answer = node.post(path::READ, &request).await;
    assert_eq!(answer.kind(), "Internal");
    let answer = site.operator().write("web01/panic", b"x").await;
    assert_eq!(answer.kind(), "Internal");
    assert!(node.read(&["web01/root"]).await[0].is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_on_one_connection_are_all_answered() {
    let site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    site.grant("web01", "y").await;
    let node = Arc::new(site.node("y"));
    let mut tasks = Vec::new();
    for _ in 0..1000 {
        let node = Arc::clone(&node);
        tasks.push(tokio::spawn(
            async move { node.read(&["web01/root"]).await },
        ));
    }
    for task in tasks {
        let read = task.await.expect("no panic");
        assert_eq!(read[0].as_deref().ok(), Some(&b"correct horse"[..]));
    }
    // As often as it was read, no more and no less.
    let records = site.audit().matches("\"operation\":\"read\"").count();
    assert_eq!(records, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_for_another_key_or_another_secret_is_not_written() {
    let site = Site::start().await;
    let operator = site.operator();
    let service: keyhaul_remote::protocol::ServiceAnswer = operator.get(path::SERVICE).await.json();
    let stranger = keyhaul_remote::protocol::seal::Recipient::new().expect("a key");
    let body = operator.sealed(stranger.public(), "web01/root", b"x");
    assert_eq!(operator.post(path::WRITE, &body).await.kind(), "Conflict");
    let mut body = operator.sealed(&service.key, "web01/root", b"x");
    body["secret"] = "web01/other".into();
    assert_eq!(
        operator.post(path::WRITE, &body).await.kind(),
        "InvalidReference"
    );
    assert_eq!(site.asked(), 0, "the store was asked");
    // Another holder cannot pass it off as its own.
    let body = operator.sealed(&service.key, "web01/root", b"x");
    let other = site.peer(&site.authority.client(999, &["spiffe://site/operator/all"]));
    assert_eq!(
        other.post(path::WRITE, &body).await.kind(),
        "InvalidReference"
    );
    assert_eq!(
        operator.post(path::WRITE, &body).await.status,
        StatusCode::OK,
        "the control"
    );
}

/// Each of them waits for a store that does not answer; what asks no store does not wait with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_delays_no_revocation() {
    let site = Site::start().await;
    site.grant("web01", "y").await;
    let managers = [site.manager(), site.manager(), site.manager()];
    let hanging = managers.iter().enumerate().flat_map(|(place, manager)| {
        (0..90).map(move |turn| async move {
            let body = serde_json::json!({
                "secret": format!("web01/hang-{place}-{turn}"),
                "alphabet": "hex", "length": 32,
            });
            manager.post(path::GENERATE, &body).await
        })
    });
    let hanging = futures_util::future::join_all(hanging);
    let revoked = async {
        let full = async {
            // As many have begun as are under way at once.
            let begun = |line: &&str| line.contains("/hang-") && line.contains("\"begin\"");
            while site.audit().lines().filter(begun).count() < 256 {
                tokio::task::yield_now().await;
            }
            assert!(site.store.hanging.load(std::sync::atomic::Ordering::SeqCst) > 0);
        };
        tokio::time::timeout(Duration::from_secs(20), full)
            .await
            .expect("they hang");
        let body = serde_json::json!({ "scope": "web01", "node": "y" });
        let manager = site.manager();
        let answer = manager.post(path::REVOKE, &body);
        tokio::time::timeout(Duration::from_secs(5), answer).await
    };
    let revoked = std::pin::pin!(revoked);
    let futures_util::future::Either::Right((answer, _)) =
        futures_util::future::select(hanging, revoked).await
    else {
        panic!("nothing hung");
    };
    assert_eq!(answer.expect("at once").status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_is_refused_where_it_has_no_effect() {
    let site = Site::start().await;
    let body = r#"{"scope": "web01", "node": "y"}"#.to_owned();
    let key = ("idempotency-key", "00000000000000000000000000000001");
    let json = ("content-type", "application/json");
    let answer = site
        .manager()
        .send(
            http::Method::POST,
            path::GRANTS,
            &[json, key],
            Some(body.clone()),
        )
        .await
        .expect("an answer");
    assert_eq!(answer.kind(), "InvalidReference");
    let answer = site
        .manager()
        .send(http::Method::POST, path::GRANTS, &[json], Some(body))
        .await
        .expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
}
