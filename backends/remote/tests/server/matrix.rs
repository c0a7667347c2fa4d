//! Every operation with every certificate.

use http::{Method, StatusCode};
use keyhaul_remote::protocol::seal::Recipient;
use keyhaul_remote::protocol::{ReadAnswer, path};
use serde_json::json;

use super::site::{Authority, Issued, Peer, Site, read_request};

const MANAGER: &str = "manager";
const NODE: &str = "node";
const OPERATOR: &str = "operator";

/// What is asked, and which roles the design lets ask it.
fn endpoints(write: &serde_json::Value) -> Vec<(Method, String, String, Vec<&'static str>)> {
    let recipient = Recipient::new().expect("a key");
    let read = serde_json::to_value(read_request(&recipient, &["web01/root"])).expect("JSON");
    let all = vec![MANAGER, NODE, OPERATOR];
    let grant = json!({ "scope": "web02", "node": "z" });
    let moved = json!({ "scope": "web01", "from": "y", "to": "x" });
    let post = |path: &str, body: &serde_json::Value, roles: &[&'static str]| {
        (
            Method::POST,
            path.to_owned(),
            body.to_string(),
            roles.to_vec(),
        )
    };
    let get = |path: &str, query: &str, roles: &[&'static str]| {
        (
            Method::GET,
            format!("{path}{query}"),
            String::new(),
            roles.to_vec(),
        )
    };
    vec![
        get(path::SERVICE, "", &all),
        get(path::OPENAPI, "", &all),
        post(path::READ, &read, &[NODE]),
        post(
            path::STAT,
            &json!({ "items": [{ "secret": "web01/root" }] }),
            &all,
        ),
        post(path::WRITE, write, &[OPERATOR]),
        post(
            path::GENERATE,
            &json!({ "secret": "web01/new", "alphabet": "hex", "length": 32 }),
            &[MANAGER],
        ),
        post(
            path::DELETE,
            &json!({ "secret": "web01/other", "force": true }),
            &[MANAGER],
        ),
        post(
            path::RESTORE,
            &json!({ "secret": "web01/other" }),
            &[MANAGER],
        ),
        get(
            path::SECRETS,
            "?prefix=web01&shallow=true&limit=5",
            &[MANAGER],
        ),
        get(path::GRANTS, "?scope=web01&node=y", &[MANAGER]),
        post(path::GRANTS, &grant, &[MANAGER]),
        post(path::REVOKE, &grant, &[MANAGER]),
        get(path::WHO_CAN, "?secret=web01/root", &[MANAGER]),
        get(path::WHAT_CAN, "?node=y", &[MANAGER]),
        get(path::MIGRATIONS, "?state=open", &[MANAGER]),
        post(path::MIGRATIONS, &moved, &[MANAGER]),
        post(path::ABORT, &moved, &[MANAGER]),
        post(path::COMMIT, &moved, &[MANAGER]),
        get(path::NODES, "", &[MANAGER]),
        post(path::QUARANTINE, &json!({ "node": "w" }), &[MANAGER]),
        post(path::RELEASE, &json!({ "node": "w" }), &[MANAGER]),
        get(path::AUDIT, "?after=0&limit=10", &[OPERATOR]),
    ]
}

