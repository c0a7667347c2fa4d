//! Who may read what, and what they have read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Ticket;

bodies! {
    /// Grants a scope to a node. The same again changes nothing; other terms replace the old.
    request GrantRequest {
        /// The scope.
        scope: String,
        /// The node's name.
        node: String,
        /// Patterns of names in the scope, as in a route's `match` after the scope; all where empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Only where the grant that the node holds of the scope has this epoch; 0: only where it
        /// holds none. What is as it was asked for already is no conflict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_epoch: Option<u64>,
    }
    /// A grant.
    answer Grant {
        /// The scope.
        scope: String,
        /// The node's name.
        node: String,
        /// Patterns of names in the scope; all where empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Grows with every change of any grant: a later grant has a greater one.
        epoch: u64,
        /// When it was given.
        created: Timestamp,
        /// Who gave it, by the URI in the certificate.
        by: String,
        /// The migration that it belongs to, while that is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        migration: Option<String>,
    }
    /// Takes a grant away.
    request RevokeRequest {
        /// The scope.
        scope: String,
        /// The node's name.
        node: String,
        /// Only where the grant has this epoch: another one was given since, and stays. Where there is
        /// none any more, that is no conflict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_epoch: Option<u64>,
    }
    /// What was taken away.
    answer RevokeAnswer {
        /// Whether there was a grant.
        revoked: bool,
        /// The epoch from which on it is gone.
        epoch: u64,
    }
    /// A page of grants.
    answer GrantsAnswer {
        /// Grants, by scope and node.
        grants: Vec<Grant>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    /// Names a node.
    request NodeRequest {
        /// The node's name.
        node: String,
    }
    /// What a quarantine took away, and what has to be rotated.
    answer QuarantineAnswer {
        /// The node's name.
        node: String,
        /// Whether the service knew it: it had held a grant, had fetched something, or was
        /// quarantined before. One that was unknown is quarantined too.
        known: bool,
        /// The grants that it held.
        revoked: Vec<Grant>,
        /// Every secret that it has ever fetched.
        fetched: Vec<Fetch>,
        /// Migrations that it is part of, and that somebody has to end.
        tickets: Vec<Ticket>,
    }
    /// What a node has fetched.
    answer Fetch {
        /// `SCOPE/NAME`.
        secret: String,
        /// The version it got last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// When it did so first.
        first: Timestamp,
        /// When it did so last.
        last: Timestamp,
        /// How often.
        count: u64,
    }
    /// A node.
    answer Node {
        /// Its name.
        node: String,
        /// Since when it is quarantined.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quarantined: Option<Timestamp>,
        /// How many grants it holds.
        grants: u64,
        /// When it fetched something last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_fetch: Option<Timestamp>,
    }
    /// A page of nodes that ever held a grant, or fetched something.
    answer NodesAnswer {
        /// Nodes, by name.
        nodes: Vec<Node>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
}
