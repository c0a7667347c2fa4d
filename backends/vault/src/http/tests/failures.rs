//! Each way to fail has its kind, within its time, and with a control that succeeds.

use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyhaul_core::ErrorKind;
use keyhaul_servers::{Mode, OpenBao, Proxy, eventually, free_port};

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
    eventually("the server stands still", Duration::from_secs(10), || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("tasks");
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.contains(") T ")
        })
    });
    let error = http.ask(health()).await.map(drop).expect_err("frozen");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    server.thaw();
    let patient = super::http(server.address(), []);
    patient.ask(health()).await.map(drop).expect("serves again");
}

#[tokio::test]
async fn a_connection_that_died_in_silence_is_not_used_again() {
    let server = tls_server();
    let proxy = Proxy::to(server.address());
    let address = format!("https://{}", proxy.address());
    let ca = text(server.ca_path().display());
    let http = http(
        &address,
        [("ca-cert", ca), ("client-timeout", text("800ms"))],
    );
    http.ask(health())
        .await
        .map(drop)
        .expect("the control passes");
    proxy.set(Mode::Swallow);
    let error = http.ask(health()).await.map(drop).expect_err("swallowed");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    proxy.set(Mode::Pass);
    http.ask(health())
        .await
        .map(drop)
        .expect("over a new connection");
    assert_eq!(proxy.connections(), 2);

    // A layer's time limit drops the request, and says nothing.
    proxy.set(Mode::Swallow);
    let limit = Duration::from_millis(600);
    let given_up = tokio::time::timeout(limit, http.ask(health())).await;
    assert!(given_up.is_err());
    proxy.set(Mode::Pass);
    http.ask(health())
        .await
        .map(drop)
        .expect("over a new connection");
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
async fn over_tls_a_connection_may_end_at_any_byte() {
    let server = tls_server();
    for bytes in [0, 1, 100, 900, 1500, 2000] {
        let proxy = Proxy::to(server.address());
        let address = format!("https://{}", proxy.address());
        let http = http(&address, [("ca-cert", text(server.ca_path().display()))]);
        proxy.set(Mode::Cut(bytes));
        let start = Instant::now();
        let error = http.ask(health()).await.map(drop).expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{bytes}: {error:?}");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{bytes}: {:?}",
            start.elapsed()
        );
        proxy.set(Mode::Pass);
        http.ask(health())
            .await
            .map(drop)
            .expect("the control passes");
    }
}

#[tokio::test]
async fn a_reset_under_many_requests_is_unavailable_for_each_and_then_over() {
    let server = tls_server();
    let proxy = Proxy::to(server.address());
    let address = format!("https://{}", proxy.address());
    let http = http(&address, [("ca-cert", text(server.ca_path().display()))]);
    http.ask(health())
        .await
        .map(drop)
        .expect("the control passes");
    proxy.set(Mode::Stall);
    let calls = join_all((0..50).map(|_| http.ask(health())));
    let (outcomes, ()) = tokio::join!(calls, async {
        // All have been sent when the first one waits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.set(Mode::Reset);
    });
    for outcome in outcomes {
        let error = outcome.map(drop).expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    proxy.set(Mode::Pass);
    for outcome in join_all((0..50).map(|_| http.ask(health()))).await {
        outcome.map(drop).expect("over");
    }
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
