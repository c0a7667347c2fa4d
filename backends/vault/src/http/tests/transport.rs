//! Sockets, proxies, redirects, headers, and what the environment says of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use futures_util::future::join_all;
use keyhaul_core::ErrorKind;
use keyhaul_servers::{Proxy, Setup};

use super::raw::response;
use super::*;

#[tokio::test]
async fn a_request_says_who_asks_what_in_which_namespace() {
    let raw = Raw::answering(200, "", "{}");
    let http = http(&raw.url(), [("namespace", text("/team/a/"))]);
    let (token, id) = (secret("hvs.t"), Arc::from("request-1"));
    let manner = Manner {
        token: Some(&token),
        wrap_ttl: Some(Duration::from_secs(60)),
        id: Some(&id),
        ..Manner::default()
    };
    let call = Call::new(Method::POST, "secret/data/a b")
        .query("v", "1&2")
        .manner(manner);
    http.ask(call.body(secret("{}")))
        .await
        .map(drop)
        .expect("answered");
    let head = raw.seen().remove(0).to_ascii_lowercase();
    for line in [
        "post /v1/secret/data/a%20b?v=1%262 http/1.1",
        "x-vault-token: hvs.t",
        "x-vault-namespace: team/a",
        "x-vault-request: true",
        "x-vault-wrap-ttl: 60",
        "x-correlation-id: request-1",
        "content-type: application/json",
        concat!("user-agent: keyhaul/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    http.ask(health().global())
        .await
        .map(drop)
        .expect("answered");
    let head = raw.seen().remove(1).to_ascii_lowercase();
    for header in [
        "x-vault-namespace",
        "x-vault-token",
        "x-vault-wrap-ttl",
        "content-type",
    ] {
        assert!(!head.contains(header), "{header} in {head}");
    }
}

#[tokio::test]
async fn vaultrs_endpoints_run_over_the_wire() {
    use vaultrs::api::{EndpointResult, kv2, token};

    let server = dev();
    let http = http(server.address(), []);
    let token = secret(server.root_token());
    let ask = async |call: Result<Call<'static>>| {
        http.ask(call.expect("a call").manner(with_token(&token)))
            .await
    };
    let answer = ask(Call::endpoint(&token::requests::LookupTokenSelfRequest {})).await;
    let answer = answer.expect("looked up");
    let read: EndpointResult<serde_json::Value> = answer.json().expect("read");
    assert_eq!(
        read.data.expect("data")["policies"],
        serde_json::json!(["root"])
    );
    let endpoint = |path: &str| {
        let mut builder = kv2::requests::ReadSecretMetadataRequest::builder();
        Call::endpoint(
            &builder
                .mount("secret")
                .path(path)
                .build()
                .expect("endpoint"),
        )
    };
    ask(endpoint("web01/root")).await.map(drop).expect("there");
    let error = ask(endpoint("web01/none"))
        .await
        .map(drop)
        .expect_err("absent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let wrong = secret("hvs.wrong");
    let call = endpoint("web01/root")
        .expect("a call")
        .manner(with_token(&wrong));
    let error = http.ask(call).await.map(drop).expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_hundred_requests_share_one_connection_over_tls() {
    let server = tls_server();
    let proxy = Proxy::to(server.address());
    let address = format!("https://{}", proxy.address());
    let http = http(&address, [("ca-cert", text(server.ca_path().display()))]);
    let token = secret(server.root_token());
    let calls = (0..100).map(|_| http.ask(get("sys/mounts").manner(with_token(&token))));
    for answer in join_all(calls).await {
        answer.map(drop).expect("answered");
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_unix_socket_is_spoken_to_and_no_proxy_is_asked() {
    let server = Setup::default().unix_socket().start();
    let address = format!("unix://{}", server.socket().display());
    let environment = [("VAULT_PROXY_ADDR", "http://127.0.0.1:1")];
    let http = wire(&address, options([]), &environment);
    http.ask(health()).await.map(drop).expect("answered");
    let environment = Environment::of(&[("VAULT_ADDR", &address)]);
    let settings = Settings::new(None, &options([]), &environment).expect("settings");
    Http::new(settings)
        .ask(health())
        .await
        .map(drop)
        .expect("answered");
}

#[tokio::test]
async fn a_redirect_to_a_trusted_address_is_followed_with_method_token_and_body() {
    let server = dev();
    for status in [301, 302, 307, 308] {
        let location = format!("Location: {}/v1/secret/data/moved\r\n", server.address());
        let standby = Raw::answering(status, &location, "");
        let trusted = Value::Texts(vec![server.address().to_owned()]);
        let http = http(&standby.url(), [("trusted-addresses", trusted)]);
        let token = secret(server.root_token());
        let call = Call::new(Method::POST, "secret/data/moved").manner(with_token(&token));
        let value = format!(r#"{{"data":{{"value":"{status}"}}}}"#);
        http.ask(call.body(secret(&value)))
            .await
            .map(drop)
            .expect("followed");
        let stored = server.read("secret/data/moved").to_string();
        assert!(
            stored.contains(&format!(r#""value":"{status}""#)),
            "{stored}"
        );
    }
}

#[tokio::test]
async fn a_redirect_elsewhere_keeps_the_token_home() {
    let elsewhere = Raw::answering(200, "", "{}");
    let location = format!("Location: {}/v1/secret/x\r\n", elsewhere.url());
    let standby = Raw::answering(307, &location, "");
    let token = secret("hvs.hunter2");
    let call = || get("secret/x").manner(with_token(&token));

    let error = http(&standby.url(), [])
        .ask(call())
        .await
        .map(drop)
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&elsewhere.url()), "{error}");
    assert!(
        whole(&error).contains("trusted-addresses"),
        "{}",
        whole(&error)
    );
    assert!(elsewhere.seen().is_empty());
    assert!(
        standby.seen()[0].contains("hvs.hunter2"),
        "the token was sent home"
    );

    let trusted = Value::Texts(vec![elsewhere.url()]);
    let http = http(&standby.url(), [("trusted-addresses", trusted)]);
    http.ask(call()).await.map(drop).expect("followed");
    assert!(
        elsewhere.seen()[0].contains("hvs.hunter2"),
        "the control got it"
    );
}

#[tokio::test]
async fn what_looks_like_the_own_address_is_not() {
    for location in [
        "//evil.example/v1/x",
        "http://localhost@evil.example/v1/x",
        "https://127.0.0.1/v1/x",
        "http://127.0.0.1:1/v1/x",
        "ftp://127.0.0.1/",
        "data:,x",
        "",
    ] {
        let standby = Raw::answering(307, &format!("Location: {location}\r\n"), "");
        let error = http(&standby.url(), [])
            .ask(health())
            .await
            .map(drop)
            .expect_err(location);
        assert_eq!(
            error.kind(),
            ErrorKind::Unavailable,
            "{location}: {error:?}"
        );
        assert_eq!(standby.seen().len(), 1, "{location}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let circle = Raw::answering(307, "Location: /v1/sys/health\r\n", "");
    let error = http(&circle.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("a circle");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(circle.seen().len(), redirect::MOST);
}

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
async fn requests_that_read_are_repeated_only_where_the_environment_says_so() {
    let failing = || {
        Raw::new(|number, _, stream| {
            let status = if number < 2 { 500 } else { 200 };
            let _ = stream.write_all(&response(status, "", "{}"));
            false
        })
    };
    let raw = failing();
    let twice = [("VAULT_MAX_RETRIES", "2")];
    wire(&raw.url(), options([]), &twice)
        .ask(health())
        .await
        .map(drop)
        .expect("the third");
    assert_eq!(raw.seen().len(), 3);
    let raw = failing();
    http(&raw.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("the first");
    assert_eq!(raw.seen().len(), 1);
    let raw = failing();
    let write = Call::new(Method::POST, "x").body(secret("{}"));
    wire(&raw.url(), options([]), &twice)
        .ask(write)
        .await
        .map(drop)
        .expect_err("the first");
    assert_eq!(raw.seen().len(), 1);
}

#[test]
fn the_policy_wins_over_bao_and_bao_over_vault() {
    let settings = |given: Options, environment: &[(&str, &str)]| {
        Settings::new(None, &given, &Environment::of(environment)).expect("settings")
    };
    let all = [
        ("BAO_ADDR", "https://bao:1"),
        ("BAO_CLIENT_TIMEOUT", "5s"),
        ("BAO_NAMESPACE", "bao"),
        ("BAO_TLS_SERVER_NAME", "bao"),
        ("VAULT_ADDR", "https://vault:1"),
        ("VAULT_CLIENT_TIMEOUT", "6"),
        ("VAULT_NAMESPACE", "vault"),
        ("VAULT_TLS_SERVER_NAME", "vault"),
    ];
    let shown = |settings: &Settings| {
        format!(
            "{} {:?} {:?} {:?}",
            settings.address, settings.timeout, settings.namespace, settings.tls.server_name
        )
    };
    let of_bao = settings(options([]), &all);
    assert_eq!(
        shown(&of_bao),
        r#"https://bao:1 5s Some("bao") Some("bao")"#
    );
    let of_vault = settings(options([]), &all[4..]);
    assert_eq!(
        shown(&of_vault),
        r#"https://vault:1 6s Some("vault") Some("vault")"#
    );
    let mut hidden = all;
    for (_, value) in &mut hidden[..4] {
        *value = "";
    }
    let defaults = settings(options([]), &hidden);
    assert_eq!(shown(&defaults), "https://127.0.0.1:8200 60s None None");
    let policy = options([
        ("client-timeout", text("7s")),
        ("namespace", text("policy")),
        ("tls-server-name", text("")),
    ]);
    let of_policy = settings(policy, &all);
    assert_eq!(shown(&of_policy), r#"https://bao:1 7s Some("policy") None"#);
}

#[test]
fn half_a_client_certificate_is_refused() {
    let half = [("VAULT_CLIENT_CERT", "/etc/keyhaul/node.pem")];
    let error = Settings::new(None, &options([]), &Environment::of(&half)).expect_err("half");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("client-key"), "{error}");
}

#[tokio::test]
async fn nothing_is_read_before_the_first_request() {
    let start = Instant::now();
    let given = [
        ("ca-cert", text("/nowhere")),
        ("client-cert", text("/nowhere")),
        ("client-key", text("/nowhere")),
    ];
    let http = http("https://vault.invalid", given);
    assert!(start.elapsed() < Duration::from_millis(100));
    http.ask(health())
        .await
        .map(drop)
        .expect_err("now it is read");
}
