//! Migrations: a scope that moves from one node to another.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

bodies! {
    /// Begins a migration: the target can read until the ticket ends.
    request BeginRequest {
        /// The scope that moves.
        scope: String,
        /// The node it runs on, which holds a grant.
        from: String,
        /// The node it moves to, which holds none.
        to: String,
        /// How long the ticket lasts, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    }
    /// Ends a migration: names it by its id, or by its scope and both its nodes. What is named has
    /// to match.
    request EndRequest {
        /// The ticket's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The scope, for its latest ticket: takes `from` and `to`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// The node it comes from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// The node it goes to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    }
    /// A migration.
    answer Ticket {
        /// Its id.
        id: String,
        /// The scope that moves.
        scope: String,
        /// The node it comes from.
        from: String,
        /// The node it goes to.
        to: String,
        /// How it stands.
        state: TicketState,
        /// Whether the target has fetched a secret under it: then the guest may run there.
        fetched: bool,
        /// When it began.
        created: Timestamp,
        /// When it ends by itself, or becomes undecided.
        expires: Timestamp,
        /// Who began it, by the URI in the certificate.
        by: String,
    }
    /// A page of tickets.
    answer TicketsAnswer {
        /// Tickets, the latest first.
        tickets: Vec<Ticket>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
}

/// How a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketState {
    /// Both nodes can read.
    Open,
    /// Its time ended after the target had fetched: both can read, until somebody decides.
    Undecided,
    /// It ended at the target.
    Committed,
    /// It ended at the source.
    Aborted,
    /// Its time ended before the target had fetched anything: it ended at the source.
    Expired,
    /// A word of a newer server; no server of this version says it.
    #[serde(other)]
    Unknown,
}

impl TicketState {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Undecided => "undecided",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}
