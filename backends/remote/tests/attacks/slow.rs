//! Clients that take their time: they are let go of, and others are served meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ground::{Ground, LIMIT, request};

const LIMITS: &str = "[limits]\nhandshake = \"700ms\"\nbody = \"700ms\"\nidle = \"700ms\"\nconnections = 400\nconnections-per-identity = 300\n";
/// Slow clients of each kind.
const CROWD: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_slow_clients_keeps_nobody_from_being_served() {
    let ground = Ground::with(Arc::new(MemoryStore::new("memory")), LIMITS).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let node = ground.who("node/n");

    let mut silent = Vec::new();
    let mut halves = Vec::new();
    for _ in 0..CROWD {
        silent.push(TcpStream::connect(ground.address).await.expect("connected"));
        // The head of a handshake record that never comes.
        let mut half = TcpStream::connect(ground.address).await.expect("connected");
        let _ = half.write_all(&[22, 3, 1, 2, 0, 1]).await;
        halves.push(half);
    }
    let mut wires = Vec::new();
    for _ in 0..CROWD {
        let mut heads = ground.wire(Some(&node)).await.expect("let in");
        heads
            .send(b"GET /v1/service HTTP/1.1\r\nho")
            .await
            .expect("sent");
        let mut bodies = ground.wire(Some(&node)).await.expect("let in");
        let whole = request("POST", "/v1/secrets/read", "", &[b' '; 1000]);
        bodies
            .send(&whole[..whole.len() - 900])
            .await
            .expect("sent");
        wires.extend([heads, bodies]);
    }
    assert!(ground.serves(&node, "web01/root").await, "amid a crowd");

    // Every one of them ends without having said another word.
    let begun = Instant::now();
    for mut stream in silent.into_iter().chain(halves) {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a handshake without end is kept");
    }
    for mut wire in wires {
        while let Ok(answer) = wire.answer().await {
            assert!([400, 408, 504].contains(&answer.status), "{answer:?}");
        }
    }
    assert!(begun.elapsed() < LIMIT);
    assert!(ground.serves(&node, "web01/root").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_not_awaited_for_ever() {
    let ground = Ground::with(Arc::new(MemoryStore::new("memory")), LIMITS).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let node = ground.who("node/n");
    let mut wire = ground.wire(Some(&node)).await.expect("let in");
    let whole = request("POST", "/v1/secrets/read", "", &[b' '; 1_000_000]);
    let head = whole.len() - 1_000_000;
    wire.send(&whole[..head]).await.expect("sent");
    // A byte at a time keeps no connection alive.
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        if wire.send(b" ").await.is_err() {
            break;
        }
        let answer = tokio::time::timeout(Duration::from_millis(50), wire.answer_or_end()).await;
        if answer.is_ok() {
            break;
        }
    }
    assert!(begun.elapsed() < LIMIT, "still reading after {LIMIT:?}");
    assert!(ground.serves(&node, "web01/root").await);
}
