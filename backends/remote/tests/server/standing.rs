//! Certificates on connections that live on.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use keyhaul_remote::protocol::seal::Recipient;
use keyhaul_remote::protocol::{limit, path};

use super::site::{Authority, Peer, Site, read_request, write};

/// Longer than a busy machine takes, and much shorter than a limit of refusals or a connection at
/// rest lasts.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_stops_at_the_next_request_and_others_go_on() {
    let site = Site::start().await;
    let stolen = site.authority.client(77, &["spiffe://site/node/y"]);
    for alpn in [&b"h2"[..], b"http/1.1"] {
        write(site.folder.path(), "ca.crl", &site.authority.crl(&[]));
        site.reload().await.expect("reloaded");
        let (thief, other) = (Peer::new(&site, Some(&stolen), &[alpn]), site.node("z"));
        for peer in [&thief, &other] {
            assert_eq!(peer.get(path::SERVICE).await.status, StatusCode::OK);
        }
        write(
            site.folder.path(),
            "ca.crl",
            &site.authority.crl(&[&stolen]),
        );
        assert_eq!(
            thief.get(path::SERVICE).await.status,
            StatusCode::OK,
            "not reloaded yet"
        );
        site.reload().await.expect("reloaded");
        // The connection is closed, if with an answer to what was under way, and there is no other
        // for such a certificate.
        let get = || thief.send(http::Method::GET, path::SERVICE, &[], None);
        if let Ok(answer) = get().await {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
        }
        assert_eq!(other.get(path::SERVICE).await.status, StatusCode::OK);
        let again = get().await;
        assert!(again.is_err(), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_gives_its_room_back_without_being_asked() {
    let site = Site::with("[limits]\nconnections = 50\nconnections-per-identity = 3\n").await;
    let uris = ["spiffe://site/node/y"];
    let (stolen, renewed) = (
        site.authority.client(81, &uris),
        site.authority.client(82, &uris),
    );
    let thieves = [(); 3].map(|()| site.peer(&stolen));
    for thief in &thieves {
        assert_eq!(thief.get(path::SERVICE).await.status, StatusCode::OK);
    }
    let get = async || site.peer(&renewed).get(path::SERVICE).await.status;
    assert_eq!(get().await, StatusCode::TOO_MANY_REQUESTS, "the control");
    let list = site.authority.crl(&[&stolen]);
    write(site.folder.path(), "ca.crl", &list);
    site.reload().await.expect("reloaded");
    let started = Instant::now();
    while get().await != StatusCode::OK {
        assert!(started.elapsed() < SOON, "its connections are kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(thieves);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_while_it_is_limited_is_closed_all_the_same() {
    let site = Site::start().await;
    let lifetime = Duration::from_secs(4);
    let uris = ["spiffe://site/node/guesser"];
    let issued = site.authority.short_lived(4801, &uris, lifetime);
    let guesser = site.peer(&issued);
    let names: Vec<String> = (0..limit::BATCH).map(|n| format!("web02/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let guess = read_request(&Recipient::new().expect("a key"), &names);
    for _ in 0..8 {
        guesser.post(path::READ, &guess).await;
    }
    let status = guesser.get(path::SERVICE).await.status;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "the control");
    let started = Instant::now();
    let answer = loop {
        let answer = guesser.get(path::SERVICE).await;
        if answer.status != StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
        assert!(started.elapsed() < SOON, "it is kept");
        // Time itself is what is awaited.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(answer.kind(), "Unauthenticated", "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_fails_changes_nothing() {
    let site = Site::start().await;
    let node = site.node("y");
    assert_eq!(node.get(path::SERVICE).await.status, StatusCode::OK);
    for (file, text) in [
        ("ca.crl", "no list".to_owned()),
        ("ca.crt", "no certificate".to_owned()),
        ("server.key", Authority::new().server().key),
    ] {
        let path = site.folder.path().join(file);
        let good = std::fs::read_to_string(&path).expect("a file");
        write(site.folder.path(), file, &text);
        let error = site.reload().await.expect_err(file);
        assert!(
            error.message().contains(file) || file == "server.key",
            "{error}"
        );
        assert_eq!(
            node.get(path::SERVICE).await.status,
            StatusCode::OK,
            "{file}"
        );
        assert_eq!(
            site.node("z").get(path::SERVICE).await.status,
            StatusCode::OK
        );
        write(site.folder.path(), file, &good);
    }
    site.reload().await.expect("the control");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_takes_over_on_living_connections() {
    let site = Site::start().await;
    let node = site.node("y");
    assert_eq!(node.get(path::SERVICE).await.status, StatusCode::OK);
    let next = Authority::new();
    write(site.folder.path(), "ca.crt", &next.pem());
    write(site.folder.path(), "ca.crl", &next.crl(&[]));
    site.reload().await.expect("reloaded");
    let asked = node.send(http::Method::GET, path::SERVICE, &[], None).await;
    if let Ok(answer) = asked {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let again = node.send(http::Method::GET, path::SERVICE, &[], None).await;
    assert!(again.is_err(), "{again:?}");
    let new = site.peer(&next.client(9, &["spiffe://site/node/y"]));
    assert_eq!(new.get(path::SERVICE).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_finishes_what_runs() {
    let mut site = Site::start().await;
    let node = site.node("y");
    let answer = node.get(path::SERVICE).await;
    assert_eq!(
        answer.headers.get("cache-control"),
        Some(&HeaderValue::from_static("no-store"))
    );
    let started = std::time::Instant::now();
    // The connection is kept by the client, and is no reason to wait.
    site.end().await.expect("ended well");
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
    let after = node.send(http::Method::GET, path::SERVICE, &[], None).await;
    assert!(after.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_list_still_revokes_and_locks_nobody_out() {
    let site = Site::start().await;
    let revoked = site.authority.client(71, &["spiffe://site/node/lost"]);
    let list = site.authority.crl_until(2025, &[&revoked]);
    write(site.folder.path(), "ca.crl", &list);
    site.reload().await.expect("an old list is one");
    let answer = site.node("y").get(path::SERVICE).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let refused = Peer::new(&site, Some(&revoked), &[b"h2"])
        .send(http::Method::GET, path::SERVICE, &[], None)
        .await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_or_an_authority_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::start().await;
    for name in ["ca.crt", "ca.crl"] {
        let file = site.folder.path().join(name);
        let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode));
        mode(0o664).expect("a mode");
        let error = site.reload().await.expect_err(name);
        assert_eq!(
            error.kind(),
            keyhaul_core::ErrorKind::PermissionDenied,
            "{error}"
        );
        // The control: others may read it.
        mode(0o644).expect("a mode");
        site.reload().await.expect(name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_stops_on_the_connection_that_it_opened() {
    let site = Site::start().await;
    let lifetime = Duration::from_secs(4);
    let uris = ["spiffe://site/node/y"];
    let issued = site.authority.short_lived(4800, &uris, lifetime);
    let (node, other) = (site.peer(&issued), site.node("z"));
    assert_eq!(node.get(path::SERVICE).await.status, StatusCode::OK);
    let started = Instant::now();
    let answer = loop {
        let answer = node.get(path::SERVICE).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it goes on");
        // Time itself is what is awaited.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // An answer, not a failed handshake: the connection was the old one.
    assert_eq!(answer.kind(), "Unauthenticated");
    assert_eq!(other.get(path::SERVICE).await.status, StatusCode::OK);
    assert!(site.audit().contains("the certificate has expired"));
}
