//! Stores on bad days, behind a live server: what the caller is told, and that others are served.

mod ground;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::{ErrorKind, MemoryStore};
use serde_json::json;

use ground::{Ground, Wire, read, request};

const READ: &str = "/v1/secrets/read";

/// A server over a store with these faults to come, once its secret is there and granted.
async fn ground(faults: Vec<Fault>) -> (Ground, Arc<FaultStore>) {
    let memory = Arc::new(MemoryStore::new("memory"));
    let ground = Ground::start(memory.clone()).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let store = FaultStore::new(memory, faults);
    (ground.restart(store.clone(), "").await, store)
}

/// The kind of the only item's failure; none where there is a value.
async fn outcome(ground: &Ground) -> Option<String> {
    let body = read(&["web01/root"]);
    let answer = ground
        .ask(&ground.who("node/n"), "POST", READ, Some(&body))
        .await;
    let json = answer.json();
    let item = &json["items"][0];
    if item["value"].is_string() {
        return None;
    }
    let kind = item["problem"]["kind"].as_str().or(json["kind"].as_str());
    Some(kind.unwrap_or_else(|| panic!("{json}")).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ails_the_store_is_told_as_far_as_it_is_the_callers_business() {
    for (ails, told) in [
        (ErrorKind::Unavailable, "Unavailable"),
        (ErrorKind::RateLimited, "RateLimited"),
        (ErrorKind::Corrupt, "Corrupt"),
        // The service's own standing at its store is not the node's.
        (ErrorKind::PermissionDenied, "Internal"),
        (ErrorKind::Unauthenticated, "Internal"),
        (ErrorKind::InvalidConfig, "Internal"),
    ] {
        let (ground, _store) = ground(vec![Fault::Fail(ails)]).await;
        assert_eq!(outcome(&ground).await.as_deref(), Some(told), "{ails:?}");
        assert_eq!(outcome(&ground).await, None, "after {ails:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_holds_up_nobody_else() {
    let (ground, store) = ground(vec![Fault::Hang]).await;
    let node = ground.who("node/n");
    let body = read(&["web01/root"]).to_string();
    let mut wire: Wire = ground.wire(Some(&node)).await.expect("let in");
    let patience = "keyhaul-timeout-ms: 1500\r\n";
    let begun = Instant::now();
    let asked = request("POST", READ, patience, body.as_bytes());
    wire.send(&asked).await.expect("sent");
    // Somebody else is served meanwhile.
    let stuck = tokio::spawn(async move { wire.answer().await.expect("answered") });
    while store.seen().is_empty() {
        assert!(begun.elapsed() < ground::LIMIT, "it never asked");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(outcome(&ground).await, None);
    assert!(!stuck.is_finished(), "the control: it hangs");
    let answer = stuck.await.expect("no panic");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(1400), "{waited:?}");
    assert!(waited < Duration::from_secs(15), "{waited:?}");
    let json = answer.json();
    let kind = json["items"][0]["problem"]["kind"].as_str();
    assert_eq!(kind.or(json["kind"].as_str()), Some("Timeout"), "{json}");
}

/// Another program has the state's database: what was decided is served on, nothing is decided, and
/// no secret leaves under a migration whose first fetch cannot be written down.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_locked_what_was_decided_holds_and_nothing_else_is() {
    let (ground, _store) = ground(Vec::new()).await;
    let (manager, target) = (ground.who("manager/m"), ground.who("node/z"));
    let begin = json!({"scope": "web01", "from": "n", "to": "z"});
    ground.tell(&manager, "/v1/migrations", begin).await;
    let file = ground.folder.path().join("service.db");
    let other = rusqlite::Connection::open(file).expect("another program");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");

    // At once: each waits until the database's limit is over.
    let body = read(&["web01/root"]);
    let fetched = ground.ask(&target, "POST", READ, Some(&body));
    let changes = [
        ("/v1/grants", json!({"scope": "web02", "node": "n"})),
        ("/v1/grants/revoke", json!({"scope": "web01", "node": "n"})),
        ("/v1/nodes/quarantine", json!({"node": "n"})),
        (
            "/v1/migrations/commit",
            json!({"scope": "web01", "from": "n", "to": "z"}),
        ),
    ];
    let changes = changes.map(|(path, body)| {
        let (ground, manager) = (&ground, &manager);
        async move {
            let answer = ground.ask(manager, "POST", path, Some(&body)).await;
            assert_eq!(answer.status, 503, "{path}: {answer:?}");
            assert_eq!(answer.kind(), "Unavailable", "{path}");
        }
    });
    let all = futures_util::future::join_all(changes);
    let waited = futures_util::future::join3(fetched, all, outcome(&ground));
    let waited = tokio::time::timeout(ground::LIMIT, waited).await;
    let (fetched, _, held) = waited.expect("in time");
    assert_eq!(held, None, "what was granted is read");
    assert!(
        !fetched.json()["items"][0]["value"].is_string(),
        "{fetched:?}"
    );
    assert_eq!(outcome(&ground).await, None, "nothing of it was done");

    // The control: unlocked, all of it is.
    other.execute_batch("ROLLBACK").expect("free again");
    assert!(ground.serves(&target, "web01/root").await);
    let revoke = json!({"scope": "web01", "node": "n"});
    ground.tell(&manager, "/v1/grants/revoke", revoke).await;
    assert_eq!(outcome(&ground).await.as_deref(), Some("PermissionDenied"));
}
