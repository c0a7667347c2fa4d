//! Migrations: a scope that moves from one node to another.

use std::sync::Arc;

use keyhaul_core::Result;
use serde_json::json;

use super::super::audit::Entry;
use super::super::call::Call;
use super::super::failure::invalid;
use super::super::guard::Operation;
use super::Query;
use super::grants::node;
use crate::protocol::{BeginRequest, EndRequest, Ticket, TicketState};

/// Tickets of the manager's scopes.
pub(super) async fn tickets(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let scope = query.text("scope");
    let state = query.text("state").map(state).transpose()?;
    let entry = call.entry(scope.map(str::to_owned));
    if let Some(scope) = scope {
        call.scope(scope)?;
        call.reach(scope, &entry).await?;
    }
    let page = query.page()?;
    let identity = Arc::clone(&call.identity);
    let covers = move |scope: &str| identity.covers(scope);
    let result = call.shared().state.tickets(scope, state, &page, covers);
    let result = result.await;
    call.looked(entry, result).await
}

/// Lets the target read too, for a while.
pub(super) async fn begin(call: &Arc<Call>, request: BeginRequest) -> Result<Vec<u8>> {
    call.scope(&request.scope)?;
    node(&request.from)?;
    let mut entry = call.entry(Some(request.scope.clone()));
    entry.node = Some(node(&request.to)?);
    entry.term("from", json!(request.from));
    entry.term("to", json!(request.to));
    entry.term("seconds", request.seconds.map(|seconds| json!(seconds)));
    call.reach(&request.scope, &entry).await?;
    let state = Arc::clone(&call.shared().state);
    let by = Arc::clone(&call.identity.uri);
    let after = Arc::clone(&state);
    let change = async move { state.begin(&by, &request).await };
    call.changed(
        entry,
        |_| change,
        move |ticket, entry| {
            note(ticket, entry);
            entry.epoch = Some(after.epoch());
        },
    )
    .await
}

/// Commits or aborts.
pub(super) async fn end(call: &Arc<Call>, request: EndRequest) -> Result<Vec<u8>> {
    if let Some(scope) = &request.scope {
        call.scope(scope)?;
        call.reach(scope, &call.entry(Some(scope.clone()))).await?;
    }
    let state = Arc::clone(&call.shared().state);
    let ticket = state.ticket(&request).await?;
    let mut entry = call.entry(None);
    note(&ticket, &mut entry);
    call.reach(&ticket.scope, &entry).await?;
    let is_commit = call.operation == Operation::Commit;
    // By its id: another migration of the scope may begin meanwhile.
    let request = EndRequest {
        id: Some(ticket.id),
        scope: None,
        from: None,
        to: None,
    };
    let after = Arc::clone(&state);
    let change = async move {
        if is_commit {
            state.commit(&request).await
        } else {
            state.abort(&request).await
        }
    };
    call.changed(
        entry,
        |_| change,
        move |ticket, entry| {
            note(ticket, entry);
            entry.epoch = Some(after.epoch());
        },
    )
    .await
}

fn note(ticket: &Ticket, entry: &mut Entry) {
    entry.subject = Some(ticket.scope.clone());
    entry.node = Some(ticket.to.as_str().into());
    entry.migration = Some(ticket.id.clone());
}

fn state(text: &str) -> Result<TicketState> {
    match text {
        "open" => Ok(TicketState::Open),
        "undecided" => Ok(TicketState::Undecided),
        "committed" => Ok(TicketState::Committed),
        "aborted" => Ok(TicketState::Aborted),
        "expired" => Ok(TicketState::Expired),
        _ => Err(invalid(
            "`state` is open, undecided, committed, aborted or expired",
        )),
    }
}
