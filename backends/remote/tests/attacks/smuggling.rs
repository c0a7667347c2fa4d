//! Requests that two readers could understand in two ways: the server answers at most one, and does
//! nothing that a second would ask for.

use std::sync::Arc;

use keyhaul_core::MemoryStore;
use serde_json::Value;

use crate::ground::{Ground, request};

const HIDDEN: &str = r#"{"scope": "web66", "node": "evil"}"#;

/// A grant that stands where a second reader would begin.
fn hidden() -> String {
    String::from_utf8(request("POST", "/v1/grants", "", HIDDEN.as_bytes())).expect("text")
}

fn shapes() -> Vec<(&'static str, String)> {
    let hidden = hidden();
    let len = hidden.len();
    let json = "content-type: application/json\r\n";
    let post = "POST /v1/secrets/stat HTTP/1.1\r\nhost: x\r\n";
    vec![
        (
            "a length and chunks",
            format!(
                "{post}{json}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
                len + 5
            ),
        ),
        (
            "chunks and a length",
            format!(
                "{post}{json}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{len:x}\r\n{hidden}\r\n0\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            format!("{post}{json}content-length: 0\r\ncontent-length: {len}\r\n\r\n{hidden}"),
        ),
        (
            "a list of lengths",
            format!("{post}{json}content-length: 0, {len}\r\n\r\n{hidden}"),
        ),
        (
            "a signed length",
            format!("{post}{json}content-length: +{len}\r\n\r\n{hidden}"),
        ),
        (
            "a length in hex",
            format!("{post}{json}content-length: 0x{len:x}\r\n\r\n{hidden}"),
        ),
        (
            "an unknown coding",
            format!(
                "{post}{json}transfer-encoding: xchunked\r\ncontent-length: {len}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a coding twice",
            format!(
                "{post}{json}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "a space before the colon",
            format!("{post}{json}content-length : {len}\r\n\r\n{hidden}"),
        ),
        (
            "a folded header",
            format!(
                "{post}{json}x-a: b\r\n transfer-encoding: chunked\r\ncontent-length: {len}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a lone carriage return",
            format!(
                "{post}{json}x-a: b\rcontent-length: 0\r\ncontent-length: {len}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a NUL in a header",
            format!("{post}{json}x-a: \u{0}\r\ncontent-length: {len}\r\n\r\n{hidden}"),
        ),
        (
            "a chunk that is longer than it says",
            format!("{post}{json}transfer-encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk's size past all numbers",
            format!("{post}{json}transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n{hidden}"),
        ),
        (
            "an old version",
            format!(
                "POST /v1/secrets/stat HTTP/1.0\r\ntransfer-encoding: chunked\r\n{json}content-length: {len}\r\n\r\n{hidden}"
            ),
        ),
        (
            "an upgrade to HTTP/2 in the clear",
            format!(
                "GET /v1/service HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\ncontent-length: {len}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a tunnel",
            format!(
                "CONNECT localhost:443 HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a length that awaits a word",
            format!("{post}{json}expect: 200-maybe\r\ncontent-length: {len}\r\n\r\n{hidden}"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_in_a_request_is_not_done() {
    let ground = Ground::start(Arc::new(MemoryStore::new("memory"))).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let manager = ground.who("manager/m");
    let node = ground.who("node/n");
    for (what, shape) in shapes() {
        let mut wire = ground.wire(Some(&manager)).await.expect("let in");
        let _ = wire.send(shape.as_bytes()).await;
        // What the first is answered, if anything; a body that is no JSON is refused as one.
        let mut statuses = Vec::new();
        let whole = request("GET", "/v1/service", "connection: close\r\n", b"");
        let _ = wire.send(&whole).await;
        while let Ok(answer) = wire.answer().await {
            statuses.push(answer.status);
        }
        let granted = ground
            .ask(&manager, "GET", "/v1/what-can?node=evil", None)
            .await;
        assert_eq!(
            granted.json()["grants"],
            Value::Array(Vec::new()),
            "{what} was believed: {statuses:?}"
        );
        assert!(statuses.len() <= 2, "{what}: {statuses:?}");
    }
    assert!(ground.serves(&node, "web01/root").await);
    // The control: in good order behind a good request, on the same connection, it is done.
    let mut wire = ground.wire(Some(&manager)).await.expect("let in");
    let first = request("GET", "/v1/service", "", b"");
    let both = [first, hidden().into_bytes()].concat();
    wire.send(&both).await.expect("sent");
    assert_eq!(wire.answer().await.expect("answered").status, 200);
    assert_eq!(wire.answer().await.expect("answered").status, 200);
    let granted = ground
        .ask(&manager, "GET", "/v1/what-can?node=evil", None)
        .await;
    assert_eq!(granted.json()["grants"][0]["scope"], "web66");
}
