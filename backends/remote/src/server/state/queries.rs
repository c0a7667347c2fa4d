//! What is answered from memory.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use keyhaul_core::{Reference, Result};

use super::memory::{Held, Memory};
use super::names::invalid;
use super::types::Basis;
use super::{Denial, Permit, State, Tombstone};
use crate::protocol::{Grant, GrantsAnswer, Node, NodesAnswer, Paging};

/// What a node's own scope begins with; its name follows.
const OWN: &str = "@host.";
/// Who gave a node its own scope.
const ITSELF: &str = "service";

impl State {
    /// Whether `node` may read `reference` now. A scope `@host.NODE` is the node's own.
    ///
    /// # Errors
    /// Why it may not, for the audit alone.
    pub(crate) fn may_read(&self, node: &str, reference: &Reference) -> Result<Permit, Denial> {
        let denied = |reason| Err(Denial { reason });
        let now = self.shared.time.now();
        if !self.shared.runs.load(Ordering::Acquire) {
            return denied("the state's thread has ended");
        }
        let memory = self.shared.memory();
        let state = memory.nodes.get(node);
        if state.is_some_and(|state| state.quarantined.is_some()) {
            return denied("the node is quarantined");
        }
        if reference.scope().strip_prefix(OWN) == Some(node) {
            return Ok(Permit(Basis::Own(node.into())));
        }
        let Some(held) = state.and_then(|state| state.scopes.get(reference.scope())) else {
            return denied("the node holds no grant of the scope");
        };
        if let Some(reason) = held.void(now) {
            return denied(reason);
        }
        if !held.covers(reference) {
            return denied("the grant does not cover the name");
        }
        Ok(Permit(Basis::Grant(Arc::clone(held))))
    }

    /// Whether what was permitted still is: to be asked again when the store has answered. A grant
    /// whose terms were changed meanwhile still holds where they give as much.
    pub(crate) fn still_holds(&self, permit: &Permit) -> bool {
        self.current(permit).is_some()
    }

    /// The grant that a permit stands on now, none for a node's own scope; nothing where it does
    /// not hold any more.
    pub(super) fn current(&self, permit: &Permit) -> Option<Option<Arc<Held>>> {
        if !self.shared.runs.load(Ordering::Acquire) {
            return None;
        }
        let now = self.shared.time.now();
        let held = match &permit.0 {
            Basis::Own(node) => {
                let memory = self.shared.memory();
                let state = memory.nodes.get(&**node);
                let free = state.is_none_or(|state| state.quarantined.is_none());
                return free.then_some(None);
            }
            Basis::Grant(held) if held.is_current() => Arc::clone(held),
            Basis::Grant(old) => {
                let memory = self.shared.memory();
                let state = memory.nodes.get(&old.grant.node)?;
                let held = state.scopes.get(&old.grant.scope)?;
                held.replaces(old).then(|| Arc::clone(held))?
            }
        };
        held.void(now).is_none().then_some(Some(held))
    }

    /// A page of live grants of the scopes that `covers` wants, by scope and node. Neither its
    /// entries nor its `next` show anything of others.
    ///
    /// # Errors
    /// `InvalidReference` where `after` is no page's `next`.
    pub(crate) fn grants(
        &self,
        scope: Option<&str>,
        node: Option<&str>,
        page: &Paging,
        covers: &dyn Fn(&str) -> bool,
    ) -> Result<GrantsAnswer> {
        let after = match page.after.as_deref().map(|after| after.split_once('/')) {
            None => None,
            Some(Some(after)) => Some(after),
            Some(None) => return Err(invalid("`after` is none of a page's `next`".into())),
        };
        let limit = page.limit();
        let now = self.shared.time.now();
        let memory = self.shared.memory();
        let start = after.map_or(scope, |(scope, _)| Some(scope));
        let start = start.map_or(Bound::Unbounded, Bound::Included);
        let mut grants = Vec::new();
        let scopes = memory.scopes.range::<str, _>((start, Bound::Unbounded));
        for (name, nodes) in
            scopes.take_while(|(name, _)| scope.is_none_or(|scope| scope == **name))
        {
            if !covers(name) {
                continue;
            }
            let start = match after {
                Some((scope, node)) if scope == name => Bound::Excluded(node),
                _ => Bound::Unbounded,
            };
            for (name, held) in nodes.range::<str, _>((start, Bound::Unbounded)) {
                if node.is_some_and(|node| node != name) || held.void(now).is_some() {
                    continue;
                }
                if grants.len() == limit {
                    let last: Option<&Grant> = grants.last();
                    let next = last.map(|last| format!("{}/{}", last.scope, last.node));
                    return Ok(GrantsAnswer { grants, next });
                }
                grants.push(held.grant.clone());
            }
        }
        Ok(GrantsAnswer { grants, next: None })
    }

