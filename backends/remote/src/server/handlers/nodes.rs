//! Nodes: which there are, and what to do with one that was stolen.

use std::sync::Arc;

use keyhaul_core::Result;

use super::super::call::Call;
use super::Query;
use super::grants::node;
use crate::protocol::NodeRequest;

/// Nodes, of which a manager of some scopes sees those that hold one of them, and no more of them.
pub(super) async fn nodes(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let (state, page) = (&call.shared().state, query.page()?);
    let result = if call.identity.covers_all() {
        state.nodes(&page).await
    } else {
        Ok(state.nodes_of(&page, &|scope| call.identity.covers(scope)))
    };
    call.looked(call.entry(None), result).await
}

/// Takes everything from a node.
pub(super) async fn quarantine(call: &Arc<Call>, request: NodeRequest) -> Result<Vec<u8>> {
    let mut entry = call.entry(None);
    entry.node = Some(node(&request.node)?);
    call.reach_all(&entry).await?;
    let state = Arc::clone(&call.shared().state);
    let after = Arc::clone(&state);
    let change = async move { state.quarantine(&request.node).await };
    call.changed(
        entry,
        |_| change,
        move |_, entry| {
            entry.epoch = Some(after.epoch());
        },
    )
    .await
}

/// Lets a node be granted again.
pub(super) async fn release(call: &Arc<Call>, request: NodeRequest) -> Result<Vec<u8>> {
    let mut entry = call.entry(None);
    entry.node = Some(node(&request.node)?);
    call.reach_all(&entry).await?;
    let state = Arc::clone(&call.shared().state);
    let after = Arc::clone(&state);
    let change = async move { state.release(&request.node).await };
    call.changed(
        entry,
        |_| change,
        move |_, entry| {
            entry.epoch = Some(after.epoch());
        },
    )
    .await
}
