//! Deleting softly, and bringing back.

use http::StatusCode;
use keyhaul_core::{GetOptions, SecretPath, SecretStore as _};
use keyhaul_remote::protocol::{DeleteAnswer, ListAnswer, Stat, path};
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
            json!({ "secret": "web02/x", "alphabet": "hex", "length": 8, "mode": "create" }),
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
