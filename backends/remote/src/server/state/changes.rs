//! What changes the state, or asks more of it than memory holds: done by the thread, one after the
//! other.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyhaul_core::Result;

use super::{MARK, PageQuery, Permit, State, Tombstone, grants, nodes, tickets};
use crate::protocol::{
    BeginRequest, EndRequest, Grant, GrantRequest, Node, NodesAnswer, QuarantineAnswer,
    RevokeAnswer, RevokeRequest, Ticket, TicketState, TicketsAnswer,
};

impl State {
    /// Gives a grant. The same again changes nothing, other terms replace the old.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none, or the end is past; `Conflict` where the node is
    /// quarantined, or is the target of a migration of this scope; else as any change: `Unavailable`
    /// or `StorageFull` where it could not be made durable, and nothing was changed.
    pub async fn grant(&self, by: &str, request: &GrantRequest) -> Result<Grant> {
        let (by, request) = (by.to_owned(), request.clone());
        self.change(move |work| grants::give(work, &by, &request))
            .await
    }

    /// Takes a grant away. Where there is none, that is said, and is no failure.
    ///
    /// # Errors
    /// `InvalidReference` where a name is none; else as any change.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<RevokeAnswer> {
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
    pub async fn begin(&self, by: &str, request: &BeginRequest) -> Result<Ticket> {
        let (by, request) = (by.to_owned(), request.clone());
        self.change(move |work| tickets::begin(work, &by, &request))
            .await
    }

    /// Ends a migration at its target: the source loses its grant, the target keeps its own.
    ///
    /// # Errors
    /// `NotFound` where there is no such ticket; `Conflict` where it ended at the source, or the
    /// target's grant is gone; else as any change.
    pub async fn commit(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::commit(work, &request))
            .await
    }

    /// Ends a migration at its source: the target loses its grant.
    ///
    /// # Errors
    /// `NotFound` where there is no such ticket; `Conflict` where it ended at the target, or the
    /// source's grant is gone and the target's is not; else as any change.
    pub async fn abort(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::abort(work, &request))
            .await
    }

    /// The ticket that `request` names: to know its scope before it is ended.
    ///
    /// # Errors
    /// `NotFound` where there is none; else as any change.
    pub async fn ticket(&self, request: &EndRequest) -> Result<Ticket> {
        let request = request.clone();
        self.change(move |work| tickets::named(work, &request))
            .await
    }

    /// A page of tickets, the latest first.
    ///
    /// # Errors
    /// `InvalidReference` where `after` is no page's `next`; else as any change.
    pub async fn tickets(
        &self,
        scope: Option<&str>,
        state: Option<TicketState>,
        page: &PageQuery,
    ) -> Result<TicketsAnswer> {
        let (scope, page) = (scope.map(str::to_owned), page.clone());
        self.change(move |work| {
            let page = (page.limit(), page.after.as_deref());
            tickets::page(work, scope.as_deref(), state, page)
        })
        .await
    }

    /// Ends the tickets whose time is over, and says which became undecided or expired since this
    /// was last asked, each once: to be audited. After a start, all that are undecided are among
    /// them. To be called every few seconds; costs nothing where nothing is due.
    ///
    /// # Errors
    /// As any change.
    pub async fn expire(&self) -> Result<Vec<Ticket>> {
        let now = self.shared.time.now();
        let stale = now - self.shared.mark.load(Ordering::Relaxed) >= MARK;
        let overdue = self.shared.memory().is_overdue(now);
        if stale || overdue {
            self.flush().await?;
        }
        let ended = &self.shared.ended;
        let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *ended))
    }

    /// To be called when the audit holds the reads and before their answer leaves. The first fetch
    /// under a migration is durable when it returns.
    ///
    /// # Errors
    /// `PermissionDenied` where a grant was taken away meanwhile: then nothing may be answered.
    /// Else as any change, and nothing may be answered either.
    pub async fn fetched(&self, permits: &[Permit]) -> Result<()> {
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
        for id in fresh {
            self.change(move |work| tickets::fetch(work, &id)).await?;
        }
        Ok(())
    }

    /// Takes all grants from `node` and lets it have no more, its own scope included. The answer
    /// holds every secret that it was ever given. Tickets are not decided by it: one that it is
    /// part of can be committed or aborted as long as the other node holds its grant.
    ///
    /// # Errors
    /// `InvalidReference` where the name is none; else as any change.
    pub async fn quarantine(&self, node: &str) -> Result<QuarantineAnswer> {
        let name = node.to_owned();
        let revoked = self.change(move |work| nodes::quarantine(work, &name));
        let revoked = revoked.await?;
        // Asked when memory knows: what the node is given until then is in the audit, and counted.
        let name = node.to_owned();
        let fetched = self.change(move |work| nodes::fetched(work, &name));
        Ok(QuarantineAnswer {
            node: node.to_owned(),
            revoked,
            fetched: fetched.await?,
        })
    }

    /// Lets `node` be granted again; what it held does not come back.
    ///
    /// # Errors
    /// `NotFound` where nobody knows it; else as any change.
    pub async fn release(&self, node: &str) -> Result<Node> {
        let node = node.to_owned();
        self.change(move |work| nodes::release(work, &node)).await
    }

    /// A page of nodes that ever held a grant or fetched something, by name.
    ///
    /// # Errors
    /// As any change.
    pub async fn nodes(&self, page: &PageQuery) -> Result<NodesAnswer> {
        let page = page.clone();
        self.change(move |work| nodes::page(work, page.limit(), page.after.as_deref()))
            .await
    }

    /// Remembers that a secret is deleted, in place of an older tombstone.
    ///
    /// # Errors
    /// As any change.
    pub async fn bury(&self, tombstone: &Tombstone) -> Result<()> {
        let tombstone = tombstone.clone();
        self.change(move |work| nodes::bury(work, tombstone)).await
    }

    /// Counts `by` as time that the service has run since the last time this was called: nothing is
    /// deleted for good by the wall clock alone. Costs nothing where nothing waits for it.
    ///
    /// # Errors
    /// As any change; then nothing is counted.
    pub async fn age(&self, by: Duration) -> Result<()> {
        let waits = |tombstone: &Tombstone| !tombstone.left.is_zero();
        if !self.shared.memory().tombstones.values().any(waits) {
            return Ok(());
        }
        self.change(move |work| nodes::age(work, by)).await
    }

    /// Forgets a tombstone, and says which.
    ///
    /// # Errors
    /// As any change.
    pub async fn exhume(&self, subject: &str) -> Result<Option<Tombstone>> {
        let subject = subject.to_owned();
        self.change(move |work| nodes::exhume(work, &subject)).await
    }
}
