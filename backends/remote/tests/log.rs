//! What the log says of whoever does not get in: who it was, and why; and no flood of it.

mod ground;

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyhaul_core::MemoryStore;
use keyhaul_servers::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use ground::{Ground, LIMIT};

/// Keeps the warnings of the service, as text.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    /// The first warning that has all of these words.
    async fn with(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let all = self.all();
            let found = all
                .iter()
                .find(|line| words.iter().all(|w| line.contains(w)));
            if let Some(found) = found {
                return found.clone();
            }
            assert!(begun.elapsed() < LIMIT, "no {words:?} in {all:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN && metadata.target().starts_with("keyhaul")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

// One test: the log is the whole process's.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_get_in_is_named_with_the_reason_and_a_flood_is_a_few_lines() {
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).expect("the only one");
    let memory = Arc::new(MemoryStore::new("memory"));
    let more = "[limits]\nhandshake = \"1s\"\n";
    let ground = Ground::with(memory, more).await;
    let node = "spiffe://site/node/n";
    let foreign = Authority::new("attacks");
    let own = &ground.authority;
    assert!(ground.wire(Some(&ground.who("node/n"))).await.is_ok());
    let first = warnings.all();
    assert!(
        first.iter().all(|line| !line.contains("no connection")),
        "the control: {first:?}"
    );
    for (who, reason) in [
        (None, "it has shown no certificate"),
        (
            Some(own.expired_client_of(&[node])),
            "its certificate has expired",
        ),
        (
            Some(foreign.client_of(&[node])),
            "its certificate is of a foreign authority",
        ),
        (
            Some(own.server_of(&[node])),
            "its certificate is not for clients",
        ),
    ] {
        let stream = TcpStream::connect(ground.address).await.expect("connected");
        let peer = stream.local_addr().expect("an address").to_string();
        let tls = ground::Wire::tls(&own.pem(), who.as_ref());
        // The far end hears of it after its own half of the handshake.
        if let Ok(mut wire) = ground::Wire::over(stream, tls).await {
            assert!(
                wire.ask("GET", "/v1/service", None).await.is_err(),
                "{reason}"
            );
        }
        warnings.with(&[&peer, reason]).await;
    }

    // Neither TLS, nor anything, nor all of it.
    for (sent, reason) in [
        (
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            "it does not speak TLS",
        ),
        (&[22, 3, 1, 2, 0, 1][..], "its handshake took too long"),
    ] {
        let mut stream = TcpStream::connect(ground.address).await.expect("connected");
        let peer = stream.local_addr().expect("an address").to_string();
        stream.write_all(sent).await.expect("sent");
        warnings.with(&[&peer, reason]).await;
    }
    let looked = TcpStream::connect(ground.address).await.expect("connected");
    let looked = looked.local_addr().expect("an address").to_string();

    // A flood of one kind is a few lines, and does not hide another kind.
    for _ in 0..200 {
        let mut stream = TcpStream::connect(ground.address).await.expect("connected");
        stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .await
            .expect("sent");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is refused");
    }
    let revoked = own.expired_client_of(&[node]);
    let stream = TcpStream::connect(ground.address).await.expect("connected");
    let peer = stream.local_addr().expect("an address").to_string();
    if let Ok(mut wire) =
        ground::Wire::over(stream, ground::Wire::tls(&own.pem(), Some(&revoked))).await
    {
        assert!(wire.ask("GET", "/v1/service", None).await.is_err());
    }
    warnings.with(&[&peer, "expired"]).await;
    let all = warnings.all();
    let lines = all
        .iter()
        .filter(|line| line.contains("does not speak TLS"))
        .count();
    assert!((2..=10).contains(&lines), "{lines} lines: {all:#?}");
    // Who only looks whether something listens is no news.
    assert!(!all.iter().any(|line| line.contains(&looked)), "{all:#?}");

    // The end tells how many there were besides.
    let memory = Arc::new(MemoryStore::new("memory"));
    drop(ground.restart(memory, "").await);
    let told = warnings.with(&["left_out=", "does not speak TLS"]).await;
    assert!(
        told.contains("left_out=191 "),
        "201 in all, of which 10 were written: {told}"
    );
}
