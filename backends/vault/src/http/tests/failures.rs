//! Each way to fail has its kind, within its time, and with a control that succeeds.

use std::io::Write;
use std::time::{Duration, Instant};

use keyhaul_core::ErrorKind;
use keyhaul_servers::{Mode, OpenBao, Proxy, free_port};

use super::raw::response;
use super::*;

/// What an answer could be read as.
#[derive(Debug, serde::Deserialize)]
struct Mount {
    #[expect(dead_code, reason = "only its presence matters")]
    path: String,
}

/// The error of a request to what says these bytes, and how long it took.
async fn error_from(bytes: impl Into<Vec<u8>>) -> Error {
    let raw = Raw::saying(bytes);
    http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("no answer")
}

#[tokio::test]
async fn a_server_that_stalls_is_a_timeout_by_the_stores_limit_or_the_callers_deadline() {
    let raw = Raw::new(|_, head, stream| {
        if head.contains("/sys/leader ") {
            let _ = stream.write_all(&response(200, "", "{}"));
            return false;
        }
        std::thread::park_timeout(Duration::from_secs(30));
        false
    });
    let http = http(&raw.url(), [("client-timeout", text("400ms"))]);
    let start = Instant::now();
    let error = http.ask(health()).await.map(drop).expect_err("stalled");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(
        whole(&error).contains("client-timeout"),
        "{}",
        whole(&error)
    );
    assert!((400..3000).contains(&start.elapsed().as_millis()));

    let start = Instant::now();
    let manner = Manner {
        deadline: Some(start + Duration::from_millis(100)),
        ..Manner::default()
    };
    let error = http
        .ask(health().manner(manner))
        .await
        .map(drop)
        .expect_err("stalled");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.message().contains("deadline"), "{error}");
    assert!(
        (100..390).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );

    http.ask(get("sys/leader"))
        .await
        .map(drop)
        .expect("the control is answered");
}

#[tokio::test]
async fn a_real_server_that_stands_still_is_a_timeout_and_goes_on_serving_when_it_moves() {
    let server = OpenBao::dev();
    let http = http(server.address(), [("client-timeout", text("500ms"))]);
    http.ask(health()).await.map(drop).expect("serves");
    server.freeze();
    let error = http.ask(health()).await.map(drop).expect_err("frozen");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    server.thaw();
    let patient = super::http(server.address(), []);
    patient.ask(health()).await.map(drop).expect("serves again");
}

#[tokio::test]
async fn what_is_cut_reset_or_no_http_is_unavailable() {
    let whole_answer = String::from_utf8(response(200, "", r#"{"a": 1}"#)).expect("text");
    for (what, bytes) in [
        ("nothing", ""),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("half a body", &whole_answer[..whole_answer.len() - 3]),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("an impossible status", "HTTP/1.1 99999 X\r\n\r\n"),
    ] {
        let error = error_from(bytes).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error:?}");
    }
    let raw = Raw::saying(whole_answer);
    http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect("the control is whole");

    let proxy = Proxy::to(dev().address());
    let http = http(&format!("http://{}", proxy.address()), []);
    http.ask(health())
        .await
        .map(drop)
        .expect("the control passes");
    proxy.set(Mode::Reset);
    let error = http.ask(health()).await.map(drop).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    proxy.set(Mode::Pass);
    http.ask(health()).await.map(drop).expect("passes again");
}

#[tokio::test]
async fn garbage_of_a_success_is_unavailable_and_stays_unprinted() {
    for body in [
        "<html>hunter2</html>",
        r#"{"data": {"value": "hunter2"#,
        "",
        "\"hunter2\"",
    ] {
        let raw = Raw::answering(200, "", body);
        let answer = http(&raw.url(), []).ask(health()).await.expect("an answer");
        let error = answer.json::<Mount>().map(drop).expect_err("garbage");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused_before_it_fills_the_memory() {
    let announced = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        MAX_ANSWER + 1
    );
    assert_eq!(error_from(announced).await.kind(), ErrorKind::TooLarge);

    let endless = Raw::new(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
        false
    });
    let error = http(&endless.url(), []).ask(health()).await.map(drop);
    assert_eq!(error.expect_err("endless").kind(), ErrorKind::TooLarge);

    let fits = "x".repeat(1024 * 1024);
    let raw = Raw::answering(200, "", &fits);
    let answer = http(&raw.url(), [])
        .ask(health())
        .await
        .expect("the control fits");
    assert_eq!(answer.body.expose(), fits.as_bytes());
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_no_such_name() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let error = http(&nobody, [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("nothing listens there"), "{error}");

    // RFC 6761: `invalid` never is.
    let error = http("http://vault.invalid:8200", [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("no such name");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.message().contains("its name leads to no address"),
        "{error:?}"
    );

    let error = http("unix:///nowhere/vault.sock", [])
        .ask(health())
        .await
        .map(drop);
    let error = error.expect_err("no socket");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("is not there"), "{error:?}");
}

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
