//! Deleting softly, and bringing back.

use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use keyhaul_core::{GetOptions, SecretPath, SecretStore as _};
use keyhaul_remote::protocol::{DeleteAnswer, ListAnswer, ServiceAnswer, Stat, path};
use serde_json::json;

use super::site::{Peer, Site};

async fn holds(site: &Site, secret: &str) -> bool {
    let path = SecretPath::new(secret).expect("a path");
    site.store
        .inner
        .stat(&path, &GetOptions::default())
        .await
        .is_ok()
}

async fn kind(node: &Peer, secret: &str) -> String {
    match node.read(&[secret]).await.remove(0) {
        Ok(_) => "ok".to_owned(),
        Err(problem) => problem.kind,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_hidden_and_can_come_back() {
    let site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    site.put("web01/data/a", b"battery").await;
    let (manager, node) = (site.manager(), site.node("y"));
    site.grant("web01", "y").await;

    let delete = json!({ "secret": "web01/root" });
    let refused = manager.post(path::DELETE, &delete).await;
    assert_eq!(refused.kind(), "Conflict", "a node holds it");
    assert_eq!(kind(&node, "web01/root").await, "ok");

    for secret in ["web01/root", "web01/data/a"] {
        let forced = json!({ "secret": secret, "force": true });
        let answer = manager.post(path::DELETE, &forced).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let answer: DeleteAnswer = answer.json();
        assert!(answer.restorable_until.is_some());
        assert!(holds(&site, secret).await, "it is there still");
        assert_eq!(kind(&node, secret).await, "NotFound");
        // Again: it is a repetition.
        let again: DeleteAnswer = manager.post(path::DELETE, &forced).await.json();
        assert_eq!(again.restorable_until, answer.restorable_until);
    }
    let stat = json!({ "items": [{ "secret": "web01/root" }] });
    assert!(
        manager
            .post(path::STAT, &stat)
            .await
            .text()
            .contains("NotFound")
    );
    let list: ListAnswer = manager
        .get("/v1/secrets?prefix=web01&shallow=true")
        .await
        .json();
    assert_eq!((list.secrets.len(), list.folders.len()), (0, 0), "{list:?}");

    let answer = manager
        .post(path::RESTORE, &json!({ "secret": "web01/root" }))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let _: Stat = answer.json();
    assert_eq!(kind(&node, "web01/root").await, "ok");
    let list: ListAnswer = manager
        .get("/v1/secrets?prefix=web01&shallow=true")
        .await
        .json();
    assert_eq!(list.secrets, ["web01/root"]);
    assert!(list.folders.is_empty());
    let nothing = manager
        .post(path::RESTORE, &json!({ "secret": "web01/root" }))
        .await;
    assert_eq!(nothing.kind(), "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_in_its_place_is_not_hidden_and_brings_nothing_old_back() {
    let site = Site::start().await;
    let (manager, operator, node) = (site.manager(), site.operator(), site.node("y"));
    assert_eq!(
        operator.write("web01/root", b"old").await.status,
        StatusCode::OK
    );
    let answer = manager
        .post(path::DELETE, &json!({ "secret": "web01/root" }))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    site.grant("web01", "y").await;
    assert_eq!(
        operator.write("web01/root", b"new").await.status,
        StatusCode::OK
    );
    let read = node.read(&["web01/root"]).await;
    assert_eq!(read[0].as_deref().ok(), Some(&b"new"[..]));
    let restore = manager
        .post(path::RESTORE, &json!({ "secret": "web01/root" }))
        .await;
    assert_eq!(restore.kind(), "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_window_it_is_gone_at_once() {
    let site = Site::with("delete-window = \"0s\"").await;
    site.put("web01/root", b"correct horse").await;
    let manager = site.manager();
    let answer = manager
        .post(path::DELETE, &json!({ "secret": "web01/root" }))
        .await;
    let answer: DeleteAnswer = answer.json();
    assert_eq!(answer.restorable_until, None);
    assert!(!holds(&site, "web01/root").await);
    let absent = manager
        .post(path::DELETE, &json!({ "secret": "web01/root" }))
        .await;
    assert_eq!(
        absent.status,
        StatusCode::OK,
        "deleting what is not there succeeds"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_has_what_was_decided() {
    let site = Site::start().await;
    let manager = site.manager();
    let ends = "2999-01-01T00:00:00Z";
    let posts = [
        (
            path::GRANTS,
            json!({ "scope": "web01", "node": "y", "names": ["a*"], "expires": ends }),
            json!({ "names": ["a*"], "expires": ends }),
        ),
        (
            path::MIGRATIONS,
            json!({ "scope": "web01", "from": "y", "to": "z", "seconds": 60 }),
            json!({ "from": "y", "to": "z", "seconds": 60 }),
        ),
        (
            path::GENERATE,
            json!({ "secret": "web02/x", "alphabet": "hex", "length": 32, "mode": "create" }),
            json!({ "mode": "create" }),
        ),
        (
            path::DELETE,
            json!({ "secret": "web02/x", "force": true }),
            json!({ "force": true }),
        ),
    ];
    for (path, body, terms) in posts {
        let answer = manager.post(path, &body).await;
        assert_eq!(answer.status, http::StatusCode::OK, "{}", answer.text());
        let audit = site.audit();
        // Begun, and done.
        for line in audit.lines().rev().take(2) {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(record["terms"], terms, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_told_from_a_successor_is_deleted_at_once() {
    let site = Site::start().await;
    site.store.is_blank.store(true, Ordering::SeqCst);
    site.put("web01/root", b"old").await;
    let manager = site.manager();
    let answer = manager
        .post(path::DELETE, &json!({ "secret": "web01/root" }))
        .await;
    let answer: DeleteAnswer = answer.json();
    assert_eq!(answer.restorable_until, None);
    assert!(!holds(&site, "web01/root").await);
    // Another program's successor is seen at once.
    site.put("web01/root", b"new").await;
    site.grant("web01", "y").await;
    assert_eq!(kind(&site.node("y"), "web01/root").await, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_refused_leaves_what_can_be_restored() {
    let site = Site::start().await;
    let (manager, operator, node) = (site.manager(), site.operator(), site.node("y"));
    site.put("web01/root", b"old").await;
    site.grant("web01", "y").await;
    let delete = json!({ "secret": "web01/root", "force": true });
    assert_eq!(
        manager.post(path::DELETE, &delete).await.status,
        StatusCode::OK
    );
    site.store.is_full.store(true, Ordering::SeqCst);
    let refused = operator.write("web01/root", b"new").await;
    assert_eq!(refused.kind(), "StorageFull");
    site.store.is_full.store(false, Ordering::SeqCst);
    assert_eq!(kind(&node, "web01/root").await, "NotFound");
    let restore = json!({ "secret": "web01/root" });
    let answer = manager.post(path::RESTORE, &restore).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let read = node.read(&["web01/root"]).await;
    assert_eq!(read[0].as_deref().ok(), Some(&b"old"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_another_version_than_the_deleted_one_is_a_conflict() {
    let site = Site::start().await;
    site.put("web01/root", b"old").await;
    let manager = site.manager();
    let delete =
        |version: &str| json!({ "secret": "web01/root", "version": version, "force": true });
    let kinds = async |version: &str| {
        let answer = manager.post(path::DELETE, &delete(version)).await;
        (answer.status != StatusCode::OK).then(|| answer.kind())
    };
    assert_eq!(kinds("1").await, None);
    assert_eq!(kinds("2").await.as_deref(), Some("Conflict"));
    assert_eq!(kinds("1").await, None, "a repetition");
}

/// The client waits no longer, the store is still at it: nobody else gets between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_keeps_its_turn_for_as_long_as_the_store_is_at_it() {
    let site = Site::start().await;
    let (manager, operator) = (site.manager(), site.operator());
    let service: ServiceAnswer = operator.get(path::SERVICE).await.json();
    let body = operator.sealed(&service.key, "web01/slow", b"late");
    let headers = [
        ("content-type", "application/json"),
        ("keyhaul-timeout-ms", "300"),
    ];
    let impatient = async |peer: &Peer, path: &str, body: String| {
        let answer = peer.send(Method::POST, path, &headers, Some(body)).await;
        answer.expect("an answer").kind()
    };
    assert_eq!(
        impatient(&operator, path::WRITE, body.to_string()).await,
        "Timeout"
    );
    let delete = json!({ "secret": "web01/slow" });
    assert_eq!(
        impatient(&manager, path::DELETE, delete.to_string()).await,
        "Timeout"
    );
    // Now the store ends, and with it the turn: the delete finds what was written.
    site.store.slow.add_permits(1);
    let answer = manager.post(path::DELETE, &delete).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let answer: DeleteAnswer = answer.json();
    assert!(answer.restorable_until.is_some());
    assert!(holds(&site, "web01/slow").await);
    let late = |audit: String| audit.contains("its caller waited no longer");
    while !late(site.audit()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_generated_cannot_be_guessed_and_replaces_nothing_in_use_by_accident() {
    let site = Site::start().await;
    let manager = site.manager();
    for (alphabet, least) in [("hex", 32), ("alphanumeric", 22), ("bytes", 16)] {
        let body = |length| {
            json!({ "secret": format!("web01/{alphabet}"), "alphabet": alphabet,
                "length": length })
        };
        let short = manager.post(path::GENERATE, &body(least - 1)).await;
        assert_eq!(short.kind(), "InvalidReference", "{alphabet}");
        assert!(short.text().contains("128 bits"), "{}", short.text());
        let made = manager.post(path::GENERATE, &body(least)).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.text());
        let again = manager.post(path::GENERATE, &body(least)).await;
        assert_eq!(again.kind(), "AlreadyExists", "create is the default");
    }
    let body = |mode: &str, force| {
        let mut body = json!({ "secret": "web01/hex", "alphabet": "hex", "length": 32,
            "mode": mode, "force": force });
        if mode == "update" {
            body["expect"] = json!("1");
        }
        body
    };
    let free = manager
        .post(path::GENERATE, &body("overwrite", false))
        .await;
    assert_eq!(
        free.status,
        StatusCode::OK,
        "nobody holds it: {}",
        free.text()
    );
    site.grant("web01", "y").await;
    for mode in ["overwrite", "update"] {
        let held = manager.post(path::GENERATE, &body(mode, false)).await;
        assert_eq!(held.kind(), "Conflict");
        assert!(held.text().contains("force"), "{}", held.text());
    }
    let forced = manager.post(path::GENERATE, &body("overwrite", true)).await;
    assert_eq!(forced.status, StatusCode::OK, "{}", forced.text());
}
