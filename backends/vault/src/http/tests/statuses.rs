//! Statuses and the errors body: their kinds, and what of them is printed.

use std::io::Write;
use std::time::Duration;

use keyhaul_core::ErrorKind;
use keyhaul_servers::OpenBao;

use super::raw::response;
use super::*;

#[tokio::test]
async fn every_status_has_its_kind() {
    use ErrorKind::*;
    let token = secret("t");
    for (status, body, kind) in [
        (400, r#"{"errors":["bad"]}"#, InvalidReference),
        (
            400,
            "Client sent an HTTP request to an HTTPS server.\n",
            InvalidConfig,
        ),
        (401, r#"{"errors":[]}"#, Unauthenticated),
        (403, r#"{"errors":["permission denied"]}"#, PermissionDenied),
        (404, r#"{"errors":[]}"#, NotFound),
        (404, r#"{"errors":["no handler for route"]}"#, InvalidConfig),
        (405, r#"{"errors":["unsupported operation"]}"#, Unsupported),
        (
            412,
            r#"{"errors":["required index state not present"]}"#,
            Unavailable,
        ),
        (413, r#"{"errors":["request body too large"]}"#, TooLarge),
        (
            429,
            r#"{"errors":["request path: rate limit quota exceeded"]}"#,
            RateLimited,
        ),
        (429, "<html>", RateLimited),
        (429, r#"{"standby":true}"#, Unavailable),
        (472, "", Unavailable),
        (473, "", Unavailable),
        (500, r#"{"errors":["internal error"]}"#, Unavailable),
        (501, r#"{"errors":[]}"#, Unavailable),
        (502, "<html>", Unavailable),
        (503, r#"{"errors":["Vault is sealed"]}"#, Unavailable),
        (507, r#"{"errors":[]}"#, StorageFull),
        (302, "", Unavailable),
        (418, "", Unavailable),
    ] {
        let raw = Raw::answering(status, "", body);
        let call = get("secret/data/x").manner(with_token(&token));
        let error = http(&raw.url(), [])
            .ask(call)
            .await
            .map(drop)
            .expect_err("refused");
        assert_eq!(error.kind(), kind, "{status} {body}: {error:?}");
        assert!(
            error.message().contains(&status.to_string()) || status == 302,
            "{error}"
        );
    }
    // Without a token, the same answers mean that one is needed.
    for status in [400, 401, 403] {
        let raw = Raw::answering(status, "", r#"{"errors":["missing client token"]}"#);
        let error = http(&raw.url(), [])
            .ask(get("secret/data/x"))
            .await
            .map(drop);
        assert_eq!(
            error.expect_err("refused").kind(),
            Unauthenticated,
            "{status}"
        );
    }
    for status in [200, 204] {
        let raw = Raw::answering(status, "", "");
        http(&raw.url(), [])
            .ask(health())
            .await
            .map(drop)
            .expect("success");
    }
}

#[tokio::test]
async fn how_long_to_wait_is_kept() {
    let raw = Raw::answering(429, "Retry-After: 7\r\n", r#"{"errors":["quota"]}"#);
    let error = http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("limited");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let raw = Raw::answering(429, "", r#"{"errors":["quota"]}"#);
    let error = http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("limited");
    assert_eq!(error.retry_after(), None);
}

#[tokio::test]
async fn a_servers_words_are_one_bounded_line_and_an_unparsable_body_none() {
    let long = format!(
        r#"{{"errors":["one\ntwo\u001b[31m {}"]}}"#,
        "x".repeat(10_000)
    );
    let raw = Raw::answering(500, "", &long);
    let error = http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("500");
    let message = error.message();
    assert!(message.contains(r"one\ntwo\u{1b}[31m xxx"), "{message}");
    assert!(message.len() < 1000 && !message.contains('\n'), "{message}");

    let raw = Raw::answering(500, "", r#"{"value": "hunter2"}"#);
    let error = http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("500");
    assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
}

#[tokio::test]
async fn a_sealed_server_is_unavailable_and_says_how_to_unseal_it() {
    let server = OpenBao::tls();
    let http = http(
        server.address(),
        [("ca-cert", text(server.ca_path().display()))],
    );
    let token = secret(server.root_token());
    let call = || get("sys/mounts").manner(with_token(&token));
    http.ask(call())
        .await
        .map(drop)
        .expect("the control is unsealed");
    server.seal();
    let error = http.ask(call()).await.map(drop).expect_err("sealed");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("is sealed"), "{error}");
    assert!(whole(&error).contains("unseal"), "{}", whole(&error));
    server.unseal();
    server.await_health(&[200]);
    http.ask(call())
        .await
        .map(drop)
        .expect("unsealed again, over the same wire");
}

#[tokio::test]
async fn a_503_of_a_server_that_is_not_sealed_is_not_called_so() {
    let raw = Raw::new(|_, head, stream| {
        let answer = if head.contains("sys/health") {
            response(200, "", r#"{"sealed": false}"#)
        } else {
            response(503, "Retry-After: 3\r\n", "busy")
        };
        let _ = stream.write_all(&answer);
        false
    });
    let error = http(&raw.url(), [])
        .ask(get("secret/x"))
        .await
        .map(drop)
        .expect_err("busy");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.message().contains("sealed"), "{error}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
}

#[tokio::test]
async fn a_real_standby_says_so_and_passes_requests_on_to_its_leader() {
    let cluster = OpenBao::raft(2);
    let leader = cluster.leader_number();
    let standby = &cluster.nodes[1 - leader];
    let ca = text(standby.ca_path().display());
    let http = http(standby.address(), [("ca-cert", ca)]);
    let error = http.ask(health()).await.map(drop).expect_err("a standby");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("is a standby"), "{error}");
    let token = secret(cluster.nodes[leader].root_token());
    let call = get("sys/mounts").manner(with_token(&token));
    http.ask(call).await.map(drop).expect("by its leader");
}
