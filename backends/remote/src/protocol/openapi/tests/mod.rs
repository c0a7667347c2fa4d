//! Holds the document to the types that both ends are made of, and to the protocol's constants.

mod bodies;
mod interface;
mod json_schema;

use serde_json::Value;

use super::OPENAPI;

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

fn schema(name: &str) -> Value {
    let found = document()["components"]["schemas"][name].clone();
    assert!(found.is_object(), "the document has no schema {name}");
    found
}
