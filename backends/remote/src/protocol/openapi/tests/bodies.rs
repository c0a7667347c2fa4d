//! Each body is tried as it travels, with everything that it can hold: its keys, the kinds of their
//! values, which of them are needed, and the words of enumerations must be those of the document.

use std::collections::BTreeSet;

use keyhaul_core::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::super::*;
use super::json_schema::check;
use super::schema;

const TIME: &str = "2026-11-22T06:00:00Z";
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const SIXTEEN: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// Holds the schema `name` to `T`, of which `full` has every key.
fn holds<T: Serialize + DeserializeOwned>(name: &str, full: Value) {
    let taken: T = serde_json::from_value(full.clone())
        .unwrap_or_else(|error| panic!("{name}: the type does not take {full}: {error}"));
    let back = serde_json::to_value(&taken).expect("JSON");
    assert_eq!(back, full, "{name}: what was taken is what is given");
    let schema = schema(name);
    check(&schema, &full, name).expect("the document takes what the type gives");

    let object = full.as_object().expect("an object");
    let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    let known = schema["properties"]
        .as_object()
        .map(keys)
        .unwrap_or_default();
    assert_eq!(known, keys(object), "{name}: keys");

    let without = |key: &str| {
        let mut less = object.clone();
        less.remove(key);
        Value::Object(less)
    };
    for key in object.keys() {
        let type_needs = serde_json::from_value::<T>(without(key)).is_err();
        let document_needs = check(&schema, &without(key), name).is_err();
        assert_eq!(
            document_needs, type_needs,
            "{name}: whether {key} is needed"
        );
    }
    let mut more = object.clone();
    more.insert("stranger".into(), json!(1));
    let more = Value::Object(more);
    let type_takes = serde_json::from_value::<T>(more.clone()).is_ok();
    let document_takes = check(&schema, &more, name).is_ok();
    // A request that says more may mean more; an answer of a newer service is read all the same.
    let is_request = name.ends_with("Request") || name == "ReadItem";
    assert_eq!(type_takes, !is_request, "{name}: unknown keys in the type");
    assert_eq!(
        document_takes, type_takes,
        "{name}: unknown keys in the document"
    );
}

fn metadata() -> Value {
    let lease = json!({"id": "db/creds/1", "seconds": 60, "renewable": true});
    json!({"version": "3", "created": TIME, "expires": TIME, "labels": {"a": "b"}, "lease": lease})
}

fn problem() -> Value {
    json!({"type": "https://example.com/#NotFound", "title": "not found", "status": 404,
        "detail": "no such secret", "kind": "NotFound", "advice": "look", "retry_after_ms": 5,
        "request": "r-1"})
}

fn item() -> Value {
    json!({"secret": "web01/root", "version": "3", "field": "*", "expired": true})
}

fn grant() -> Value {
    json!({"scope": "web01", "node": "y", "names": ["root*"], "expires": TIME, "epoch": 7,
        "created": TIME, "by": "spiffe://site/manager/m", "migration": "t-1"})
}

fn ticket() -> Value {
    json!({"id": "t-1", "scope": "web01", "from": "y", "to": "z", "state": "open",
        "fetched": false, "created": TIME, "expires": TIME, "by": "spiffe://site/manager/m"})
}

fn fetch() -> Value {
    json!({"secret": "web01/root", "version": "3", "first": TIME, "last": TIME, "count": 2})
}

fn node() -> Value {
    json!({"node": "y", "quarantined": TIME, "grants": 1, "last_fetch": TIME})
}

fn sealed() -> Value {
    json!({"value": SIXTEEN, "metadata": metadata()})
}

