//! Paths, names and sizes that are not what they should be.

use std::sync::Arc;

use keyhaul_core::MemoryStore;
use serde_json::{Value, json};

use crate::ground::{Ground, read, request};

async fn ground() -> Ground {
    let ground = Ground::start(Arc::new(MemoryStore::new("memory"))).await;
    for secret in ["web01/root", "web02/root", "@host.other/tls"] {
        ground.generate(secret).await;
    }
    ground.grant("web01", "n").await;
    ground
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_nearly_one_is_none() {
    let ground = ground().await;
    let manager = ground.who("manager/m");
    let good = "/v1/grants";
    assert_eq!(ground.ask(&manager, "GET", good, None).await.status, 200);
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/grants/",
        "//v1/grants",
        "/v1//grants",
        "/v1/./grants",
        "/v1/x/../grants",
        "/V1/grants",
        "/v1/Grants",
        "/v1/%67rants",
        "/v1%2fgrants",
        "/v1/grants%00",
        "/v1/grants;x=1",
        "/v1/grants/web01",
        "/v1/secrets/web01/root",
        "/v2/grants",
        "/metrics",
        "/debug",
        "/.well-known/openid-configuration",
    ] {
        let answer = ground.ask(&manager, "GET", path, None).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    // No method reaches what another is for.
    for (method, path) in [
        ("PUT", "/v1/grants"),
        ("DELETE", "/v1/grants"),
        ("PATCH", "/v1/grants"),
        ("GET", "/v1/secrets/read"),
        ("POST", "/v1/service"),
        ("OPTIONS", "/v1/grants"),
        ("TRACE", "/v1/grants"),
        ("QUERY", "/v1/grants"),
    ] {
        let answer = ground.ask(&manager, method, path, None).await;
        let refused = [404, 405, 501].contains(&answer.status);
        assert!(refused, "{method} {path}: {answer:?}");
    }
    // Nor an unknown word in a query, nor one that is there twice.
    for query in [
        "?scopes=x",
        "?scope=a&scope=b",
        "?limit=x",
        "?limit=-1",
        "?scope=%ff",
    ] {
        let path = format!("/v1/grants{query}");
        let answer = ground.ask(&manager, "GET", &path, None).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_name_reaches_another_scope() {
    let ground = ground().await;
    let node = ground.who("node/n");
    for secret in [
        "web02/root",
        "web01/../web02/root",
        "web01/./root",
        "web01//root",
        "/web01/root",
        "web01/root/",
        "web01/root\u{0}",
        "web01/root\n",
        "web01%2froot",
        "web01\\root",
        "WEB02/root",
        "ｗeb02/root",
        "web02/root#field",
        "secret:web02/root",
        "@host/../web02/root",
        "@host.other/tls",
        "@host.n/../@host.other/tls",
        "@site/tls",
        "@",
        "",
        "web01",
        "*/root",
        "web0?/root",
        "{scope}/root",
        "web01/~",
    ] {
        let answer = ground
            .ask(&node, "POST", "/v1/secrets/read", Some(&read(&[secret])))
            .await;
        let item = match answer.status {
            200 => answer.json()["items"][0].clone(),
            _ => answer.json(),
        };
        assert!(item.get("value").is_none(), "{secret:?}: {answer:?}");
        let kind = item["problem"]["kind"].as_str().or(item["kind"].as_str());
        let refused = ["InvalidReference", "PermissionDenied"].map(Some);
        // What is in its own scope and is not there may be said to be missing.
        let missing = secret.starts_with("web01") && kind == Some("NotFound");
        assert!(refused.contains(&kind) || missing, "{secret:?}: {answer:?}");
    }
    assert!(ground.serves(&node, "web01/root").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_what_it_says_or_nothing_is_done() {
    let ground = ground().await;
    let manager = ground.who("manager/m");
    let grant = r#"{"scope": "web02", "node": "n"}"#;
    let bodies: Vec<Vec<u8>> = [
        "",
        "null",
        "[]",
        "{",
        "{}",
        r#"{"scope": "web02"}"#,
        r#"{"scope": "web02", "node": "n", "admin": true}"#,
        r#"{"scope": "web02", "node": "n", "node": "m"}"#,
        r#"{"scope": "web02", "node": "n"} {"x": 1}"#,
        r#"{"scope": "web02", "node": ["n"]}"#,
        r#"{"scope": "web*", "node": "n"}"#,
        r#"{"scope": "web02", "node": "*"}"#,
        r#"{"scope": "web02", "node": ""}"#,
        r#"{"scope": "web02", "node": "n", "expires": "tomorrow"}"#,
        r#"{"scope": "web02/root", "node": "n"}"#,
        "\u{feff}{\"scope\": \"web02\", \"node\": \"n\"}",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([
        b"{\"scope\": \"web02\xff\", \"node\": \"n\"}".to_vec(),
        [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
    ])
    .collect();
    for body in &bodies {
        let mut wire = ground.wire(Some(&manager)).await.expect("let in");
        let bytes = request("POST", "/v1/grants", "", body);
        wire.send(&bytes).await.expect("sent");
        let answer = wire.answer().await.expect("answered");
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
    }
    // Nor is JSON taken under another name.
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let mut wire = ground.wire(Some(&manager)).await.expect("let in");
        let bytes = format!(
            "POST /v1/grants HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{grant}",
            grant.len()
        );
        wire.send(bytes.as_bytes()).await.expect("sent");
        let answer = wire.answer().await.expect("answered");
        assert!([400, 415].contains(&answer.status), "{kind}: {answer:?}");
    }
    let held = |answer: Value| answer["grants"].as_array().expect("grants").len();
    let before = ground
        .ask(&manager, "GET", "/v1/what-can?node=n", None)
        .await;
    assert_eq!(held(before.json()), 1);
    // The control: the same in good order.
    let mut wire = ground.wire(Some(&manager)).await.expect("let in");
    let bytes = request("POST", "/v1/grants", "", grant.as_bytes());
    wire.send(&bytes).await.expect("sent");
    assert_eq!(wire.answer().await.expect("answered").status, 200);
    let after = ground
        .ask(&manager, "GET", "/v1/what-can?node=n", None)
        .await;
    assert_eq!(held(after.json()), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_others_are_served() {
    let ground = ground().await;
    let node = ground.who("node/n");
    let many: Vec<&str> = vec!["web01/root"; 257];
    let answer = ground
        .ask(&node, "POST", "/v1/secrets/read", Some(&read(&many)))
        .await;
    assert_eq!(answer.status, 413, "a batch: {answer:?}");
    let long = format!("web01/{}", "a".repeat(600));
    let answer = ground
        .ask(&node, "POST", "/v1/secrets/read", Some(&read(&[&long])))
        .await;
    let refused =
        answer.status == 400 || answer.json()["items"][0]["problem"]["kind"] == "InvalidReference";
    assert!(refused, "a name: {answer:?}");

    let body = vec![b' '; 2 * 1024 * 1024 + 1];
    let large = request("POST", "/v1/secrets/read", "", &body);
    let path = format!("/v1/secrets?prefix={}", "a".repeat(200_000));
    let header = format!("x-a: {}\r\n", "a".repeat(1_000_000));
    let headers: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
    for (what, bytes) in [
        ("a body", large),
        ("a path", request("GET", &path, "", b"")),
        ("a header", request("GET", "/v1/service", &header, b"")),
        ("headers", request("GET", "/v1/service", &headers, b"")),
    ] {
        let mut wire = ground.wire(Some(&node)).await.expect("let in");
        // It may close while more is on its way.
        let sent = wire.send(&bytes).await;
        match wire.answer().await {
            Ok(answer) => assert!(
                [400, 404, 413, 414, 431].contains(&answer.status),
                "{what}: {answer:?}"
            ),
            Err(closed) => assert!(what != "a batch", "{what}: {closed} {sent:?}"),
        }
        assert!(ground.serves(&node, "web01/root").await, "after {what}");
    }
    // Told at once, before a body that was only announced.
    let mut wire = ground.wire(Some(&node)).await.expect("let in");
    let head = "POST /v1/secrets/read HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n";
    wire.send(head.as_bytes()).await.expect("sent");
    assert_eq!(wire.answer().await.expect("answered").status, 413);
    // In chunks, with no length said.
    let mut wire = ground.wire(Some(&node)).await.expect("let in");
    let head = "POST /v1/secrets/read HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    wire.send(head.as_bytes()).await.expect("sent");
    let chunk = [b"40000\r\n".as_slice(), &vec![b' '; 0x40000], b"\r\n"].concat();
    for _ in 0..16 {
        if wire.send(&chunk).await.is_err() {
            break;
        }
    }
    if let Ok(answer) = wire.answer().await {
        assert_eq!(answer.status, 413, "{answer:?}");
    }
    assert!(ground.serves(&node, "web01/root").await);
    let stat = json!({"items": [{"secret": "web01/root"}]});
    ground.tell(&node, "/v1/secrets/stat", stat).await;
}