    /// A page of the nodes that hold a live grant of a scope that `covers` wants, by name, with as
    /// many grants as those are, and nothing else that is known of them.
    pub(crate) fn nodes_of(&self, page: &Paging, covers: &dyn Fn(&str) -> bool) -> NodesAnswer {
        let after = page.after.as_deref().unwrap_or_default();
        let now = self.shared.time.now();
        let memory = self.shared.memory();
        let mut nodes: Vec<Node> = memory
            .nodes
            .iter()
            .filter(|(name, _)| name.as_str() > after)
            .filter_map(|(name, state)| {
                let held = state.scopes.iter();
                let held = held.filter(|(scope, held)| covers(scope) && held.void(now).is_none());
                let grants = held.count() as u64;
                (grants > 0).then(|| Node {
                    node: name.clone(),
                    quarantined: state.quarantined,
                    grants,
                    last_fetch: None,
                })
            })
            .collect();
        drop(memory);
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let more = nodes.len() > page.limit();
        nodes.truncate(page.limit());
        let next = nodes.last().filter(|_| more).map(|last| last.node.clone());
        NodesAnswer { nodes, next }
    }

    /// The grants that let somebody read `reference`, by node. A node's own scope is its own
    /// without any, and said as one of epoch 0 by the service.
    pub(crate) fn who_can(&self, reference: &Reference) -> Vec<Grant> {
        let now = self.shared.time.now();
        let memory = self.shared.memory();
        let held = memory.scopes.get(reference.scope());
        let owner = owner(&memory, reference.scope());
        let mut grants: Vec<Grant> = held
            .into_iter()
            .flat_map(|nodes| nodes.values())
            .filter(|held| held.void(now).is_none() && held.covers(reference))
            .filter(|held| owner != Some(&*held.grant.node))
            .map(|held| held.grant.clone())
            .collect();
        grants.extend(owner.map(|node| Grant {
            scope: reference.scope().to_owned(),
            node: node.to_owned(),
            names: Vec::new(),
            expires: None,
            epoch: 0,
            created: Timestamp::UNIX_EPOCH,
            by: ITSELF.to_owned(),
            migration: None,
        }));
        grants.sort_by(|a, b| a.node.cmp(&b.node));
        grants
    }

    /// The grants that `node` holds, by scope.
    pub(crate) fn what_can(&self, node: &str) -> Vec<Grant> {
        let now = self.shared.time.now();
        let memory = self.shared.memory();
        let state = memory.nodes.get(node);
        let mut grants: Vec<Grant> = state
            .into_iter()
            .flat_map(|state| state.scopes.values())
            .filter(|held| held.void(now).is_none())
            .map(|held| held.grant.clone())
            .collect();
        grants.sort_by(|a, b| a.scope.cmp(&b.scope));
        grants
    }

    /// Whether any node holds a live grant of `scope`, or has it as its own.
    pub(crate) fn is_granted(&self, scope: &str) -> bool {
        let now = self.shared.time.now();
        let memory = self.shared.memory();
        let held = memory.scopes.get(scope);
        owner(&memory, scope).is_some()
            || held.is_some_and(|nodes| nodes.values().any(|held| held.void(now).is_none()))
    }

    /// The tombstone of `SCOPE/NAME`.
    pub(crate) fn tombstone(&self, subject: &str) -> Option<Tombstone> {
        self.shared.memory().tombstones.get(subject).cloned()
    }

    /// Tombstones whose subjects begin with `prefix`, by subject.
    pub(crate) fn tombstones_below(&self, prefix: &str) -> Vec<Tombstone> {
        let memory = self.shared.memory();
        memory
            .tombstones
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(subject, _)| subject.starts_with(prefix))
            .map(|(_, tombstone)| tombstone.clone())
            .collect()
    }

    /// Tombstones whose window is over, by the wall clock and by the time that the service ran.
    pub(crate) fn due(&self) -> Vec<Tombstone> {
        let now = self.now();
        let memory = self.shared.memory();
        let tombstones = memory.tombstones.values();
        tombstones
            .filter(|tombstone| tombstone.until <= now && tombstone.left.is_zero())
            .cloned()
            .collect()
    }
}

/// The node whose own scope it is, unless it is quarantined.
fn owner<'a>(memory: &Memory, scope: &'a str) -> Option<&'a str> {
    let node = scope.strip_prefix(OWN).filter(|node| !node.is_empty())?;
    let state = memory.nodes.get(node);
    state
        .is_none_or(|state| state.quarantined.is_none())
        .then_some(node)
}
