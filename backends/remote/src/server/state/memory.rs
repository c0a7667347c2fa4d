//! What is asked on every request, in memory: a copy of what the file holds, changed when a
//! transaction is durable and not before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use keyhaul_core::Reference;
use keyhaul_core::policy::Pattern;

use super::Tombstone;
use crate::protocol::{Grant, Ticket, TicketState};

/// A grant, as requests hold on to it.
#[derive(Debug)]
pub(super) struct Held {
    pub grant: Grant,
    names: Vec<Pattern>,
    expires: i64,
    /// False once it is revoked or replaced.
    current: AtomicBool,
    /// The migration that it belongs to.
    pub running: Option<Arc<Running>>,
}

/// A migration that is not over.
#[derive(Debug)]
pub(super) struct Running {
    pub id: String,
    ends: i64,
    fetched: AtomicBool,
    /// False once it is undecided.
    open: AtomicBool,
}

impl Running {
    pub fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire)
    }

    /// Whether its time is over and nothing was fetched under it: what it gave is void, even
    /// before that is written down.
    pub fn has_lapsed(&self, now: i64) -> bool {
        self.ends <= now && !self.is_fetched()
    }

    fn is_overdue(&self, now: i64) -> bool {
        self.ends <= now && self.open.load(Ordering::Acquire)
    }
}

impl Held {
    fn new(grant: Grant, running: Option<Arc<Running>>) -> Self {
        let scope = &grant.scope;
        let parsed = grant.names.iter();
        let parsed = parsed.filter_map(|name| Pattern::parse(&format!("{scope}/{name}")).ok());
        Self {
            // They were parsed when they were granted. One that cannot be any more matches nothing.
            names: parsed.collect(),
            expires: grant
                .expires
                .map_or(i64::MAX, |expires| expires.as_microsecond()),
            current: AtomicBool::new(true),
            running,
            grant,
        }
    }

    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire)
    }

    /// Why it gives nothing now.
    pub fn void(&self, now: i64) -> Option<&'static str> {
        if self.expires <= now {
            return Some("the grant has expired");
        }
        let lapsed = |running: &Arc<Running>| running.has_lapsed(now);
        let lapsed = self.running.as_ref().is_some_and(lapsed);
        lapsed.then_some("the migration's time is over")
    }

    pub fn covers(&self, reference: &Reference) -> bool {
        self.grant.names.is_empty() || self.names.iter().any(|name| name.matches(reference))
    }

    /// Whether what `older` covers is covered too, as far as can be seen at a glance.
    pub fn replaces(&self, older: &Held) -> bool {
        self.grant.names.is_empty() || self.grant.names == older.grant.names
    }
}

/// What a transaction changed.
#[derive(Debug)]
pub(super) enum Change {
    Aged(Duration),
    Granted(Grant),
    Quarantined(String, Option<Timestamp>),
    Revoked { scope: String, node: String },
    Ticket(Ticket),
    TombstonePut(Tombstone),
    TombstoneTaken(String),
}

/// A node, as far as it matters to its requests.
#[derive(Debug, Default)]
pub(super) struct NodeState {
    pub quarantined: Option<Timestamp>,
    pub scopes: HashMap<String, Arc<Held>>,
}

/// The copy.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub nodes: HashMap<String, NodeState>,
    pub scopes: BTreeMap<String, BTreeMap<String, Arc<Held>>>,
    running: HashMap<String, Arc<Running>>,
    pub tombstones: BTreeMap<String, Tombstone>,
}

impl Memory {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Aged(by) => {
                for tombstone in self.tombstones.values_mut() {
                    tombstone.left = tombstone.left.saturating_sub(by);
                }
            }
            Change::Granted(grant) => self.granted(grant),
            Change::Quarantined(node, since) => {
                self.nodes.entry(node).or_default().quarantined = since;
            }
            Change::Revoked { scope, node } => self.revoked(&scope, &node),
            Change::Ticket(ticket) => self.ticket(&ticket),
            Change::TombstonePut(tombstone) => {
                self.tombstones.insert(tombstone.subject.clone(), tombstone);
            }
            Change::TombstoneTaken(subject) => {
                self.tombstones.remove(&subject);
            }
        }
    }

    /// Whether a migration's time is over that nobody has written down.
    pub fn is_overdue(&self, now: i64) -> bool {
        self.running.values().any(|running| running.is_overdue(now))
    }

    fn granted(&mut self, grant: Grant) {
        let running = grant.migration.as_ref();
        let running = running.and_then(|id| self.running.get(id)).cloned();
        let (scope, node) = (grant.scope.clone(), grant.node.clone());
        let held = Arc::new(Held::new(grant, running));
        let state = self.nodes.entry(node.clone()).or_default();
        if let Some(old) = state.scopes.insert(scope.clone(), Arc::clone(&held)) {
            old.current.store(false, Ordering::Release);
        }
        self.scopes.entry(scope).or_default().insert(node, held);
    }

    fn revoked(&mut self, scope: &str, node: &str) {
        if let Some(state) = self.nodes.get_mut(node) {
            if let Some(old) = state.scopes.remove(scope) {
                old.current.store(false, Ordering::Release);
            }
            if state.scopes.is_empty() && state.quarantined.is_none() {
                self.nodes.remove(node);
            }
        }
        if let Some(nodes) = self.scopes.get_mut(scope) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.scopes.remove(scope);
            }
        }
    }

    fn ticket(&mut self, ticket: &Ticket) {
        if !matches!(ticket.state, TicketState::Open | TicketState::Undecided) {
            self.running.remove(&ticket.id);
            return;
        }
        let open = ticket.state == TicketState::Open;
        match self.running.get(&ticket.id) {
            Some(running) => {
                running.fetched.store(ticket.fetched, Ordering::Release);
                running.open.store(open, Ordering::Release);
            }
            None => {
                let running = Running {
                    id: ticket.id.clone(),
                    ends: ticket.expires.as_microsecond(),
                    fetched: AtomicBool::new(ticket.fetched),
                    open: AtomicBool::new(open),
                };
                self.running.insert(ticket.id.clone(), Arc::new(running));
            }
        }
    }
}
