//! What both ends of the key service say to each other: the one truth for client and server.
//!
//! Every request is HTTP over TLS 1.3 with a client certificate. Requests with a body are JSON to
//! a fixed path, so that no reference is ever part of a path. Failures are problem details
//! (RFC 9457). Values are [sealed](seal) to a key of the process that asks.

mod body;
mod node_name;
mod openapi;
mod paging;
mod problem;
pub mod seal;

pub use body::*;
pub use node_name::check_node_name;
pub(crate) use node_name::{NODE_NAME, is_node_name};
pub use openapi::OPENAPI;
pub use paging::Paging;
pub use problem::{MEDIA_TYPE, Problem};

/// The paths of version 1.
pub mod path {
    /// Who asks, what they may do, what the limits are (GET; [`ServiceAnswer`](super::ServiceAnswer)).
    pub const SERVICE: &str = "/v1/service";
    /// The interface's description (GET).
    pub const OPENAPI: &str = "/v1/openapi.json";
    /// Reads values, many at once (POST [`ReadRequest`](super::ReadRequest); [`ReadAnswer`](super::ReadAnswer)).
    pub const READ: &str = "/v1/secrets/read";
    /// Reads metadata (POST [`StatRequest`](super::StatRequest); [`StatAnswer`](super::StatAnswer)).
    pub const STAT: &str = "/v1/secrets/stat";
    /// Writes a value (POST [`WriteRequest`](super::WriteRequest); [`Stat`](super::Stat)).
    pub const WRITE: &str = "/v1/secrets/write";
    /// Has a value made (POST [`GenerateRequest`](super::GenerateRequest); [`Stat`](super::Stat)).
    pub const GENERATE: &str = "/v1/secrets/generate";
    /// Deletes a secret (POST [`DeleteRequest`](super::DeleteRequest); [`DeleteAnswer`](super::DeleteAnswer)).
    pub const DELETE: &str = "/v1/secrets/delete";
    /// Brings a deleted secret back, within the window (POST [`RestoreRequest`](super::RestoreRequest); [`Stat`](super::Stat)).
    pub const RESTORE: &str = "/v1/secrets/restore";
    /// Lists names (GET; [`ListAnswer`](super::ListAnswer)).
    pub const SECRETS: &str = "/v1/secrets";
    /// Lists grants (GET; [`GrantsAnswer`](super::GrantsAnswer)), or grants (POST
    /// [`GrantRequest`](super::GrantRequest); [`Grant`](super::Grant)).
    pub const GRANTS: &str = "/v1/grants";
    /// Revokes a grant (POST [`RevokeRequest`](super::RevokeRequest); [`RevokeAnswer`](super::RevokeAnswer)).
    pub const REVOKE: &str = "/v1/grants/revoke";
    /// Which nodes can read a secret (GET; [`GrantsAnswer`](super::GrantsAnswer)).
    pub const WHO_CAN: &str = "/v1/who-can";
    /// What a node can read (GET; [`GrantsAnswer`](super::GrantsAnswer)).
    pub const WHAT_CAN: &str = "/v1/what-can";
    /// Lists tickets (GET; [`TicketsAnswer`](super::TicketsAnswer)), or begins a migration (POST
    /// [`BeginRequest`](super::BeginRequest); [`Ticket`](super::Ticket)).
    pub const MIGRATIONS: &str = "/v1/migrations";
    /// Ends a migration at its target (POST [`EndRequest`](super::EndRequest); [`Ticket`](super::Ticket)).
    pub const COMMIT: &str = "/v1/migrations/commit";
    /// Ends a migration at its source (POST [`EndRequest`](super::EndRequest); [`Ticket`](super::Ticket)).
    pub const ABORT: &str = "/v1/migrations/abort";
    /// Lists nodes (GET; [`NodesAnswer`](super::NodesAnswer)).
    pub const NODES: &str = "/v1/nodes";
    /// Takes everything from a node, and says what it has fetched (POST
    /// [`NodeRequest`](super::NodeRequest); [`QuarantineAnswer`](super::QuarantineAnswer)).
    pub const QUARANTINE: &str = "/v1/nodes/quarantine";
    /// Lets a node be granted again (POST [`NodeRequest`](super::NodeRequest); [`Node`](super::Node)).
    pub const RELEASE: &str = "/v1/nodes/release";
    /// The audit's records (GET; [`AuditAnswer`](super::AuditAnswer)).
    pub const AUDIT: &str = "/v1/audit";
}

/// Headers besides HTTP's own.
pub mod header {
    /// The request's id, in requests and answers: `[A-Za-z0-9._-]`, 1 to 64 of them.
    pub const REQUEST_ID: &str = "x-request-id";
    /// Makes a repeated write recognisable: 32 hexadecimal digits.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// How long the client waits, in milliseconds.
    pub const TIMEOUT: &str = "keyhaul-timeout-ms";
}

/// Limits that both ends know.
pub mod limit {
    /// The longest value, in bytes.
    pub const VALUE: usize = 1024 * 1024;
    /// The longest body of a request: a value in base64, and words around it.
    pub const BODY: usize = 2 * 1024 * 1024;
    /// The most secrets in one read.
    pub const BATCH: usize = 256;
    /// The most bytes of values in one answer; what would go past it is answered `TooLarge`, and
    /// can be asked for alone.
    pub const ANSWER: usize = 4 * 1024 * 1024;
    /// The most entries of a page, and how many there are where nobody says.
    pub const PAGE: usize = 1000;
}
