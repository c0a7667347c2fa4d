//! Crowds at the door: honest ones are all served, and no others keep them out.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyhaul_core::registry::Options;
use keyhaul_core::{MemoryStore, Request, StoreConfig};
use keyhaul_remote::client::Service;
use keyhaul_remote::protocol::Role;
use keyhaul_servers::Issued;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::ground::{Ground, LIMIT, Wire};

/// As many honest clients at once: more than can shake hands together, by far.
const STORM: usize = 1000;
/// More than may wait without a word.
const SILENT: usize = 4600;
/// How long a handshake may take where others wait, and some time for a busy machine.
const PATIENCE: Duration = Duration::from_secs(2 + 6);

async fn ground() -> (Ground, Issued) {
    ground_with("").await
}

async fn ground_with(more: &str) -> (Ground, Issued) {
    let limit = getrlimit(Resource::Nofile);
    // Both ends of every connection are in this process.
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("as many files as this user may have");
    let ground = Ground::with(Arc::new(MemoryStore::new("memory")), more).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let node = ground.who("node/n");
    (ground, node)
}

/// A connection from this address of the loopback.
async fn from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(own).expect("an address of the loopback");
    let connected = tokio::time::timeout(LIMIT, socket.connect(to));
    connected.await.expect("in time").expect("connected")
}

/// Whether the far end ends the connection in this time.
async fn ends(stream: &mut TcpStream, time: Duration) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(time, stream.read(&mut byte));
    matches!(read.await, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_honest_clients_is_served_to_the_last() {
    let (ground, node) = ground().await;
    let tls = Wire::tls(&ground.authority.pem(), Some(&node));
    // All are connected before the first one says a word.
    let streams = join_all((0..STORM).map(|_| from(1, ground.address))).await;
    let begun = Instant::now();
    let served = streams.into_iter().map(|stream| {
        let tls = Arc::clone(&tls);
        tokio::spawn(async move {
            let mut wire = Wire::over(stream, tls).await?;
            let answer = wire.ask("GET", "/v1/service", None).await?;
            // It stays: the others are served beside it.
            Ok::<_, String>((answer.status, wire))
        })
    });
    let mut kept = Vec::new();
    for (number, served) in join_all(served).await.into_iter().enumerate() {
        let (status, wire) = served.expect("no panic").unwrap_or_else(|error| {
            panic!("client {number} after {:?}: {error}", begun.elapsed());
        });
        assert_eq!(status, 200, "client {number}");
        kept.push(wire);
    }
    assert_eq!(kept.len(), STORM);
}

/// Who waits for a turn for longer than a client of several servers waits for one of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_programs_own_client_waits_for_its_turn() {
    let (ground, node) = ground().await;
    let folder = tempfile::tempdir().expect("a folder");
    node.write(folder.path(), "y");
    std::fs::write(folder.path().join("ca.pem"), ground.authority.pem()).expect("written");
    let mut halves = Vec::new();
    // Two handshakes that never come from each of so many addresses that the clients' own turn is
    // not among those that come first: as many as can have one, and half as many after these.
    for _ in 0..3 {
        for host in 10..210 {
            let mut half = from(host, ground.address).await;
            half.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
            halves.push(half);
        }
    }
    let begun = Instant::now();
    let asked = (0..20).map(|_| {
        let service = Service::open(&config(folder.path(), ground.address)).expect("opens");
        async move {
            let asked = service.service(&Request::default()).await;
            (asked, begun.elapsed())
        }
    });
    for (asked, took) in join_all(asked).await {
        let answer = asked.unwrap_or_else(|error| panic!("after {took:?}: {error}"));
        assert_eq!(answer.role, Role::Node);
        assert!(took > Duration::from_secs(3), "the control: {took:?}");
    }
}

/// A service at this address alone, with the files of a folder.
fn config(folder: &Path, address: SocketAddr) -> StoreConfig {
    let file = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let options = [
        ("ca-cert", file("ca.pem")),
        ("client-cert", file("y.crt")),
        ("client-key", format!("file:{}", file("y.key"))),
    ];
    let (url, place) = (format!("keyhaul+https://{address}"), "keyhaul.toml:1:1");
    StoreConfig::new("site", &url, Options::at(place, options), place).expect("a store")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_keeps_nobody_out() {
    // None of them ends by itself.
    let (ground, node) = ground_with("[limits]\nhandshake = \"10m\"\n").await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(from(1, ground.address).await);
    }
    let begun = Instant::now();
    assert!(ground.serves(&node, "web01/root").await);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    // The control: there were more than may be, and the oldest made room.
    assert!(ends(&mut silent[0], Duration::from_secs(5)).await);
    let newest = silent.last_mut().expect("some");
    assert!(!ends(newest, Duration::from_millis(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_and_falls_silent_keeps_nobody_out_for_longer_than_its_turn() {
    let (ground, node) = ground().await;
    let mut halves = Vec::new();
    for _ in 0..1500 {
        let mut half = from(2, ground.address).await;
        // The head of a handshake record that never comes.
        half.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
        halves.push(half);
    }
    // They all come from one address, and this one does not.
    let begun = Instant::now();
    assert!(ground.serves(&node, "web01/root").await);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    // The control: most of them still wait for a turn.
    let newest = halves.last_mut().expect("some");
    assert!(
        !ends(newest, Duration::from_millis(10)).await,
        "nobody waited"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_honest_client_is_served_among_silent_ones() {
    let (ground, node) = ground().await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(from(1, ground.address).await);
    }
    let relay = slow_relay(ground.address).await;
    let begun = Instant::now();
    let wire = Wire::open(relay, &ground.authority.pem(), Some(&node)).await;
    let answer = wire.expect("let in").ask("GET", "/v1/service", None).await;
    assert_eq!(answer.expect("answered").status, 200);
    assert!(begun.elapsed() >= Duration::from_secs(3), "the control");
}

/// A way to the server on which the client's first bytes come one second after the connection, the
/// next one a second later, and the rest another second after that.
async fn slow_relay(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect(to).await.expect("connected");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        for step in [1, 1, usize::MAX] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut part = from_client.take(u64::try_from(step).unwrap_or(u64::MAX));
            if tokio::io::copy(&mut part, &mut to_server).await.is_err() {
                return;
            }
            from_client = part.into_inner();
        }
    });
    address
}
