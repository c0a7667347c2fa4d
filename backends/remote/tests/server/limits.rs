//! What one certificate's holder can take up, and who is not kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyhaul_remote::protocol::seal::Recipient;
use keyhaul_remote::protocol::{Problem, limit, path};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::site::{Issued, Peer, Site, client_config, read_request};

/// Longer than a busy machine takes, and much shorter than a connection at rest is kept.
const SOON: Duration = Duration::from_secs(15);

/// Asks once on a connection of its own, and gives the answer's status when the *server* has ended
/// the connection: nothing here does.
async fn asks_until_the_end(site: &Site, issued: &Issued, alpn: &[u8]) -> StatusCode {
    let stream = TcpStream::connect(site.server.addresses()[0]).await;
    let connector = TlsConnector::from(Arc::new(client_config(site, Some(issued), &[alpn])));
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let stream = connector.connect(name, stream.expect("connected")).await;
    let io = TokioIo::new(stream.expect("a handshake"));
    let at = format!("https://{}{}", site.server.addresses()[0], path::SERVICE);
    let request = Request::get(at).header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let (answer, ended) = if alpn == b"h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .expect("HTTP/2");
        let ended = tokio::spawn(connection);
        let answer = sender.send_request(request).await.expect("an answer");
        // The sender stays: dropping it would end the connection from here.
        (
            answer,
            tokio::spawn(async move {
                let ended = ended.await;
                drop(sender);
                ended.is_ok()
            }),
        )
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("HTTP/1.1");
        let ended = tokio::spawn(connection);
        let answer = sender.send_request(request).await.expect("an answer");
        (
            answer,
            tokio::spawn(async move {
                let ended = ended.await;
                drop(sender);
                ended.is_ok()
            }),
        )
    };
    let status = answer.status();
    answer.into_body().collect().await.expect("a body");
    let ended = tokio::time::timeout(SOON, ended).await;
    assert!(
        ended.is_ok(),
        "{alpn:?} after {status}: the connection is kept"
    );
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_no_role_is_answered_once_and_not_kept() {
    let site = Site::start().await;
    let nobody = site.authority.client(501, &["spiffe://site/nobody/x"]);
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let status = asks_until_the_end(&site, &nobody, alpn).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{alpn:?}");
    }
    let audited = site.audit().matches("no rule matches").count();
    assert_eq!(audited, 2);
    // The control: whoever has a role is kept, over the same two.
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let node = site.authority.client(502, &["spiffe://site/node/y"]);
        let asked = asks_until_the_end(&site, &node, alpn);
        let kept = tokio::time::timeout(Duration::from_secs(3), asked);
        assert!(kept.await.is_err(), "{alpn:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_certificate_has_a_share_of_the_connections_and_leaves_the_rest() {
    let site = Site::with("[limits]\nconnections = 5\nconnections-per-identity = 2\n").await;
    let greedy = site.authority.client(503, &["spiffe://site/node/greedy"]);
    // A new certificate of the same holder is no new share.
    let renewed = site.authority.client(504, &["spiffe://site/node/greedy"]);
    let peers = [&greedy, &renewed].map(|issued| site.peer(issued));
    for peer in &peers {
        assert_eq!(peer.get(path::SERVICE).await.status, StatusCode::OK);
    }
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let status = asks_until_the_end(&site, &greedy, alpn).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{alpn:?}");
    }
    let answer = site.peer(&greedy).get(path::SERVICE).await;
    assert_eq!(answer.kind(), "RateLimited");
    let wait = answer.headers["retry-after"].to_str().expect("ASCII");
    assert!((1..60).contains(&wait.parse().unwrap_or(0)), "{wait}");
    // Who has one goes on, and others come in.
    let [peer, other] = peers;
    assert_eq!(peer.get(path::SERVICE).await.status, StatusCode::OK);
    assert_eq!(
        site.node("y").get(path::SERVICE).await.status,
        StatusCode::OK
    );
    drop(other);
    let started = Instant::now();
    let back = site.peer(&greedy);
    while back.get(path::SERVICE).await.status != StatusCode::OK {
        assert!(started.elapsed() < SOON, "room comes back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A request whose body never comes, once the server is ready to read it.
async fn owes_a_body(site: &Site, issued: &Issued, length: usize) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(site.server.addresses()[0]).await;
    let config = client_config(site, Some(issued), &[b"http/1.1"]);
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream.expect("connected")).await;
    let mut stream = stream.expect("a handshake");
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n",
        path::READ
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut ready = [0; 25];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut ready)).await;
    read.expect("in time").expect("an answer");
    assert_eq!(&ready, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_certificate_has_a_share_of_the_memory_for_bodies() {
    let site = Site::with("[limits]\nbody = \"6s\"\n").await;
    site.put("web01/root", b"correct horse").await;
    for node in ["greedy", "other"] {
        site.grant("web01", node).await;
    }
    let issued = site.authority.client(505, &["spiffe://site/node/greedy"]);
    let (greedy, other) = (site.peer(&issued), site.node("other"));
    let read = async |peer: &Peer| {
        let started = Instant::now();
        let read = peer.read(&["web01/root"]).await;
        let value = read[0].as_deref().ok();
        assert_eq!(value, Some(&b"correct horse"[..]));
        started.elapsed()
    };
    // A quarter of 64 MiB, in the longest bodies of a read.
    let started = Instant::now();
    let mut owing = Vec::new();
    for _ in 0..64 {
        owing.push(owes_a_body(&site, &issued, 256 * 1024).await);
    }
    let (own, others) = futures_util::future::join(read(&greedy), async {
        let took = read(&other).await;
        (took, started.elapsed())
    })
    .await;
    let (took, until) = others;
    assert!(until < Duration::from_secs(6), "the control: {until:?}");
    // The first of the others ends six seconds after it began, and there is room again.
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(6), "{own:?}, {took:?}");
    assert!(took < own, "{took:?}, {own:?}");
    drop(owing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_that_go_on_are_counted_and_not_recorded() {
    let mut site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    for node in ["guesser", "honest"] {
        site.grant("web01", node).await;
    }
    let (guesser, honest) = (site.node("guesser"), site.node("honest"));
    let names: Vec<String> = (0..limit::BATCH).map(|n| format!("web02/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let recipient = Recipient::new().expect("a key");
    let guess = read_request(&recipient, &names);
    // 2,000 are a guess at all of a site's names, once: eight of these.
    for turn in 0..8 {
        let answer = guesser.post(path::READ, &guess).await;
        assert_eq!(answer.status, StatusCode::OK, "{turn}: {}", answer.text());
    }
    let recorded = site.audit().lines().count();
    let asked = site.asked();
    for turn in 0..40 {
        // Whatever it asks: what there is, what there is not, and what it is granted.
        let secret = ["web02/none", "web01/root", "web99/x"][turn % 3];
        let request = read_request(&recipient, &[secret]);
        let answer = guesser.post(path::READ, &request).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        let problem: Problem = answer.json();
        assert_eq!(problem.kind, "RateLimited");
        assert!(problem.retry_after_ms.is_some_and(|wait| wait > 1000));
        assert!(!problem.detail.contains("web0"));
    }
    assert_eq!(
        site.audit().lines().count(),
        recorded,
        "nothing was written"
    );
    assert_eq!(site.asked(), asked, "and nobody was asked");
    let read = honest.read(&["web01/root"]).await;
    assert_eq!(
        read[0].as_deref().ok(),
        Some(&b"correct horse"[..]),
        "others"
    );
    drop((guesser, honest));
    site.end().await.expect("a good end");
    let audit = site.audit();
    let limits: Vec<&str> = audit
        .lines()
        .filter(|line| line.contains("\"operation\":\"limit\""))
        .collect();
    let [begun, ended] = limits[..] else {
        panic!("{limits:?}");
    };
    for line in [begun, ended] {
        assert!(line.contains("spiffe://site/node/guesser"), "{line}");
    }
    assert!(begun.contains("\"outcome\":\"begin\""), "{begun}");
    assert!(ended.contains("\"unrecorded\":40"), "{ended}");
}

/// As many reads as have values in memory at once, and more, wait for a store that does not answer.
/// What asks no store does not wait with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_hang_delay_no_grant_and_no_revocation() {
    let site = Site::start().await;
    site.grant("web01", "y").await;
    let node = site.node("y");
    let recipient = Recipient::new().expect("a key");
    let request = serde_json::to_string(&read_request(&recipient, &["web01/hang"]));
    let request = request.expect("JSON");
    let headers = [
        ("content-type", "application/json"),
        ("keyhaul-timeout-ms", "20000"),
    ];
    let reads =
        (0..90).map(|_| node.send(Method::POST, path::READ, &headers, Some(request.clone())));
    let reads = futures_util::future::join_all(reads);
    let decided = async {
        let started = Instant::now();
        // As many as there is room for, and the others in line behind them.
        while site.store.hanging.load(Ordering::SeqCst) < 64 {
            assert!(started.elapsed() < SOON, "they hang");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let manager = site.manager();
        let started = Instant::now();
        for turn in 0..3 {
            let grant = serde_json::json!({ "scope": "web02", "node": format!("n{turn}") });
            assert_eq!(
                manager.post(path::GRANTS, &grant).await.status,
                StatusCode::OK
            );
        }
        let revoke = serde_json::json!({ "scope": "web01", "node": "y" });
        assert_eq!(
            manager.post(path::REVOKE, &revoke).await.status,
            StatusCode::OK
        );
        assert_eq!(manager.get(path::GRANTS).await.status, StatusCode::OK);
        let audit = site.operator().get(path::AUDIT).await;
        assert_eq!(audit.status, StatusCode::OK);
        started.elapsed()
    };
    let (reads, decided) = (std::pin::pin!(reads), std::pin::pin!(decided));
    match futures_util::future::select(reads, decided).await {
        futures_util::future::Either::Left(_) => panic!("nothing hung"),
        futures_util::future::Either::Right((took, _)) => {
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
    }
    assert_eq!(site.store.hanging.load(Ordering::SeqCst), 64, "and no more");
}
