//! The paths with what they take and answer, limits, headers, and the example of the seal.

use std::collections::BTreeSet;

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

use super::super::super::*;
use super::{document, schema};

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
    let source = include_str!("../../mod.rs");
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
