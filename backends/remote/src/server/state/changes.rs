//! What changes the state, or asks more of it than memory holds: done by the thread, one after the
//! other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use keyhaul_core::Result;

use super::{MARK, Notice, Permit, State, Tombstone, grants, nodes, tickets, tombstones};
use crate::protocol::{
    BeginRequest, EndRequest, Grant, GrantRequest, Node, NodesAnswer, Paging, QuarantineAnswer,
    RevokeAnswer, RevokeRequest, Ticket, TicketState, TicketsAnswer,
};

impl State {
    /// Gives a grant. The same again changes nothing, other terms replace the old.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none, or the end is past; `Conflict` where the node is
    /// quarantined, is the target of a migration of this scope, or holds another grant than
    /// `if_epoch` says; else as any change: `Unavailable` or `StorageFull` where it could not be made
    /// durable, and nothing was changed.
    pub(crate) async fn grant(&self, by: &str, request: &GrantRequest) -> Result<Grant> {
        let (by, request) = (by.to_owned(), request.clone());
        self.change(move |work| grants::give(work, &by, &request))
            .await
    }

    /// Takes a grant away. Where there is none, that is said, and is no failure.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none; `Conflict` where the node holds another grant than
    /// `if_epoch` says; else as any change.
    pub(crate) async fn revoke(&self, request: &RevokeRequest) -> Result<RevokeAnswer> {
        let request = request.clone();
        self.change(move |work| grants::revoke(work, &request))
            .await
    }

    /// Begins a migration: the target gets a grant on the source's terms, as long as the ticket is
    /// open. The same again gives the same ticket.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none, both are the same, or the length is out of range;
    /// `Conflict` where the source holds no grant, the target holds one or is quarantined, or
    /// another ticket of the scope has not ended; else as any change.
    pub(crate) async fn begin(&self, by: &str, request: &BeginRequest) -> Result<Ticket> {
        let (by, request) = (by.to_owned(), request.clone());
        self.change(move |work| tickets::begin(work, &by, &request))
            .await
    }