#[test]
fn every_body_is_as_the_document_has_it() {
    holds::<ReadRequest>(
        "ReadRequest",
        json!({"key": KEY, "nonce": SIXTEEN, "items": [item()]}),
    );
    holds::<ReadItem>("ReadItem", item());
    holds::<SealedValue>("SealedValue", sealed());
    let outcomes = json!([sealed(), {"problem": problem()}]);
    holds::<ReadAnswer>(
        "ReadAnswer",
        json!({"enc": KEY, "salt": SIXTEEN, "items": outcomes}),
    );
    holds::<StatRequest>("StatRequest", json!({"items": [item()]}));
    holds::<Stat>("Stat", json!({"metadata": metadata()}));
    let outcomes = json!([{"metadata": metadata()}, {"problem": problem()}]);
    holds::<StatAnswer>("StatAnswer", json!({"items": outcomes}));
    holds::<MetadataBody>("Metadata", metadata());
    holds::<LeaseBody>("Lease", metadata()["lease"].clone());
    holds::<WriteRequest>(
        "WriteRequest",
        json!({"secret": "web01/root", "key": KEY, "enc": KEY, "salt": SIXTEEN, "value": SIXTEEN,
            "mode": "update", "expect": "3", "field": "key", "labels": {"a": "b"},
            "expires": TIME}),
    );
    holds::<GenerateRequest>(
        "GenerateRequest",
        json!({"secret": "web01/root", "alphabet": "hex", "length": 32, "mode": "update",
            "expect": "3", "field": "key", "labels": {"a": "b"}, "expires": TIME, "force": true}),
    );
    let delete = json!({"secret": "web01/root", "version": "3", "force": true});
    holds::<DeleteRequest>("DeleteRequest", delete);
    holds::<RestoreRequest>("RestoreRequest", json!({"secret": "web01/root"}));
    holds::<DeleteAnswer>("DeleteAnswer", json!({"restorable_until": TIME}));
    let page = json!({"secrets": ["web01/root"], "folders": ["web01"], "next": "web01/root"});
    holds::<ListAnswer>("ListAnswer", page);
    let terms = json!({"scope": "web01", "node": "y", "names": ["root*"], "expires": TIME,
        "if_epoch": 7});
    holds::<GrantRequest>("GrantRequest", terms);
    holds::<Grant>("Grant", grant());
    let revoke = json!({"scope": "web01", "node": "y", "if_epoch": 7});
    holds::<RevokeRequest>("RevokeRequest", revoke);
    holds::<RevokeAnswer>("RevokeAnswer", json!({"revoked": true, "epoch": 8}));
    holds::<GrantsAnswer>("GrantsAnswer", json!({"grants": [grant()], "next": "x"}));
    let begin = json!({"scope": "web01", "from": "y", "to": "z", "seconds": 60});
    holds::<BeginRequest>("BeginRequest", begin);
    holds::<EndRequest>(
        "EndRequest",
        json!({"id": "t-1", "scope": "web01", "from": "y", "to": "z"}),
    );
    holds::<Ticket>("Ticket", ticket());
    holds::<TicketsAnswer>("TicketsAnswer", json!({"tickets": [ticket()], "next": "x"}));
    holds::<NodeRequest>("NodeRequest", json!({"node": "y"}));
    holds::<QuarantineAnswer>(
        "QuarantineAnswer",
        json!({"node": "y", "known": true, "revoked": [grant()], "fetched": [fetch()],
            "tickets": [ticket()]}),
    );
    holds::<Fetch>("Fetch", fetch());
    holds::<Node>("Node", node());
    holds::<NodesAnswer>("NodesAnswer", json!({"nodes": [node()], "next": "y"}));
    holds::<ServiceAnswer>(
        "ServiceAnswer",
        json!({"version": "0.1.0", "name": "y", "uri": "spiffe://site/node/y", "role": "node",
            "scopes": ["prod-*"], "can": ["read"], "max_value": 1_048_576, "max_batch": 256,
            "key": KEY}),
    );
    let head = json!({"sequence": 9, "hash": "00".repeat(32)});
    holds::<AuditHead>("AuditHead", head.clone());
    let records = json!({"records": [{"sequence": 9}], "next": 9, "head": head});
    holds::<AuditAnswer>("AuditAnswer", records);
    holds::<Problem>("Problem", problem());
}

