//! Nodes: which there are, and what to do with one that was stolen.

use std::sync::Arc;

use keyhaul_core::Result;

use super::super::call::Call;
use super::Query;
use super::grants::{covered, node};
use crate::protocol::{NodeRequest, NodesAnswer};

/// Nodes, of which a manager of some scopes sees those that hold one of them, and no more of them.
pub(super) async fn nodes(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let state = &call.shared().state;
    let result = state.nodes(&query.page()?).await;
    let result = result.map(|mut answer: NodesAnswer| {
        if !call.identity.covers_all() {
            answer.nodes.retain_mut(|node| {
                let held = covered(call, state.what_can(&node.node)).len();
                node.grants = held as u64;
                node.last_fetch = None;
                held > 0
            });
        }
        answer
    });
    call.looked(call.entry(None), result).await
}

/// Takes everything from a node.
pub(super) async fn quarantine(call: &Arc<Call>, request: NodeRequest) -> Result<Vec<u8>> {
    let mut entry = call.entry(None);
    entry.node = Some(node(&request.node)?);
    call.reach_all(&entry).await?;
    let state = Arc::clone(&call.shared().state);
    let change = async move { state.quarantine(&request.node).await };
    call.changed(entry, change, |_, _| {}).await
}

/// Lets a node be granted again.
pub(super) async fn release(call: &Arc<Call>, request: NodeRequest) -> Result<Vec<u8>> {
    let mut entry = call.entry(None);
    entry.node = Some(node(&request.node)?);
    call.reach_all(&entry).await?;
    let state = Arc::clone(&call.shared().state);
    let change = async move { state.release(&request.node).await };
    call.changed(entry, change, |_, _| {}).await
}
