//! Holds the document to the types that both ends are made of.
//!
//! Each body is tried as it travels, with everything that it can hold: its keys, the kinds of their
//! values, which of them are needed, and the words of enumerations must be those of the document.

use std::collections::BTreeSet;

use base64ct::{Base64, Encoding as _};
use keyhaul_core::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::*;
use super::OPENAPI;

const TIME: &str = "2026-11-22T06:00:00Z";
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const SIXTEEN: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

fn schema(name: &str) -> Value {
    let found = document()["components"]["schemas"][name].clone();
    assert!(found.is_object(), "the document has no schema {name}");
    found
}

/// What a schema says of a value, as far as this document uses JSON Schema.
fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("{at}: {what}: {value}"));
    if let Some(name) = schema["$ref"].as_str() {
        let name = name
            .strip_prefix("#/components/schemas/")
            .expect("a schema's name");
        check(&self::schema(name), value, at)?;
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let fit = options
            .iter()
            .filter(|option| check(option, value, at).is_ok());
        if fit.count() != 1 {
            return refuse("fits not exactly one of several");
        }
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some(other) => panic!("{at}: a type that the tests do not know: {other}"),
    };
    if !fits {
        return refuse("is of another type");
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return refuse("is none of the words");
    }
    let number = |name: &str| schema[name].as_u64();
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if number("minLength").is_some_and(|least| length < least)
            || number("maxLength").is_some_and(|most| length > most)
        {
            return refuse("is too short or too long");
        }
    }
    if let Some(found) = value.as_u64()
        && (number("minimum").is_some_and(|least| found < least)
            || number("maximum").is_some_and(|most| found > most))
    {
        return refuse("is too small or too great");
    }
    if let Some(items) = value.as_array() {
        if number("maxItems").is_some_and(|most| items.len() as u64 > most) {
            return refuse("has too many items");
        }
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], item, &format!("{at}[{index}]"))?;
        }
    }
    if let Some(object) = value.as_object() {
        for (key, value) in object {
            let at = format!("{at}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => return refuse(&format!("{key} is unknown")),
                (Value::Null, rest) => check(rest, value, &at)?,
                (known, _) => check(known, value, &at)?,
            }
        }
        for needed in schema["required"].as_array().into_iter().flatten() {
            let needed = needed.as_str().expect("a key");
            if !object.contains_key(needed) {
                return refuse(&format!("{needed} is missing"));
            }
        }
    }
    Ok(())
}

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

#[test]
fn every_path_is_there_with_its_methods_and_bodies() {
    // The paths as the constants have them; what they take and answer as their comments have it.
    let expected = [
        ("get", path::SERVICE, "", "ServiceAnswer"),
        ("get", path::OPENAPI, "", ""),
        ("post", path::READ, "ReadRequest", "ReadAnswer"),
        ("post", path::STAT, "StatRequest", "StatAnswer"),
        ("post", path::WRITE, "WriteRequest", "Stat"),
        ("post", path::GENERATE, "GenerateRequest", "Stat"),
        ("post", path::DELETE, "DeleteRequest", "DeleteAnswer"),
        ("post", path::RESTORE, "RestoreRequest", "Stat"),
        ("get", path::SECRETS, "", "ListAnswer"),
        ("get", path::GRANTS, "", "GrantsAnswer"),
        ("post", path::GRANTS, "GrantRequest", "Grant"),
        ("post", path::REVOKE, "RevokeRequest", "RevokeAnswer"),
        ("get", path::WHO_CAN, "", "GrantsAnswer"),
        ("get", path::WHAT_CAN, "", "GrantsAnswer"),
        ("get", path::MIGRATIONS, "", "TicketsAnswer"),
        ("post", path::MIGRATIONS, "BeginRequest", "Ticket"),
        ("post", path::COMMIT, "EndRequest", "Ticket"),
        ("post", path::ABORT, "EndRequest", "Ticket"),
        ("get", path::NODES, "", "NodesAnswer"),
        ("post", path::QUARANTINE, "NodeRequest", "QuarantineAnswer"),
        ("post", path::RELEASE, "NodeRequest", "Node"),
        ("get", path::AUDIT, "", "AuditAnswer"),
    ];
    let document = document();
    let mut found = BTreeSet::new();
    for (at, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            found.insert((method.clone(), at.clone()));
        }
    }
    let paths = expected
        .iter()
        .map(|(method, at, ..)| ((*method).to_owned(), (*at).to_owned()));
    assert_eq!(found, paths.collect());
    for (method, at, takes, answers) in expected {
        let operation = &document["paths"][at][method];
        let name = |content: &Value| {
            let reference = content["application/json"]["schema"]["$ref"].as_str();
            let name = reference.and_then(|name| name.rsplit('/').next());
            name.unwrap_or_default().to_owned()
        };
        assert_eq!(name(&operation["requestBody"]["content"]), takes, "{at}");
        let responses = operation["responses"].as_object().expect("responses");
        assert_eq!(name(&responses["200"]["content"]), answers, "{at}");
        for failed in ["4XX", "5XX"] {
            let problem = json!({"$ref": "#/components/responses/Problem"});
            assert_eq!(responses[failed], problem, "{at}");
        }
    }
    let problem = &document["components"]["responses"]["Problem"]["content"];
    assert!(problem[MEDIA_TYPE].is_object());
}

