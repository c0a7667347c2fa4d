//! Sockets, headers, connections, and what the environment says of them.

use std::io::Write;
use std::time::Instant;

use futures_util::future::join_all;
use keyhaul_core::ErrorKind;
use keyhaul_servers::{Mode, Proxy, Setup, eventually};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_first_request_that_waits_holds_the_others_up_for_a_second_at_most() {
    let server = tls_server();
    let proxy = Proxy::to(server.address());
    let address = format!("https://{}", proxy.address());
    let http = http(&address, [("ca-cert", text(server.ca_path().display()))]);
    let http = Arc::new(http);
    proxy.set(Mode::Stall);
    let ask = || {
        let http = Arc::clone(&http);
        tokio::spawn(async move { http.ask(health()).await.map(drop) })
    };
    let start = Instant::now();
    let both = [ask(), ask()];
    let two = || proxy.connections() == 2;
    eventually("the second one goes as well", Duration::from_secs(10), two);
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    proxy.set(Mode::Pass);
    for asked in both {
        asked.await.expect("no panic").expect("answered");
    }
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
fn a_policys_authority_replaces_all_of_the_environments_and_its_paths_are_absolute() {
    let environment = Environment::of(&[
        ("VAULT_CACERT", "relative/ca.pem"),
        ("VAULT_CAPATH", "/etc/vault/ca"),
    ]);
    let tls = |given: Options| Settings::new(None, &given, &environment).map(|found| found.tls);
    let of_environment = tls(options([])).expect("settings");
    assert_eq!(of_environment.ca_cert, Some("relative/ca.pem".into()));
    assert_eq!(of_environment.ca_path, Some("/etc/vault/ca".into()));
    let of_policy = tls(options([("ca-cert", text("/etc/ca.pem"))])).expect("settings");
    assert_eq!(
        (of_policy.ca_cert, of_policy.ca_path),
        (Some("/etc/ca.pem".into()), None)
    );
    let of_system = tls(options([("ca-cert", text(""))])).expect("settings");
    assert_eq!((of_system.ca_cert, of_system.ca_path), (None, None));
    for name in ["ca-cert", "ca-path", "client-cert", "client-key"] {
        let error = tls(options([(name, text("relative"))])).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(&format!("`{name}`")), "{error}");
        assert!(error.context().place.is_some());
    }
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
