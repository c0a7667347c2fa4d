//! Programs behind a fence: they reach what the policy names, and nothing else.

mod support;

use std::net::TcpListener;
use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::registry::Value;
use keyhaul_core::{Error, ErrorKind, GetOptions, SecretPath, SecretStore};
use support::Place;

/// Answers each get with what came of its path's command.
const TRIES: &str = r#"#!/usr/bin/env python3
import json, os, socket, sys
def attempt(words):
    what, _, where = words.partition("/")
    where = "/" + where
    if what == "read": return open(where).read()
    if what == "list": return " ".join(sorted(os.listdir(where)))
    if what == "write": open(where, "a").write("x"); return "written"
    if what == "signal": os.kill(os.getppid(), 0); return "sent"
    if what == "tcp": socket.create_connection(("127.0.0.1", int(where[1:]))); return "connected"
sys.stdin.readline()
print(json.dumps({"keyhaul": 1, "name": "tries", "version": "1", "capabilities": ["read"]}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try: value = attempt(request["path"])
    except OSError as error: value = type(error).__name__
    print(json.dumps({"id": request["id"], "value": value}), flush=True)
"#;

async fn tries(store: &Arc<dyn SecretStore>, what: &str) -> Result<String, Error> {
    let path = SecretPath::new(what).expect("a path");
    let secret = store.get(&path, &GetOptions::default()).await?;
    Ok(String::from_utf8(secret.value.expose().to_vec()).expect("text"))
}

fn fence(place: &Place, read: &[&str], write: &[&str], tcp: bool) -> Value {
    let texts =
        |paths: &[&str]| Value::Texts(paths.iter().map(|path| (*path).to_owned()).collect());
    Value::Table(place.options([
        ("read", texts(read)),
        ("write", texts(write)),
        ("tcp", Value::Boolean(tcp)),
    ]))
}

#[tokio::test]
async fn a_confined_program_reaches_what_the_policy_names_and_nothing_else() {
    let place = Place::new();
    let program = place.program("tries", TRIES);
    let (shown, kept) = (place.folder("shown"), place.folder("kept"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    for folder in [&shown, &kept] {
        std::fs::write(format!("{folder}/file"), "hunter2").expect("written");
    }
    let reads = |folder: &str| format!("read{folder}/file");
    let writes = |folder: &str| format!("write{folder}/file");
    let connects = format!("tcp/{port}");
    let free = place.store(&program, &[]);
    let confined = |read: &[&str], write: &[&str], tcp| {
        place.store_with(&program, [("confine", fence(&place, read, write, tcp))])
    };
    let nothing = confined(&[], &[], false);
    let shows = confined(&[&shown], &[], true);
    let keeps = confined(&[], &[&kept], false);
    let denied = "PermissionError";
    for (what, expected) in [
        // The control, without a fence, stands first.
        (reads(&shown), ["hunter2", denied, "hunter2", denied]),
        (reads(&kept), ["hunter2", denied, denied, "hunter2"]),
        (writes(&shown), ["written", denied, denied, denied]),
        (writes(&kept), ["written", denied, denied, "written"]),
        (connects, ["connected", denied, "connected", denied]),
        ("signal/x".to_owned(), ["sent", denied, denied, denied]),
        ("read/dev/null".to_owned(), [""; 4]),
    ] {
        for (store, expected) in [&free, &nothing, &shows, &keeps].into_iter().zip(expected) {
            let found = tries(store, &what).await.expect(&what);
            // What was written before is read along.
            assert_eq!(found.trim_end_matches('x'), expected, "{what}");
        }
    }
    let etc = tries(&nothing, "list/etc").await.expect("answered");
    assert_eq!(etc, denied, "keyhaul's own keys are there");
}

#[tokio::test]
async fn what_is_to_be_reached_and_is_not_there_is_told() {
    let place = Place::new();
    let program = place.program("tries", TRIES);
    let absent = place.path().join("absent");
    let absent = absent.to_str().expect("text");
    let confine = fence(&place, &[], &[absent], false);
    let store = place.store_with(&program, [("confine", confine)]);
    let error = tries(&store, "read/dev/null").await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.message().contains(absent), "{error:?}");
    assert_eq!(
        error.context().place.as_deref(),
        Some("keyhaul.toml:confine")
    );
}

#[tokio::test]
async fn the_shell_example_keeps_the_contract_behind_a_fence() {
    let place = Place::new();
    let program = place.install("shell/folder.sh");
    let folder = place.folder("secrets");
    let arguments = Value::Texts(vec![folder.clone()]);
    let confine = fence(&place, &[], &[&folder], false);
    let store = place.store_with(&program, [("args", arguments), ("confine", confine)]);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 20, "{trials} trials");
}

#[tokio::test]
async fn the_python_example_keeps_the_contract_behind_a_fence() {
    let place = Place::new();
    let program = place.install("python/database.py");
    let folder = place.folder("data");
    let arguments = Value::Texts(vec![format!("{folder}/secrets.db")]);
    let confine = fence(&place, &[], &[&folder], false);
    let store = place.store_with(&program, [("args", arguments), ("confine", confine)]);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 35, "{trials} trials");
}
