//! What happens by itself: tickets end, and what is buffered is written down. No store is asked here:
//! one that hangs would hold up the alarms.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Shared;
use super::audit::Entry;
use crate::protocol::{Ticket, TicketState};

const EVERY: Duration = Duration::from_secs(1);
/// How many rounds lie between two writings of what is buffered.
const FLUSH: u64 = 5;
/// Who the audit says it was.
pub(super) const ACTOR: &str = "service";

/// Keeps house until the end begins.
pub(super) async fn run(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    for round in 0u64.. {
        expire(&shared).await;
        if round % FLUSH == 0
            && let Err(error) = shared.state.flush().await
        {
            tracing::error!(%error, "what is buffered cannot be written down");
        }
        let over = ended.wait_for(|ended| *ended);
        // A sender that is gone is an end too: only the time is a reason to go on.
        if timeout(EVERY, over).await.is_ok() {
            return;
        }
    }
}

/// Tells of tickets that ended by themselves, and loudly of those that somebody has to decide.
async fn expire(shared: &Shared) {
    let tickets = match shared.state.expire().await {
        Ok(tickets) => tickets,
        Err(error) => return tracing::error!(%error, "tickets cannot be looked through"),
    };
    for ticket in &tickets {
        if ticket.state == TicketState::Undecided {
            tracing::error!(
                scope = ticket.scope,
                from = ticket.from,
                to = ticket.to,
                migration = ticket.id,
                "a migration is undecided: the guest may run on either node; commit or abort it"
            );
        } else {
            tracing::warn!(
                scope = ticket.scope,
                to = ticket.to,
                migration = ticket.id,
                "a migration ended by itself: its target had fetched nothing"
            );
        }
    }
    let entries: Vec<Entry> = tickets.iter().map(|ticket| entry(shared, ticket)).collect();
    if !entries.is_empty() {
        // It has been logged, and so has the failure; the tickets stand as they are.
        let _ = shared.record(entries).await;
    }
}

fn entry(shared: &Shared, ticket: &Ticket) -> Entry {
    let (outcome, reason) = match ticket.state {
        TicketState::Undecided => (
            "undecided",
            "the target had fetched: the guest may run on either",
        ),
        _ => ("expired", "the target had fetched nothing"),
    };
    Entry {
        request: shared.fresh_id().into(),
        actor: ACTOR.into(),
        role: None,
        peer: "".into(),
        operation: "migrate-expire",
        subject: Some(ticket.scope.clone()),
        node: Some(ticket.to.as_str().into()),
        outcome,
        reason: Some(reason.into()),
        version: None,
        epoch: None,
        migration: Some(ticket.id.clone()),
    }
}