/// The controls of the test above: what is wrong is seen.
#[test]
fn what_the_document_does_not_have_is_refused() {
    let wrong = |name: &str, value: Value| check(&schema(name), &value, name).expect_err(name);
    wrong("DeleteRequest", json!({"secret": 1}));
    wrong("DeleteRequest", json!({}));
    wrong(
        "DeleteRequest",
        json!({"secret": "web01/root", "forced": true}),
    );
    wrong("Ticket", {
        let mut ticket = ticket();
        ticket["state"] = json!("gone");
        ticket
    });
    wrong(
        "StatAnswer",
        json!({"items": [{"metadata": {}, "problem": problem()}]}),
    );
    wrong(
        "GenerateRequest",
        json!({"secret": "a/b", "alphabet": "hex", "length": 0}),
    );
}

fn words(name: &str) -> Vec<Value> {
    schema(name)["enum"].as_array().expect("words").clone()
}

/// Holds an enumeration's words to those of the document. `all` is exhaustive by `ordinal`, which
/// does not compile without a variant.
fn spelled<T: Serialize + Copy>(name: &str, all: &[T], ordinal: fn(T) -> usize) {
    let numbers: Vec<usize> = all.iter().map(|word| ordinal(*word)).collect();
    assert_eq!(numbers, (0..all.len()).collect::<Vec<_>>());
    let ours: Vec<Value> = all.iter().map(|word| json!(word)).collect();
    assert_eq!(words(name), ours, "{name}");
}

#[test]
fn enumerations_have_the_documents_words() {
    let modes = [Mode::Create, Mode::Overwrite, Mode::Update];
    spelled("Mode", &modes, |mode| match mode {
        Mode::Create => 0,
        Mode::Overwrite => 1,
        Mode::Update => 2,
    });
    assert_eq!(schema("Mode")["default"], json!(Mode::default()));
    let roles = [Role::Manager, Role::Node, Role::Operator];
    spelled("Role", &roles, |role| match role {
        Role::Manager => 0,
        Role::Node => 1,
        Role::Operator => 2,
    });
    assert!(roles.iter().all(|role| json!(role) == role.name()));
    use TicketState::{Aborted, Committed, Expired, Open, Undecided};
    let states = [Open, Undecided, Committed, Aborted, Expired];
    spelled("TicketState", &states, |state| match state {
        Open => 0,
        Undecided => 1,
        Committed => 2,
        Aborted => 3,
        Expired => 4,
        // No server of this version says it.
        TicketState::Unknown => 5,
    });
    let newer: TicketState = serde_json::from_value(json!("paused")).expect("a newer word");
    assert_eq!(newer, TicketState::Unknown);
    assert!(states.iter().all(|state| json!(state) == state.name()));
    use AlphabetBody::{Alphanumeric, Bytes, Hex};
    spelled(
        "Alphabet",
        &[Alphanumeric, Bytes, Hex],
        |alphabet| match alphabet {
            Alphanumeric => 0,
            Bytes => 1,
            Hex => 2,
        },
    );
}

#[test]
fn every_kind_of_error_has_its_status_in_the_document() {
    let problem = schema("Problem");
    let names: Vec<Value> = ErrorKind::ALL
        .iter()
        .map(|kind| json!(kind.name()))
        .collect();
    assert_eq!(problem["properties"]["kind"]["enum"], json!(names));
    let statuses = problem["x-statuses"].as_object().expect("statuses");
    assert_eq!(statuses.len(), names.len());
    let text = problem["properties"]["kind"]["description"]
        .as_str()
        .expect("words");
    for kind in ErrorKind::ALL {
        assert_eq!(statuses[kind.name()], json!(kind.http_status()), "{kind}");
        assert!(
            text.contains(&format!("{}: ", kind.name())),
            "{kind} has no words"
        );
    }
}
