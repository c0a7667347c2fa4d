//! Who may ask for what: every endpoint, with every certificate that is not the right one.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyhaul_core::MemoryStore;
use keyhaul_remote::protocol::OPENAPI;
use keyhaul_servers::{Authority, Issued};
use serde_json::{Value, json};

use crate::ground::{Ground, Wire, read};

/// An endpoint: its method, its path, a body that it takes, and which of node `n`, manager and
/// operator it is for.
struct Endpoint {
    method: &'static str,
    path: &'static str,
    body: Option<Value>,
    roles: &'static [&'static str],
}

/// All of them, as the protocol's description has them and in an order that leaves the later ones
/// something to do.
fn endpoints() -> Vec<Endpoint> {
    let all: &[&str] = &["node/n", "manager/m", "operator/o"];
    let post = |path, roles, body| Endpoint {
        method: "POST",
        path,
        body: Some(body),
        roles,
    };
    let get = |path, roles| Endpoint {
        method: "GET",
        path,
        body: None,
        roles,
    };
    let secret = json!({"secret": "web01/root"});
    let made = json!({"secret": "web01/made", "alphabet": "hex", "length": 32});
    let grant = json!({"scope": "web01", "node": "n"});
    let begin = json!({"scope": "web01", "from": "n", "to": "n2"});
    let delete = json!({"secret": "web01/made", "force": true});
    vec![
        get("/v1/service", all),
        get("/v1/openapi.json", all),
        post("/v1/secrets/read", &["node/n"], read(&["web01/root"])),
        post("/v1/secrets/stat", all, json!({"items": [secret]})),
        post("/v1/secrets/generate", &["manager/m"], made),
        post("/v1/secrets/delete", &["manager/m"], delete),
        post(
            "/v1/secrets/restore",
            &["manager/m"],
            json!({"secret": "web01/made"}),
        ),
        get("/v1/secrets", &["manager/m"]),
        get("/v1/grants", &["manager/m"]),
        post("/v1/grants", &["manager/m"], grant.clone()),
        get("/v1/who-can?secret=web01/root", &["manager/m"]),
        get("/v1/what-can?node=n", &["manager/m"]),
        get("/v1/migrations", &["manager/m"]),
        post("/v1/migrations", &["manager/m"], begin),
        post(
            "/v1/migrations/abort",
            &["manager/m"],
            json!({"scope": "web01", "from": "n", "to": "n2"}),
        ),
        get("/v1/nodes", &["manager/m"]),
        get("/v1/audit", &["operator/o"]),
    ]
}

/// What changes so much that it is asked by those who may not, and not by who may.
fn forbidden() -> Vec<Endpoint> {
    let manager: &[&str] = &["manager/m"];
    let post = |path, roles, body| Endpoint {
        method: "POST",
        path,
        body: Some(body),
        roles,
    };
    vec![
        post(
            "/v1/grants/revoke",
            manager,
            json!({"scope": "web01", "node": "n"}),
        ),
        post(
            "/v1/migrations/commit",
            manager,
            json!({"scope": "web01", "from": "n", "to": "n2"}),
        ),
        post("/v1/nodes/quarantine", manager, json!({"node": "n"})),
        post("/v1/nodes/release", manager, json!({"node": "n"})),
        post(
            "/v1/secrets/write",
            &["operator/o"],
            json!({"secret": "web01/root", "key": "A", "enc": "A", "salt": "A", "value": "A"}),
        ),
    ]
}

/// None is missing from what is attacked here.
#[test]
fn the_endpoints_are_those_of_the_description() {
    let description: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let paths = description["paths"].as_object().expect("paths");
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods
                .keys()
                .map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let attacked: BTreeSet<String> = endpoints()
        .into_iter()
        .chain(forbidden())
        .map(|endpoint| {
            let path = endpoint.path.split('?').next().unwrap_or_default();
            format!("{} {path}", endpoint.method)
        })
        .collect();
    assert_eq!(attacked, described);
}