/// The constants of a module, as this very source has them: none is forgotten above.
#[test]
fn every_constant_of_a_path_is_in_the_document() {
    let source = include_str!("../mod.rs");
    let paths = source
        .split("pub mod path {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next());
    let constants = paths.expect("the module").lines().filter_map(|line| {
        let (_, text) = line.trim().strip_prefix("pub const ")?.split_once('"')?;
        text.strip_suffix("\";")
    });
    let document = document();
    let mut count = 0;
    for constant in constants {
        assert!(document["paths"][constant].is_object(), "{constant}");
        count += 1;
    }
    assert_eq!(count, document["paths"].as_object().expect("paths").len());
}

#[test]
fn limits_and_headers_are_those_of_the_protocol() {
    let document = document();
    let items = |name: &str| schema(name)["properties"]["items"]["maxItems"].clone();
    for name in ["ReadRequest", "ReadAnswer", "StatRequest", "StatAnswer"] {
        assert_eq!(items(name), json!(limit::BATCH), "{name}");
    }
    // The value, its tag of 16 bytes, and base64's four letters for three bytes.
    let sealed = (limit::VALUE + 16).div_ceil(3) * 4;
    assert_eq!(schema("Sealed")["maxLength"], json!(sealed));
    assert!(sealed < limit::BODY);
    let length = &schema("GenerateRequest")["properties"]["length"];
    assert_eq!(length["maximum"], json!(keyhaul_core::Recipe::MAX));
    let name = keyhaul_core::reference::MAX_REFERENCE - "secret:".len();
    assert_eq!(schema("Secret")["maxLength"], json!(name));
    let text = document["info"]["description"].as_str().expect("words");
    for words in [
        "at most 2 MiB for a write",
        "a value at most 1 MiB",
        "at most 256 items",
    ] {
        assert!(text.contains(words), "{words}");
    }
    assert_eq!(
        (limit::BODY, limit::VALUE, limit::BATCH),
        (2 << 20, 1 << 20, 256)
    );
    let read = document["paths"][path::READ]["post"]["description"]
        .as_str()
        .expect("words");
    assert!(read.contains("At most 4 MiB of values"));
    assert_eq!(limit::ANSWER, 4 << 20);

    let parameters = &document["components"]["parameters"];
    let names = ["RequestId", "Timeout", "IdempotencyKey"].map(|name| &parameters[name]["name"]);
    assert_eq!(
        names,
        [header::REQUEST_ID, header::TIMEOUT, header::IDEMPOTENCY_KEY]
    );
    let mut pages = 0;
    for methods in document["paths"].as_object().expect("paths").values() {
        for parameter in methods["get"]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if parameter["name"] == "limit" {
                let told = parameter["description"].as_str().expect("words");
                assert!(told.contains(&format!("read as {}", limit::PAGE)), "{told}");
                pages += 1;
            }
        }
    }
    assert_eq!(pages, 5);
}

/// Whoever follows the document's `$ref`s finds something.
#[test]
fn every_reference_within_the_document_leads_somewhere() {
    fn walk(value: &Value, document: &Value, seen: &mut usize) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, document, seen)),
            Value::Object(object) => {
                if let Some(target) = object.get("$ref").and_then(Value::as_str) {
                    let pointer = target.strip_prefix('#').expect("within the document");
                    assert!(document.pointer(pointer).is_some(), "{target}");
                    *seen += 1;
                }
                object
                    .values()
                    .for_each(|value| walk(value, document, seen));
            }
            _ => {}
        }
    }
    let document = document();
    let mut seen = 0;
    walk(&document, &document, &mut seen);
    assert!(seen > 100, "{seen}");
    assert_eq!(document["openapi"], "3.1.0");
    let security = &document["components"]["securitySchemes"]["certificate"];
    assert_eq!(security["type"], "mutualTLS");
    assert_eq!(document["security"], json!([{"certificate": []}]));
}

/// The example was made by another implementation of RFC 9180, of RFC 7748 and of AES-GCM.
#[test]
fn the_documents_example_of_the_seal_opens() {
    let document = document();
    let example = &document["x-seal-example"];
    let text = |name: &str| example[name].as_str().expect("text").to_owned();
    let bytes = |name: &str| Base64::decode_vec(&text(name)).expect("base64");
    let mut client = [0; 32];
    base16ct::lower::decode(text("client"), &mut client).expect("hexadecimal");
    let (nonce, secret, field) = (text("nonce"), text("secret"), text("field"));
    let binding = seal::Binding {
        client: &client,
        nonce: &nonce,
        secret: &secret,
        version: None,
        field: Some(&field),
    };
    let index = example["index"]
        .as_u64()
        .and_then(|index| usize::try_from(index).ok());
    let index = index.expect("an index");
    let recipient = seal::Recipient::of(&bytes("private"));
    assert_eq!(recipient.public(), text("key"));
    let receiver = recipient.meet(&text("enc")).expect("met");
    let open = |purpose, index| {
        let opener = receiver.opener(purpose, &text("salt")).expect("an opener");
        opener.open(&binding, index, &text("value"))
    };
    let opened = open(seal::Purpose::Read, index).expect("opened");
    assert_eq!(opened.expose(), text("opened").as_bytes());
    assert!(open(seal::Purpose::Write, index).is_err());
    assert!(open(seal::Purpose::Read, index + 1).is_err());
}