    /// Ends a migration at its target: the source loses its grant, the target keeps its own.
    ///
    /// # Errors
    /// `NotFound` where there is no such ticket; `Conflict` where it ended at the source, or the
    /// target's grant is gone; else as any change.
    pub(crate) async fn commit(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::commit(work, &request))
            .await
    }

    /// Ends a migration at its source: the target loses its grant.
    ///
    /// # Errors
    /// `NotFound` where there is no such ticket; `Conflict` where it ended at the target, or the
    /// source's grant is gone and the target's is not; else as any change.
    pub(crate) async fn abort(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::abort(work, &request))
            .await
    }

    /// The ticket that `request` names: to know its scope before it is ended.
    ///
    /// # Errors
    /// `InvalidReference` where it does not name one in full; `NotFound` where there is none;
    /// `Conflict` where it is another; else as the file fails.
    pub(crate) async fn ticket(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.settle().await?;
        self.look(move |db| tickets::named(db, &request)).await
    }

    /// A page of tickets of the scopes that `covers` wants, the latest first.
    ///
    /// # Errors
    /// `InvalidReference` where `after` is no page's `next`; else as the file fails.
    pub(crate) async fn tickets(
        &self,
        scope: Option<&str>,
        state: Option<TicketState>,
        page: &Paging,
        covers: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<TicketsAnswer> {
        let (scope, page) = (scope.map(str::to_owned), page.clone());
        self.settle().await?;
        self.look(move |db| {
            let page = (page.limit(), page.after.as_deref());
            tickets::page(db, scope.as_deref(), state, page, &covers)
        })
        .await
    }

    /// Writes down that tickets have ended, where some have.
    async fn settle(&self) -> Result<()> {
        let overdue = self.shared.memory().is_overdue(self.shared.time.now());
        if overdue { self.flush().await } else { Ok(()) }
    }

    /// Ends the tickets whose time is over, and says what ended by itself and was not
    /// [told](Self::told) yet: to be audited. After a start, all undecided tickets are among it. To
    /// be called every few seconds; costs nothing where nothing is due.
    ///
    /// # Errors
    /// As any change.
    pub(crate) async fn expire(&self) -> Result<Vec<Notice>> {
        let now = self.shared.time.now();
        if now - self.shared.mark.load(Ordering::Relaxed) >= MARK {
            self.flush().await?;
        }
        self.settle().await?;
        let ended = &self.shared.ended;
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ended.clone())
    }

    /// Forgets notices, by their ids: the audit holds them.
    ///
    /// # Errors
    /// As any change; they are not given again before the next start.
    pub(crate) async fn told(&self, ids: Vec<String>) -> Result<()> {
        {
            let ended = &self.shared.ended;
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.retain(|notice| !ids.contains(&notice.id));
        }
        self.change_in_time(move |work| nodes::told(work, ids))
            .await
    }

    /// To be called when the audit holds the reads and before their answer leaves. The first fetch
    /// under a migration is durable when it returns.
    ///
    /// # Errors
    /// `PermissionDenied` where a grant was taken away meanwhile: then nothing may be answered.
    /// Else as any change, and nothing may be answered either.
    pub(crate) async fn fetched(&self, permits: &[Permit]) -> Result<()> {
        let mut fresh: Vec<String> = Vec::new();
        for permit in permits {
            let held = self.current(permit).ok_or_else(tickets::gone)?;
            if let Some(running) = held.as_ref().and_then(|held| held.running.as_ref())
                && !running.is_fetched()
                && !fresh.contains(&running.id)
            {
                fresh.push(running.id.clone());
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        // All or none, and one wait for the disk, however many scopes migrate.
        self.change_in_time(move |work| fresh.iter().try_for_each(|id| tickets::fetch(work, id)))
            .await
    }

    /// Takes all grants from `node` and lets it have no more, its own scope included; a node that
    /// nobody knows too, and the answer says so. The answer holds every secret that it was ever
    /// given, and the tickets that it is part of. None is decided by it: one can be committed or
    /// aborted as long as the other node holds its grant.
    ///
    /// # Errors
    /// `InvalidReference` where the name is none; else as any change.
    pub(crate) async fn quarantine(&self, node: &str) -> Result<QuarantineAnswer> {
        let name = node.to_owned();
        let done = self.change(move |work| nodes::quarantine(work, &name));
        let mut answer = done.await?;
        // Asked once more when memory knows: what the node was given until then counts, and may be
        // buffered still. Where that fails, what the transaction saw is the answer.
        let (name, shared) = (node.to_owned(), Arc::clone(&self.shared));
        let fetched = self.look(move |db| {
            let mut fetched = nodes::fetched(db, &name)?;
            let buffer = shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            nodes::add_buffered(&mut fetched, &buffer, &name);
            Ok(fetched)
        });
        if let Ok(fetched) = fetched.await {
            answer.fetched = fetched;
        }
        Ok(answer)
    }

    /// Lets `node` be granted again; what it held does not come back.
    ///
    /// # Errors
    /// `NotFound` where nobody knows it; else as any change.
    pub(crate) async fn release(&self, node: &str) -> Result<Node> {
        let node = node.to_owned();
        self.change(move |work| nodes::release(work, &node)).await
    }

    /// A page of nodes that ever held a grant or fetched something, by name.
    ///
    /// # Errors
    /// As the file fails.
    pub(crate) async fn nodes(&self, page: &Paging) -> Result<NodesAnswer> {
        let (page, now) = (page.clone(), self.shared.time.now());
        self.settle().await?;
        self.look(move |db| nodes::page(db, now, page.limit(), page.after.as_deref()))
            .await
    }

    /// Remembers that a secret is deleted, in place of an older tombstone.
    ///
    /// # Errors
    /// As any change.
    pub(crate) async fn put_tombstone(&self, tombstone: &Tombstone) -> Result<()> {
        let tombstone = tombstone.clone();
        self.change(move |work| tombstones::put(work, tombstone))
            .await
    }

    /// Counts `by` as time that the service has run since the last time this was called: nothing is
    /// deleted for good by the wall clock alone. Costs nothing where nothing waits for it.
    ///
    /// # Errors
    /// As any change; then nothing is counted.
    pub(crate) async fn age(&self, by: Duration) -> Result<()> {
        let waits = |tombstone: &Tombstone| !tombstone.left.is_zero();
        if !self.shared.memory().tombstones.values().any(waits) {
            return Ok(());
        }
        self.change(move |work| tombstones::age(work, by)).await
    }

    /// Forgets a tombstone, and says which.
    ///
    /// # Errors
    /// As any change.
    pub(crate) async fn take_tombstone(&self, subject: &str) -> Result<Option<Tombstone>> {
        let subject = subject.to_owned();
        self.change(move |work| tombstones::take(work, &subject))
            .await
    }
}