async fn ground() -> Ground {
    let ground = Ground::start(Arc::new(MemoryStore::new("memory"))).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    ground
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_for_its_roles_and_nobody_else() {
    let ground = ground().await;
    for who in ["node/n", "manager/m", "operator/o"] {
        let certificate = ground.who(who);
        for endpoint in endpoints() {
            let answer = ground
                .ask(
                    &certificate,
                    endpoint.method,
                    endpoint.path,
                    endpoint.body.as_ref(),
                )
                .await;
            let what = format!("{} {} as {who}: {answer:?}", endpoint.method, endpoint.path);
            if endpoint.roles.contains(&who) {
                assert_eq!(answer.status, 200, "{what}");
            } else {
                assert_eq!(answer.status, 403, "{what}");
                assert_eq!(answer.kind(), "PermissionDenied", "{what}");
            }
        }
        for endpoint in forbidden() {
            if endpoint.roles.contains(&who) {
                continue;
            }
            let answer = ground
                .ask(
                    &certificate,
                    endpoint.method,
                    endpoint.path,
                    endpoint.body.as_ref(),
                )
                .await;
            assert_eq!(answer.status, 403, "{} as {who}: {answer:?}", endpoint.path);
        }
    }
    assert!(ground.serves(&ground.who("node/n"), "web01/root").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_of_some_scopes_manages_no_others() {
    let ground = ground().await;
    ground.generate("tenant-a/root").await;
    ground.grant("tenant-a", "n").await;
    let tenant = ground.who("tenant/t");
    let own = ground.ask(&tenant, "GET", "/v1/grants?scope=tenant-a", None);
    let own = own.await;
    assert_eq!(own.json()["grants"][0]["scope"], "tenant-a");
    // What it cannot see is not there for it.
    for path in ["/v1/grants", "/v1/what-can?node=n"] {
        let answer = ground.ask(&tenant, "GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            text.contains("tenant-a") && !text.contains("web01"),
            "{path}: {text}"
        );
    }
    for (path, body) in [
        ("/v1/grants", json!({"scope": "web01", "node": "x"})),
        ("/v1/grants/revoke", json!({"scope": "web01", "node": "n"})),
        (
            "/v1/migrations",
            json!({"scope": "web01", "from": "n", "to": "x"}),
        ),
        (
            "/v1/secrets/generate",
            json!({"secret": "web01/new", "alphabet": "hex", "length": 32}),
        ),
        (
            "/v1/secrets/delete",
            json!({"secret": "web01/root", "force": true}),
        ),
        ("/v1/nodes/quarantine", json!({"node": "n"})),
        ("/v1/nodes/release", json!({"node": "n"})),
    ] {
        let answer = ground.ask(&tenant, "POST", path, Some(&body)).await;
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    for path in ["/v1/who-can?secret=web01/root", "/v1/secrets?prefix=web01"] {
        let answer = ground.ask(&tenant, "GET", path, None).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            answer.status == 403 || !text.contains("root"),
            "{path}: {answer:?}"
        );
    }
    assert!(ground.serves(&ground.who("node/n"), "web01/root").await);
}

/// Certificates that are nobody's, and what is wrong with each.
fn strangers(ground: &Ground) -> Vec<(&'static str, Option<Issued>)> {
    let node = "spiffe://site/node/n";
    let own = &ground.authority;
    let other = Authority::new("attacks");
    vec![
        ("none", None),
        ("expired", Some(own.expired_client_of(&[node]))),
        (
            "of another authority of the same name",
            Some(other.client_of(&[node])),
        ),
        ("a server's", Some(own.server_of(&[node]))),
        ("without a URI", Some(own.client("n"))),
        (
            "with two",
            Some(own.client_of(&[node, "spiffe://site/manager/m"])),
        ),
        ("with one URI twice", Some(own.client_of(&[node, node]))),
        (
            "of no role",
            Some(own.client_of(&["spiffe://site/nobody/n"])),
        ),
        (
            "of another site",
            Some(own.client_of(&["spiffe://other/node/n"])),
        ),
        (
            "of a longer path",
            Some(own.client_of(&["spiffe://site/node/n/x"])),
        ),
        (
            "of a shorter one",
            Some(own.client_of(&["spiffe://site/node/"])),
        ),
        (
            "with an escape",
            Some(own.client_of(&["spiffe://site/node/%6e"])),
        ),
        (
            "with a query",
            Some(own.client_of(&["spiffe://site/node/n?x"])),
        ),
        (
            "in capitals",
            Some(own.client_of(&["SPIFFE://site/NODE/n"])),
        ),
        (
            "that begins with a dash",
            Some(own.client_of(&["spiffe://site/node/-n"])),
        ),
        ("with dots", Some(own.client_of(&["spiffe://site/node/.."]))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_serves_a_stranger() {
    let ground = ground().await;
    let paths: Vec<Endpoint> = endpoints().into_iter().chain(forbidden()).collect();
    for (what, certificate) in strangers(&ground) {
        for endpoint in &paths {
            let answer = match ground.wire(certificate.as_ref()).await {
                // The handshake, or with TLS 1.3 the first read after it.
                Err(_) => continue,
                Ok(mut wire) => {
                    wire.ask(endpoint.method, endpoint.path, endpoint.body.as_ref())
                        .await
                }
            };
            if let Ok(answer) = answer {
                let refused = [401, 403].contains(&answer.status);
                assert!(refused, "{what}, {}: {answer:?}", endpoint.path);
                let told = String::from_utf8_lossy(&answer.body);
                assert!(!told.contains("web01"), "{what}: {told}");
            }
        }
    }
    // The control: all of it was there to be had.
    let node = ground.who("node/n");
    assert!(ground.serves(&node, "web01/root").await);
    let audit = ground
        .ask(&ground.who("operator/o"), "GET", "/v1/audit", None)
        .await;
    assert_eq!(audit.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_a_header_is_nobodys() {
    let ground = ground().await;
    let manager = ground.who("manager/m");
    let node = ground.who("node/n");
    let pem = manager.certificate_pem.replace('\n', "%0A");
    let uri = "spiffe://site/manager/m";
    let body = json!({"scope": "web02", "node": "n"}).to_string();
    for header in [
        format!("x-forwarded-client-cert: By=x;URI={uri};Cert=\"{pem}\"\r\n"),
        format!("x-ssl-client-cert: {pem}\r\n"),
        "ssl-client-s-dn: CN=m\r\nx-client-verify: SUCCESS\r\n".to_owned(),
        format!("client-cert: :{pem}:\r\n"),
        "forwarded: for=127.0.0.1;host=localhost\r\nx-forwarded-for: 127.0.0.1\r\n".to_owned(),
        "authorization: Bearer root\r\nx-vault-token: root\r\n".to_owned(),
        format!("spiffe-id: {uri}\r\n"),
        "x-http-method-override: GET\r\n".to_owned(),
    ] {
        let bytes = crate::ground::request("POST", "/v1/grants", &header, body.as_bytes());
        let mut wire: Wire = ground.wire(Some(&node)).await.expect("let in");
        wire.send(&bytes).await.expect("sent");
        let answer = wire.answer().await.expect("answered");
        assert_eq!(answer.status, 403, "{header}: {answer:?}");
    }
    let held = ground
        .ask(&manager, "GET", "/v1/what-can?node=n", None)
        .await;
    let scopes: Vec<Value> = held.json()["grants"]
        .as_array()
        .expect("grants")
        .iter()
        .map(|grant| grant["scope"].clone())
        .collect();
    assert_eq!(scopes, ["web01"]);
}
