use std::path::Path;

use futures_util::future::BoxFuture;
use keyhaul_core::layers::{Call, Layer};
use keyhaul_core::{GetOptions, MemoryStore, Operation, PutOptions, SecretBytes, SecretStore};

use super::*;
use crate::pki::{Authority, Subject};
use crate::server::{Server, Settings};

/// Has a store never answer about one secret.
#[derive(Debug)]
struct Stuck;

impl Layer for Stuck {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let path = call.path.map(SecretPath::as_str);
        if call.operation == Operation::Stat && path == Some("web01/a-stuck") {
            std::future::pending::<()>().await;
        }
        attempt().await
    }
}

async fn server(folder: &Path, store: Arc<dyn SecretStore>) -> Server {
    let pki = folder.join("pki");
    let authority = Authority::create(&pki, "site").expect("an authority");
    let subject = Subject::server("server", vec!["localhost".into()], vec![]);
    let issued = authority.issue(&subject, Duration::from_secs(3600));
    let issued = issued.expect("a certificate");
    let text = format!(
        r#"
        version = 1
        listen = ["127.0.0.1:0"]
        state = "{folder}/service.db"
        audit = "{folder}/audit.jsonl"
        [tls]
        certificate = "{certificate}"
        key = "{key}"
        client-ca = "{ca}"
        [[roles]]
        uri = "spiffe://site/node/{{name}}"
        role = "node"
        "#,
        folder = folder.display(),
        certificate = issued.certificate.display(),
        key = issued.key.display(),
        ca = authority.certificate().display(),
    );
    let settings = Settings::parse("service.toml", &text).expect("settings");
    Server::open(settings, store).await.expect("opens")
}

async fn put(store: &MemoryStore, secret: &str) -> Tombstone {
    let path = SecretPath::new(secret).expect("a path");
    let value = SecretBytes::copy_from(b"correct horse");
    let written = store.put(&path, &value, &PutOptions::default()).await;
    let metadata = written.expect("put");
    let created = metadata.created.expect("a time");
    Tombstone {
        subject: secret.into(),
        version: metadata.version.expect("a version").as_str().into(),
        created: Timestamp::try_from(created).expect("in range"),
        until: Timestamp::UNIX_EPOCH,
        left: Duration::ZERO,
    }
}

async fn holds(store: &MemoryStore, secret: &str) -> bool {
    let path = SecretPath::new(secret).expect("a path");
    store.stat(&path, &GetOptions::default()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_goes_for_good_and_no_successor_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(MemoryStore::new("behind"));
    let server = server(folder.path(), Arc::clone(&store) as _).await;
    let state = &server.shared.state;
    let gone = put(&store, "web01/gone").await;
    let mut successor = put(&store, "web01/successor").await;
    // As where a store's versions begin anew.
    successor.created = Timestamp::UNIX_EPOCH;
    let newer = put(&store, "web01/newer").await;
    put(&store, "web01/newer").await;
    let mut early = put(&store, "web01/early").await;
    early.left = Duration::from_secs(1);
    for tombstone in [&gone, &successor, &newer, &early] {
        state.put_tombstone(tombstone).await.expect("buried");
    }
    sweep(&server.shared, state.due()).await;
    for (secret, there, buried) in [
        ("web01/gone", false, false),
        ("web01/successor", true, false),
        ("web01/newer", true, false),
        ("web01/early", true, true),
    ] {
        assert_eq!(holds(&store, secret).await, there, "{secret}");
        assert_eq!(state.tombstone(secret).is_some(), buried, "{secret}");
    }
    let audit = std::fs::read_to_string(folder.path().join("audit.jsonl")).expect("the audit");
    let purges = audit
        .lines()
        .filter(|line| line.contains("\"operation\":\"purge\""));
    let purges: Vec<&str> = purges.collect();
    assert_eq!(purges.len(), 2, "{audit}");
    for (line, outcome) in purges.iter().zip(["begin", "ok"]) {
        assert!(line.contains("\"actor\":\"service\""), "{line}");
        assert!(line.contains("\"subject\":\"web01/gone\""), "{line}");
        assert!(
            line.contains(&format!("\"outcome\":\"{outcome}\"")),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_keeps_its_turn_and_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(MemoryStore::new("behind"));
    let server = server(folder.path(), Stuck.over(Arc::clone(&store) as _)).await;
    let state = &server.shared.state;
    for secret in ["web01/a-stuck", "web01/b"] {
        let tombstone = put(&store, secret).await;
        state.put_tombstone(&tombstone).await.expect("buried");
    }
    sweep(&server.shared, state.due()).await;
    assert!(!holds(&store, "web01/b").await);
    assert!(state.tombstone("web01/a-stuck").is_some());
    assert!(turns::turn(&server.shared, "web01/a-stuck").is_none());
}

#[test]
fn a_clock_that_jumped_ahead_is_noticed() {
    let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let begun = at("2026-01-01T00:00:00Z");
    for (now, passed, jumped) in [
        ("2026-01-01T05:00:00Z", hours(5), false),
        ("2026-01-01T05:59:00Z", hours(5), false),
        ("2026-01-01T06:01:00Z", hours(5), true),
        ("2099-01-01T00:00:00Z", hours(0), true),
        // Behind is no danger: what is due by it comes later.
        ("1970-01-01T00:00:00Z", hours(5), false),
    ] {
        assert_eq!(has_jumped(begun, at(now), passed), jumped, "{now}");
    }
}
