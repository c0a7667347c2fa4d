//! What happens by itself: tickets end, and what is buffered is written down. No store is asked here:
//! one that hangs would hold up the alarms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::audit::Entry;
use super::state::Ended;
use crate::protocol::TicketState;

const EVERY: Duration = Duration::from_secs(1);
/// How many rounds lie between two writings of what is buffered.
const FLUSH: u64 = 5;
/// How many rounds lie between two looks at the age of the revocation lists: an hour.
const LISTS: u64 = 3600;
/// How many notices share a write of the audit.
const AT_ONCE: usize = 256;
/// Who the audit says it was.
pub(super) const ACTOR: &str = "service";

/// Keeps house until the end begins, whatever a disk is at then: what was not told is told after
/// the next start.
pub(super) async fn run(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    let rounds = rounds(&shared);
    // A sender that is gone is an end too.
    let over = ended.wait_for(|ended| *ended);
    tokio::pin!(rounds, over);
    select(rounds, over).await;
}

async fn rounds(shared: &Shared) {
    for round in 0u64.. {
        expire(shared).await;
        if round % FLUSH == 0
            && let Err(error) = shared.state.flush().await
        {
            tracing::error!(%error, "what is buffered cannot be written down");
        }
        // Loading them has looked, too.
        if round % LISTS == LISTS - 1 {
            shared.live().tls.warn();
        }
        sleep(EVERY).await;
    }
}

/// Tells of what ended by itself, and loudly of tickets that somebody has to decide. What the audit
/// could not take is told again in the next round.
async fn expire(shared: &Shared) {
    let notices = match shared.state.expire().await {
        Ok(notices) => notices,
        Err(error) => return tracing::error!(%error, "tickets cannot be looked through"),
    };
    for notices in notices.chunks(AT_ONCE) {
        let entries = notices.iter().map(|notice| entry(shared, &notice.ended));
        // The failure has been logged.
        if shared.record(entries.collect()).await.is_err() {
            return;
        }
        notices.iter().for_each(|notice| warn(&notice.ended));
        let ids = notices.iter().map(|notice| notice.id.clone()).collect();
        if let Err(error) = shared.state.told(ids).await {
            tracing::error!(%error, "what was told is told once more after the next start");
        }
    }
}

fn warn(ended: &Ended) {
    match ended {
        Ended::Ticket(ticket) if ticket.state == TicketState::Undecided => tracing::error!(
            scope = ticket.scope,
            from = ticket.from,
            to = ticket.to,
            migration = ticket.id,
            "a migration is undecided: the guest may run on either node; commit or abort it"
        ),
        Ended::Ticket(ticket) => tracing::warn!(
            scope = ticket.scope,
            to = ticket.to,
            migration = ticket.id,
            "a migration ended by itself: its target had fetched nothing"
        ),
        Ended::Grant(grant) => {
            tracing::info!(scope = grant.scope, node = grant.node, "a grant expired");
        }
    }
}

fn entry(shared: &Shared, ended: &Ended) -> Entry {
    let (operation, scope, node, migration) = match ended {
        Ended::Grant(grant) => (
            "grant-expire",
            &grant.scope,
            &grant.node,
            grant.migration.clone(),
        ),
        Ended::Ticket(ticket) => (
            "migrate-expire",
            &ticket.scope,
            &ticket.to,
            Some(ticket.id.clone()),
        ),
    };
    let (outcome, reason) = match ended {
        Ended::Grant(_) => ("expired", "the grant's time was over"),
        Ended::Ticket(ticket) if ticket.state == TicketState::Undecided => (
            "undecided",
            "the target had fetched: the guest may run on either",
        ),
        Ended::Ticket(_) => ("expired", "the target had fetched nothing"),
    };
    Entry {
        request: shared.fresh_id().into(),
        actor: ACTOR.into(),
        role: None,
        peer: "".into(),
        operation,
        subject: Some(scope.clone()),
        node: Some(node.as_str().into()),
        outcome,
        reason: Some(reason.into()),
        version: None,
        epoch: match ended {
            Ended::Grant(grant) => Some(grant.epoch),
            Ended::Ticket(_) => None,
        },
        migration,
        terms: serde_json::Map::new(),
    }
}
