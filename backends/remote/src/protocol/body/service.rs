//! The service itself: who asks it, and what it has written down.

use serde::{Deserialize, Serialize};

bodies! {
    /// Who asks, and what the service can do for them.
    answer ServiceAnswer {
        /// The server's version.
        version: String,
        /// The name that the server knows the caller by.
        name: String,
        /// The URI in the caller's certificate.
        uri: String,
        /// The caller's role.
        role: Role,
        /// The scopes that the role covers, as patterns; empty for a node, whose grants say.
        scopes: Vec<String>,
        /// What the caller can do to secrets: capabilities, by their names.
        can: Vec<String>,
        /// The longest value, in bytes.
        max_value: usize,
        /// The most secrets in one read.
        max_batch: usize,
        /// The server's public key, X25519, in base64: what is written is sealed to it. Another one
        /// after each start.
        key: String,
    }
    /// Records of the audit.
    answer AuditAnswer {
        /// Records, the oldest first, as they stand in the file.
        records: Vec<serde_json::Value>,
        /// The sequence number to ask for next; none at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
        /// Where the chain ends: to be kept elsewhere, and given to `keyhaul audit verify`.
        head: AuditHead,
    }
    /// Where the audit's chain ends.
    answer AuditHead {
        /// The last record's number.
        sequence: u64,
        /// The last record's hash, SHA-256 in hexadecimal.
        hash: String,
    }
}

/// What a certificate's holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Grants, revokes, has values made, lists and deletes; never reads a value.
    Manager,
    /// Reads the scopes it is granted.
    Node,
    /// Sets values and reads the audit.
    Operator,
}

impl Role {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }
}
