//! What is recorded of one decision.

use std::borrow::Cow;
use std::sync::Arc;

use keyhaul_core::{Error, ErrorKind, Result};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::Read;
use crate::protocol::Role;

/// The longest record, in bytes, without sequence, time and hash.
const LONGEST: usize = 64 * 1024;

/// What is recorded of one decision. Sequence, time and hash are the log's own; a value or its
/// length is never in it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The request's id.
    #[serde(serialize_with = "shared")]
    pub request: Arc<str>,
    /// Who asked: the URI in the certificate.
    #[serde(serialize_with = "shared")]
    pub actor: Arc<str>,
    /// The actor's role, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// From where: the address of the connection.
    #[serde(serialize_with = "shared")]
    pub peer: Arc<str>,
    /// What was asked.
    pub operation: &'static str,
    /// About what: `SCOPE/NAME`, or a scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// For or about which node.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "shared_option"
    )]
    pub node: Option<Arc<str>>,
    /// `ok`, `begin`, or the name of an error's kind.
    pub outcome: &'static str,
    /// Why, where the outcome alone does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// The version that was read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The grant's epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The migration that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<String>,
    /// What was decided, besides: a grant's `names`, `expires` and `if_epoch`, and a
    /// revocation's `if_epoch`; `from`, `to` and `seconds` of a
    /// migration; `force` of a deletion; `field` of a read; `field`, `mode` and `expect` of a write;
    /// `seconds` of a limit that begins and `unrecorded` of one that ends.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub terms: Map<String, Value>,
}

impl Entry {
    /// The operation of a read. Where its outcome is [`Self::OK`], and node and subject are named,
    /// the fetch index counts it.
    pub const READ: &'static str = "read";
    /// The outcome of what worked.
    pub const OK: &'static str = "ok";

    /// Its members as JSON, without the braces around them.
    pub(super) fn body(&self, buffer: &mut Vec<u8>) -> Result<()> {
        let start = buffer.len();
        serde_json::to_writer(&mut *buffer, self).map_err(|error| {
            let message = "an audit record cannot be put in words";
            Error::new(ErrorKind::Internal, message).with_source(error)
        })?;
        if buffer.len() - start > LONGEST {
            let message = format!("an audit record has at most {LONGEST} bytes");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        buffer.pop();
        buffer.remove(start);
        Ok(())
    }

    /// Adds to the terms what was said of them.
    pub fn term(&mut self, name: &str, value: impl Into<Option<Value>>) {
        if let Some(value) = value.into() {
            self.terms.insert(name.to_owned(), value);
        }
    }

    /// What the fetch index is told of it.
    pub(super) fn into_read(self) -> Option<Read> {
        if self.operation != Self::READ || self.outcome != Self::OK {
            return None;
        }
        Some(Read {
            node: self.node?,
            secret: with_field(self.subject?, self.terms.get("field")),
            version: self.version,
        })
    }
}

/// What the fetch index calls a secret: with the field, where one was named.
pub(super) fn with_field(subject: String, field: Option<&Value>) -> String {
    match field.and_then(Value::as_str) {
        Some(field) => format!("{subject}#{field}"),
        None => subject,
    }
}

fn shared<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn shared_option<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
}