async fn send(
    peer: &Peer,
    (method, path, body): (&Method, &str, &str),
) -> Result<super::site::Answer, reqwest::Error> {
    let json = [("content-type", "application/json")];
    match *method {
        Method::GET => peer.send(Method::GET, path, &[], None).await,
        _ => {
            peer.send(method.clone(), path, &json, Some(body.to_owned()))
                .await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_can_ask_what_is_its_own_and_nothing_else() {
    let site = Site::start().await;
    site.put("web01/root", b"tr0ub4dor and 3").await;
    site.put("web01/other", b"battery").await;
    site.grant("web01", "y").await;
    let operator = site.operator();
    let service: keyhaul_remote::protocol::ServiceAnswer = operator.get(path::SERVICE).await.json();
    let write = operator.sealed(&service.key, "web01/written", b"staple");
    let endpoints = endpoints(&write);
    for (role, peer) in [
        (NODE, site.node("y")),
        (OPERATOR, operator),
        (MANAGER, site.manager()),
    ] {
        for (method, path, body, roles) in &endpoints {
            let asked = site.asked();
            let answer = send(&peer, (method, path, body)).await.expect("an answer");
            let what = format!("{role} {method} {path}: {}", answer.text());
            assert!(answer.headers.contains_key("x-request-id"), "{what}");
            if roles.contains(&role) {
                // Committed migrations cannot be aborted, and the other way round; all else works.
                let ended =
                    path == path::COMMIT && answer.status == StatusCode::PRECONDITION_FAILED;
                assert!(ended || answer.status == StatusCode::OK, "{what}");
            } else {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
                assert_eq!(answer.kind(), "PermissionDenied");
                assert_eq!(site.asked(), asked, "{what}: the store was asked");
            }
            assert!(!answer.text().contains("tr0ub4dor and 3"), "{what}");
        }
    }
    let audit = site.audit();
    assert!(audit.contains("the role may not ask that"));
    assert!(!audit.contains("tr0ub4dor and 3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_certificate_nothing_answers() {
    let site = Site::start().await;
    site.put("web01/root", b"tr0ub4dor and 3").await;
    site.grant("web01", "y").await;
    let uri = "spiffe://site/node/y";
    let revoked = site.authority.client(4711, &[uri]);
    super::site::write(
        site.folder.path(),
        "ca.crl",
        &site.authority.crl(&[&revoked]),
    );
    site.reload().await.expect("reloaded");
    let strangers: [(&str, Option<Issued>); 4] = [
        ("none", None),
        ("expired", Some(site.authority.expired(4712, &[uri]))),
        (
            "another authority's",
            Some(Authority::new().client(4713, &[uri])),
        ),
        ("revoked", Some(revoked)),
    ];
    let asked = site.asked();
    let write = json!({});
    for (what, issued) in &strangers {
        let peer = Peer::new(&site, issued.as_ref(), &[b"h2", b"http/1.1"]);
        for (method, path, body, _) in endpoints(&write) {
            let answer = send(&peer, (&method, &path, &body)).await;
            assert!(answer.is_err(), "{what} {path}: {answer:?}");
        }
    }
    let nobodies = [
        ("no URI", site.authority.client(5000, &[])),
        (
            "two URIs",
            site.authority
                .client(5001, &[uri, "spiffe://site/manager/all"]),
        ),
        (
            "unknown URI",
            site.authority.client(5002, &["spiffe://site/nobody"]),
        ),
        (
            "another's form",
            site.authority.client(5003, &["spiffe://site/node/y/z"]),
        ),
    ];
    for (what, issued) in &nobodies {
        for (method, path, body, _) in endpoints(&write) {
            let peer = site.peer(issued);
            let answer = send(&peer, (&method, &path, &body))
                .await
                .expect("an answer");
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what} {path}");
            assert_eq!(answer.kind(), "Unauthenticated");
        }
    }
    assert_eq!(site.asked(), asked, "the store was asked");
    assert!(site.audit().contains("more than one URI"));

    // The control: the same with a good one.
    let read = site.node("y").read(&["web01/root"]).await;
    assert_eq!(read[0].as_deref().ok(), Some(&b"tr0ub4dor and 3"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_and_an_operator_of_a_tenant_reach_no_other() {
    let site = Site::start().await;
    for secret in ["acme.web01/root", "umbra.web01/root"] {
        site.put(secret, b"tr0ub4dor and 3").await;
    }
    site.grant("acme.web01", "y").await;
    site.grant("umbra.web01", "y").await;
    let manager = site.peer(&site.authority.client(6000, &["spiffe://site/manager/acme"]));
    let operator = site.peer(
        &site
            .authority
            .client(6001, &["spiffe://site/operator/acme"]),
    );

    let own = json!({ "scope": "acme.web02", "node": "y" });
    assert_eq!(
        manager.post(path::GRANTS, &own).await.status,
        StatusCode::OK
    );
    let asked = site.asked();
    for (path, body) in [
        (path::GRANTS, json!({ "scope": "umbra.web02", "node": "y" })),
        (path::REVOKE, json!({ "scope": "umbra.web01", "node": "y" })),
        (
            path::DELETE,
            json!({ "secret": "umbra.web01/root", "force": true }),
        ),
        (
            path::GENERATE,
            json!({ "secret": "umbra.x/y", "alphabet": "hex", "length": 32 }),
        ),
        (
            path::MIGRATIONS,
            json!({ "scope": "umbra.web01", "from": "y", "to": "z" }),
        ),
        (path::QUARANTINE, json!({ "node": "y" })),
        (path::RELEASE, json!({ "node": "y" })),
    ] {
        let answer = manager.post(path, &body).await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{path}: {}",
            answer.text()
        );
    }
    for query in [
        "/v1/who-can?secret=umbra.web01/root",
        "/v1/grants?scope=umbra.web01",
        "/v1/secrets?prefix=umbra.web01",
        // Nor is there a page of all: where it ends would name others'.
        "/v1/secrets",
        "/v1/secrets?shallow=true&limit=1",
    ] {
        let answer = manager.get(query).await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{query}: {}",
            answer.text()
        );
    }
    let refused = operator.write("umbra.web01/root", b"x").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(site.asked(), asked, "the store was asked");

    // What is listed of all holds nothing of others.
    for query in [
        "/v1/grants",
        "/v1/secrets?prefix=acme.web01",
        "/v1/what-can?node=y",
        "/v1/nodes",
        "/v1/migrations",
    ] {
        let answer = manager.get(query).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text());
        assert!(
            !answer.text().contains("umbra"),
            "{query}: {}",
            answer.text()
        );
    }
    // Page by page, neither entries nor where the next one begins.
    site.grant("zebra.web01", "host-of-zebra").await;
    let other = json!({ "scope": "umbra.web01", "from": "y", "to": "host-of-umbra" });
    for (from, body) in [
        (site.manager(), other),
        (
            site.peer(&site.authority.client(6000, &["spiffe://site/manager/acme"])),
            json!({ "scope": "acme.web01", "from": "y", "to": "z" }),
        ),
    ] {
        let answer = from.post(path::MIGRATIONS, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    for (query, entries) in [("/v1/grants", 3), ("/v1/nodes", 2), ("/v1/migrations", 1)] {
        let (mut pages, mut after) = (0, String::new());
        loop {
            let answer = manager.get(&format!("{query}?limit=1{after}")).await;
            let text = answer.text();
            assert!(!text.contains("umbra") && !text.contains("zebra"), "{text}");
            pages += 1;
            let next = answer.json::<serde_json::Value>()["next"].clone();
            match next.as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(pages, entries, "{query}");
    }
    let listed = manager.get("/v1/secrets?prefix=acme.web01").await.text();
    assert!(listed.contains("acme.web01/root"), "{listed}");
    let records = operator.get("/v1/audit").await.text();
    assert!(
        records.contains("acme.web01") && !records.contains("umbra"),
        "{records}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_role_but_the_node_gets_an_answer_with_values() {
    let site = Site::start().await;
    site.put("web01/root", b"tr0ub4dor and 3").await;
    site.grant("web01", "y").await;
    let recipient = Recipient::new().expect("a key");
    let request = read_request(&recipient, &["web01/root"]);
    for peer in [site.manager(), site.operator()] {
        let answer = peer.post(path::READ, &request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let peer = site.node("y");
    let answer: ReadAnswer = peer.post(path::READ, &request).await.json();
    let values = peer.open(&recipient, &request, answer);
    assert_eq!(values[0].as_deref().ok(), Some(&b"tr0ub4dor and 3"[..]));
}
