//! Servers that die, stall, stop half-way and lie.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, GetOptions, Request, Result, Secret, SecretStore};
use keyhaul_servers::PyKmip;
use support::firewall::Firewall;
use support::scripted::{Reply, Stage, answer, got, id, item, located};
use support::{get, path, put, store, value};

fn at(server: &PyKmip) -> Arc<dyn SecretStore> {
    store(&server.url(), &server.ca_path(), &server.client("x"), &[])
}

/// Reads with a second's patience.
async fn get_soon(store: &dyn SecretStore) -> Result<Secret> {
    let mut request = Request::default();
    request.deadline = Some(Instant::now() + Duration::from_secs(1));
    let options = GetOptions::default().request(request);
    store.get(&path("a"), &options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_amid_requests_and_comes_back_is_used_again() {
    let mut server = PyKmip::start();
    let store = at(&server);
    put(&*store, "a", "hunter2").await;
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut read = 0;
                loop {
                    match get(&*store, "a").await {
                        Ok(secret) => {
                            assert_eq!(secret.value.expose(), b"hunter2");
                            read += 1;
                        }
                        Err(error) => return (read, error),
                    }
                }
            })
        })
        .collect();
    let seen = store.clone();
    while seen.stat(&path("a"), &GetOptions::default()).await.is_ok() {
        server.kill();
    }
    for reader in readers {
        let (_, error) = reader.await.expect("no panic");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let error = get(&*store, "a").await.expect_err("gone");
    assert!(error.message().contains("refuses connections"), "{error}");
    server.start_again();
    assert_eq!(value(&*store, "a").await, "hunter2");
}

#[tokio::test]
async fn connections_that_ended_meanwhile_are_made_anew_without_a_word() {
    let mut server = PyKmip::start();
    let store = at(&server);
    put(&*store, "a", "one").await;
    for text in ["two", "three"] {
        // Several are kept.
        let paths = vec![path("a"); 6];
        for came in store.get_many(&paths, &GetOptions::default()).await {
            came.expect("read");
        }
        server.kill();
        server.start_again();
        put(&*store, "a", text).await;
        assert_eq!(value(&*store, "a").await, text);
    }
}

#[tokio::test]
async fn a_server_that_stalls_costs_no_more_than_the_deadline() {
    let server = PyKmip::start();
    let store = at(&server);
    put(&*store, "a", "hunter2").await;
    server.freeze();
    let start = Instant::now();
    // On a connection that was kept, and on a new one.
    for _ in 0..2 {
        let error = get_soon(&*store).await.expect_err("stalled");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    server.thaw();
    assert_eq!(value(&*store, "a").await, "hunter2");
}

#[tokio::test]
async fn connections_that_a_firewall_forgot_cost_one_request() {
    let server = PyKmip::start();
    let wall = Firewall::to(server.port()).await;
    let store = store(&wall.url(), &server.ca_path(), &server.client("x"), &[]);
    put(&*store, "a", "hunter2").await;
    // Several are kept.
    let paths = vec![path("a"); 6];
    for came in store.get_many(&paths, &GetOptions::default()).await {
        came.expect("read");
    }
    let before = wall.connections();
    assert!(before > 1, "only one connection");
    wall.forget();
    let error = get_soon(&*store).await.expect_err("swallowed");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert_eq!(wall.connections(), before, "none of those was used");
    get_soon(&*store).await.expect("on a new one");

    // The same where it is the caller who stops to wait.
    for came in store.get_many(&paths, &GetOptions::default()).await {
        came.expect("read");
    }
    wall.forget();
    let short = Duration::from_millis(500);
    let given_up = tokio::time::timeout(short, get(&*store, "a")).await;
    given_up.expect_err("swallowed");
    get_soon(&*store).await.expect("on a new one");
}

/// Why reading fails where what is known of an object and its value, or the Locates before it, are
/// answered by `bytes`.
async fn refuses(bytes: Vec<u8>, is_get: bool) -> Error {
    let stage = Stage::new(move |number| match (number, is_get) {
        (0, true) => Reply::Bytes(located()),
        _ => Reply::Last(bytes.clone()),
    })
    .await;
    let error = get_soon(&*stage.store).await.expect_err("no answer");
    let shown = format!("{error:?}{:?}", error.advice());
    assert!(!shown.contains("hunter2"), "{shown}");
    error
}

#[tokio::test]
async fn the_scripted_server_is_understood() {
    // The control of all that follow.
    let stage = Stage::new(|number| match number % 2 {
        0 => Reply::Bytes(located()),
        _ => Reply::Bytes(got()),
    })
    .await;
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
    assert_eq!(stage.server.requests(), 4);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_none() {
    for (whole, is_get) in [(got(), true), (located(), false)] {
        for end in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 1] {
            let error = refuses(whole[..end].to_vec(), is_get).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{end}: {error:?}");
        }
    }
}

#[tokio::test]
async fn lengths_that_lie_take_no_memory_and_no_time() {
    let announced = |len: u32| [&[0x42, 0, 0x7b, 1][..], &len.to_be_bytes()].concat();
    let most = 1024 * 1024 - 8;
    for len in [most + 8, u32::MAX - 7] {
        let stage = Stage::new(move |_| Reply::Bytes(announced(len))).await;
        let error = get(&*stage.store, "a").await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
        assert_eq!(stage.server.requests(), 1);
    }
    // The longest that may be, of which nothing comes; and one that is not even TTLV's.
    let error = refuses(announced(most), true).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let error = refuses(announced(9), true).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    // Lengths within: each of the answer's own, made longer than what is around it.
    let whole = got();
    let mut lied = 0;
    for at in (8..whole.len()).step_by(8) {
        if whole[at..].starts_with(&[0x42, 0]) {
            let mut lying = whole.clone();
            lying[at + 4..at + 8].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
            let error = refuses(lying, true).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{at}: {error:?}");
            lied += 1;
        }
    }
    assert!(lied > 10, "only {lied}");
}

#[tokio::test]
async fn what_is_no_kmip_is_said_to_be_none() {
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\nhunter2".to_vec();
    let request = item(0x78, 1, b"");
    let nothing = answer(&[]);
    let other = answer(&[(0x14, Ok(id("17"))), (0x14, Ok(id("17")))]);
    for bytes in [http, request, nothing, other, vec![0; 64], vec![0xff; 64]] {
        let error = refuses(bytes, true).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains("none of KMIP's"), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_left_at_the_deadline() {
    let stage = Stage::new(|_| Reply::Stall).await;
    let start = Instant::now();
    let error = get_soon(&*stage.store).await.expect_err("stalled");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_is_not_taken_for_the_next() {
    // The first Get is answered late, when nobody waits any more: on that connection another answer
    // would come first.
    let stage = Stage::new(|number| match number {
        1 => Reply::Stall,
        number if number % 2 == 0 => Reply::Bytes(located()),
        _ => Reply::Bytes(got()),
    })
    .await;
    get_soon(&*stage.store).await.expect_err("stalled");
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
}
