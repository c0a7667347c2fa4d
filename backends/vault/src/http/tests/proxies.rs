//! Proxies: which one is asked, for what, and what it gets to see.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use keyhaul_core::ErrorKind;

use super::*;

/// A proxy that opens tunnels to `server`, whatever is asked for.
fn tunnel(server: &str) -> Raw {
    let server = server.rsplit("//").next().unwrap_or_default().to_owned();
    Raw::new(move |_, _, client| {
        let Ok(mut far) = TcpStream::connect(&server) else {
            return false;
        };
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let (Ok(mut up), Ok(mut far_up)) = (client.try_clone(), far.try_clone()) else {
            return false;
        };
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut up, &mut far_up);
            let _ = far_up.shutdown(Shutdown::Write);
        });
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = far.read(&mut buffer) {
            if client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        false
    })
}

#[tokio::test]
async fn over_tls_a_proxy_is_asked_for_a_tunnel_and_never_sees_the_token() {
    let server = tls_server();
    let token = secret(server.root_token());
    for name in ["VAULT_PROXY_ADDR", "BAO_HTTP_PROXY", "VAULT_HTTP_PROXY"] {
        let proxy = tunnel(server.address());
        let given = options([("ca-cert", text(server.ca_path().display()))]);
        let http = wire(server.address(), given, &[(name, &proxy.url())]);
        http.ask(get("sys/mounts").manner(with_token(&token)))
            .await
            .map(drop)
            .expect(name);
        let seen = proxy.seen();
        assert!(seen[0].starts_with("CONNECT 127.0.0.1:"), "{seen:?}");
        assert!(!seen[0].contains(server.root_token()), "{seen:?}");
    }
}

#[tokio::test]
async fn in_the_clear_a_proxy_is_asked_for_the_whole_url() {
    let proxy = Raw::answering(200, "", "{}");
    let url = proxy.url();
    let bare = url.trim_start_matches("http://").to_owned();
    for (name, value) in [
        ("VAULT_PROXY_ADDR", url.clone()),
        ("HTTP_PROXY", url.clone()),
        ("http_proxy", bare),
    ] {
        let before = proxy.seen().len();
        let http = wire("http://vault.example:8200", options([]), &[(name, &value)]);
        http.ask(health()).await.map(drop).expect(name);
        let seen = proxy.seen();
        let line = "GET http://vault.example:8200/v1/sys/health ";
        assert!(seen[before].starts_with(line), "{name}: {seen:?}");
    }
    let by_policy = http("http://vault.example:8200", [("proxy", text(&url))]);
    by_policy
        .ask(health())
        .await
        .map(drop)
        .expect("by the policy");
}

#[tokio::test]
async fn proxies_are_passed_by_where_they_are_told_to() {
    let server = Raw::answering(200, "", "{}");
    let proxy = Raw::answering(418, "", "");
    let url = proxy.url();
    let own =
        |environment: &[(&str, &str)], given: Options| wire(&server.url(), given, environment);
    // This host itself, without being told.
    own(&[("HTTP_PROXY", &url)], options([]))
        .ask(health())
        .await
        .map(drop)
        .expect("direct");
    let none = options([("proxy", text("none"))]);
    own(&[("VAULT_PROXY_ADDR", &url)], none)
        .ask(health())
        .await
        .map(drop)
        .expect("direct");
    let hidden = [("VAULT_PROXY_ADDR", url.as_str()), ("BAO_PROXY_ADDR", "")];
    own(&hidden, options([]))
        .ask(health())
        .await
        .map(drop)
        .expect("direct");
    assert!(proxy.seen().is_empty());
    own(&[("VAULT_PROXY_ADDR", &url)], options([]))
        .ask(health())
        .await
        .map(drop)
        .expect_err("418");
    assert_eq!(proxy.seen().len(), 1, "the control went through");

    let except = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", "other,.invalid")];
    let direct = wire("http://vault.invalid:8200", options([]), &except);
    let error = direct
        .ask(health())
        .await
        .map(drop)
        .expect_err("no such name");
    assert!(
        error.message().contains("its name leads to no address"),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxys_password_is_never_printed() {
    let environment = [("VAULT_PROXY_ADDR", "http://user:hunter2@127.0.0.1:1")];
    let http = wire("https://vault.example:8200", options([]), &environment);
    let error = http.ask(health()).await.map(drop).expect_err("nobody");
    let shown = format!("{} {:?} {:?}", whole(&error), http, http.settings());
    assert!(!shown.contains("hunter2"), "{shown}");
    for (given, environment) in [
        (
            options([("proxy", text("http://user:hunter2@proxy:3128"))]),
            ("X", "x"),
        ),
        (options([]), ("HTTPS_PROXY", "gopher://hunter2/")),
    ] {
        let address = Address::parse("https://vault", "it").expect("address");
        let environment = Environment::of(&[environment]);
        let error = Settings::new(Some(address), &given, &environment).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_refuses_is_not_taken_for_the_server() {
    let refuses = Raw::answering(407, "", "");
    for proxy in ["http://127.0.0.1:1", &refuses.url()] {
        let environment = [("VAULT_PROXY_ADDR", proxy)];
        let http = wire(
            "https://vault.example:8200",
            options([("ca-cert", text(tls_server().ca_path().display()))]),
            &environment,
        );
        let error = http.ask(health()).await.map(drop).expect_err("no tunnel");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(
            whole(&error).contains("VAULT_PROXY_ADDR"),
            "{}",
            whole(&error)
        );
    }
    assert_eq!(refuses.seen().len(), 1);
}

#[tokio::test]
async fn a_name_for_tls_cannot_be_had_through_a_proxy() {
    let given = [
        ("tls-server-name", text("vault")),
        ("proxy", text("http://127.0.0.1:1")),
    ];
    let http = http("https://vault.example:8200", given);
    let error = http.ask(health()).await.map(drop).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("tls-server-name"), "{error}");
}
