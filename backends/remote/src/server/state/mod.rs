//! Who may read what, and who has read what: grants, migration tickets, quarantines, the fetch
//! index and tombstones, in one SQLite file.

mod memory;
mod types;

use std::path::Path;

use keyhaul_core::{Error, ErrorKind, Reference, Result};

use super::audit::AuditLog;
use crate::protocol::{
    AuditHead, BeginRequest, EndRequest, Grant, GrantRequest, GrantsAnswer, Node, NodesAnswer,
    QuarantineAnswer, RevokeAnswer, RevokeRequest, Ticket, TicketState, TicketsAnswer,
};

pub use types::{Clock, Denial, PageQuery, Permit, StateSettings, SystemClock, Tombstone};

/// What the service knows besides secrets.
#[derive(Debug)]
pub struct State {}

fn later<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "not yet"))
}

#[expect(
    clippy::unused_async,
    reason = "the skeleton that others build against"
)]
impl State {
    /// Opens or makes the file at `path`, for this process alone.
    pub fn open(_path: &Path, _settings: StateSettings) -> Result<Self> {
        later()
    }
    /// Where the audit's chain ended when it was last looked at: for [`AuditLog::open`].
    pub fn anchor(&self) -> Option<AuditHead> {
        None
    }
    /// Brings the fetch index up to the end of the audit, and follows it from there on. To be
    /// called once, before the first request is served.
    pub fn follow(&self, _audit: &AuditLog) -> Result<()> {
        later()
    }
    /// The last record of the audit that the fetch index holds durably.
    pub fn indexed(&self) -> u64 {
        0
    }
    /// Whether `node` may read `reference` now. From memory.
    pub fn may_read(&self, _node: &str, _reference: &Reference) -> Result<Permit, Denial> {
        Err(Denial {
            reason: "not granted",
        })
    }
    /// Whether what was permitted still is.
    pub fn still_holds(&self, _permit: &Permit) -> bool {
        false
    }
    /// To be called when the audit holds the reads and before their answer leaves. `PermissionDenied`
    /// where a grant went meanwhile: then nothing may be answered.
    pub async fn fetched(&self, _permits: &[Permit]) -> Result<()> {
        later()
    }
    /// Grants.
    pub async fn grant(&self, _by: &str, _request: &GrantRequest) -> Result<Grant> {
        later()
    }
    /// Revokes.
    pub async fn revoke(&self, _request: &RevokeRequest) -> Result<RevokeAnswer> {
        later()
    }
    /// A page of live grants, by scope and node.
    pub fn grants(
        &self,
        _scope: Option<&str>,
        _node: Option<&str>,
        _page: &PageQuery,
    ) -> Result<GrantsAnswer> {
        later()
    }
    /// The grants that let somebody read `reference`.
    pub fn who_can(&self, _reference: &Reference) -> Vec<Grant> {
        Vec::new()
    }
    /// The grants that `node` holds.
    pub fn what_can(&self, _node: &str) -> Vec<Grant> {
        Vec::new()
    }
    /// Whether any node holds a live grant of `scope`.
    pub fn is_granted(&self, _scope: &str) -> bool {
        false
    }
    /// Begins a migration.
    pub async fn begin(&self, _by: &str, _request: &BeginRequest) -> Result<Ticket> {
        later()
    }
    /// Ends a migration at its target.
    pub async fn commit(&self, _request: &EndRequest) -> Result<Ticket> {
        later()
    }
    /// Ends a migration at its source.
    pub async fn abort(&self, _request: &EndRequest) -> Result<Ticket> {
        later()
    }
    /// The ticket that `request` names: to know its scope before it is ended.
    pub async fn ticket(&self, _request: &EndRequest) -> Result<Ticket> {
        later()
    }
    /// A page of tickets, the latest first.
    pub async fn tickets(
        &self,
        _scope: Option<&str>,
        _state: Option<TicketState>,
        _page: &PageQuery,
    ) -> Result<TicketsAnswer> {
        later()
    }
    /// What became undecided or expired since this was last asked, each once: to be audited. After
    /// a start, all that are undecided.
    pub async fn expire(&self) -> Result<Vec<Ticket>> {
        later()
    }
    /// Takes all grants from `node` and lets it have no more, its own scope included.
    pub async fn quarantine(&self, _node: &str) -> Result<QuarantineAnswer> {
        later()
    }
    /// Lets `node` be granted again; what it held does not come back.
    pub async fn release(&self, _node: &str) -> Result<Node> {
        later()
    }
    /// A page of nodes, by name.
    pub async fn nodes(&self, _page: &PageQuery) -> Result<NodesAnswer> {
        later()
    }
    /// Remembers that a secret is deleted, in place of an older tombstone.
    pub async fn bury(&self, _tombstone: &Tombstone) -> Result<()> {
        later()
    }
    /// Forgets a tombstone, and says which.
    pub async fn exhume(&self, _subject: &str) -> Result<Option<Tombstone>> {
        later()
    }
    /// The tombstone of `SCOPE/NAME`.
    pub fn tombstone(&self, _subject: &str) -> Option<Tombstone> {
        None
    }
    /// Tombstones whose subjects begin with `prefix`, by subject.
    pub fn buried_below(&self, _prefix: &str) -> Vec<Tombstone> {
        Vec::new()
    }
    /// Tombstones whose window is over.
    pub fn due(&self) -> Vec<Tombstone> {
        Vec::new()
    }
    /// The service's time, which never goes back.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
    /// Writes down what is buffered: the fetch index, the audit's head, the time.
    pub async fn flush(&self) -> Result<()> {
        later()
    }
}
