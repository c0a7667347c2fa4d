//! Disks that hang: whoever waits is told in time, nothing is told that is not recorded, and what is
//! decided in memory goes on. A service whose disk hangs ends all the same when it is told to.

mod ground;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::{ErrorKind, MemoryStore};
use serde_json::json;

use ground::hanging::{Hanging, Threads};
use ground::{Ground, LIMIT, read, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_not_awaited_without_end_and_nothing_is_told_meanwhile() {
    let (ground, threads) = Threads::of(Ground::start(Arc::new(MemoryStore::new("memory")))).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let (node, manager) = (ground.who("node/n"), ground.who("manager/m"));
    let audit = || std::fs::read_to_string(ground.folder.path().join("audit.jsonl"));
    let granted = |outcome: &str| {
        let audit = audit().expect("the audit");
        let mut lines = audit.lines();
        let outcome = format!("\"outcome\":\"{outcome}\"");
        lines.any(|line| line.contains("\"subject\":\"web02\"") && line.contains(&outcome))
    };

    // The state's disk: a change waits for it, and its caller is told in time.
    let state = Hanging::thread(&threads, "state").await;
    let mut wire = ground.wire(Some(&manager)).await.expect("let in");
    let body = json!({"scope": "web02", "node": "n"}).to_string();
    let patience = "keyhaul-timeout-ms: 500\r\n";
    let asked = request("POST", "/v1/grants", patience, body.as_bytes());
    wire.send(&asked).await.expect("sent");
    let begun = Instant::now();
    let change = tokio::spawn(async move { wire.answer().await.expect("answered") });
    while !granted("begin") {
        assert!(begun.elapsed() < LIMIT, "it never began");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What is decided in memory is none of that disk's business.
    assert!(ground.serves(&node, "web01/root").await);
    assert!(!change.is_finished(), "the control: it hangs");
    let answer = change.await.expect("no panic");
    assert_eq!(answer.kind(), "Timeout", "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let body = read(&["web02/x"]);
    let answer = ground.ask(&node, "POST", "/v1/secrets/read", Some(&body));
    let answer = answer.await.json().to_string();
    assert!(answer.contains("PermissionDenied"), "not granted: {answer}");
    drop(state);
    // It was begun, so it is ended, and the audit says how.
    while !granted("ok") {
        assert!(begun.elapsed() < 2 * LIMIT, "it never ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // The audit's disk: nothing is told, and nothing is begun.
    let hanging = Hanging::thread(&threads, "audit").await;
    let begun = Instant::now();
    let body = read(&["web01/root"]);
    let grant = json!({"scope": "web03", "node": "n"});
    let (answer, decided, refused) = tokio::join!(
        ground.ask(&node, "POST", "/v1/secrets/read", Some(&body)),
        ground.ask(&manager, "POST", "/v1/grants", Some(&grant)),
        ground.ask(&manager, "POST", "/v1/secrets/read", Some(&body)),
    );
    for answer in [&answer, &decided, &refused] {
        assert_eq!(answer.kind(), "Timeout", "{answer:?}");
    }
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(!told.contains("value"), "{told}");
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    drop(hanging);
    // Both disks are well again: what was refused meanwhile was not done.
    assert!(ground.serves(&node, "web01/root").await);
    let answer = ground.ask(&manager, "GET", "/v1/grants", None).await;
    let grants = answer.json().to_string();
    assert!(
        grants.contains("web02") && !grants.contains("web03"),
        "{grants}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_disk_hangs_ends_in_time_and_says_what_is_lost() {
    let (ground, threads) = Threads::of(Ground::start(Arc::new(MemoryStore::new("memory")))).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let (node, manager) = (ground.who("node/n"), ground.who("manager/m"));
    let hanging = Hanging::thread(&threads, "state").await;
    // What was fetched is written down soon, and that hangs: nothing that needs the file is
    // answered from then on.
    assert!(ground.serves(&node, "web01/root").await);
    let begun = Instant::now();
    loop {
        let answer = ground.ask(&manager, "GET", "/v1/nodes", None).await;
        if answer.status != 200 {
            assert_eq!(answer.kind(), "Timeout", "{answer:?}");
            break;
        }
        assert!(begun.elapsed() < LIMIT, "it never hangs");
    }
    let begun = Instant::now();
    // The service manager would kill it after 90 seconds.
    let ended = tokio::time::timeout(Duration::from_secs(60), ground.end()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it hangs for {:?}", begun.elapsed()));
    let error = ended.expect_err("what was buffered is not written down");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    drop(hanging);
}
