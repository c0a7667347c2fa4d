//! Who may read what.

use std::sync::Arc;

use keyhaul_core::Result;
use serde_json::json;

use super::super::call::Call;
use super::Query;
use crate::protocol::{
    Grant, GrantRequest, GrantsAnswer, RevokeAnswer, RevokeRequest, check_node_name,
};

/// Grants of the manager's scopes.
pub(super) async fn grants(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let (scope, of) = (query.text("scope"), query.text("node"));
    let mut entry = call.entry(scope.map(str::to_owned));
    if let Some(of) = of {
        entry.node = Some(node(of)?);
    }
    if let Some(scope) = scope {
        call.scope(scope)?;
        call.reach(scope, &entry).await?;
    }
    let covers = |scope: &str| call.identity.covers(scope);
    let result = call
        .shared()
        .state
        .grants(scope, of, &query.page()?, &covers);
    call.looked(entry, result).await
}

/// Grants a scope.
pub(super) async fn grant(call: &Arc<Call>, request: GrantRequest) -> Result<Vec<u8>> {
    call.scope(&request.scope)?;
    let mut entry = call.entry(Some(request.scope.clone()));
    entry.node = Some(node(&request.node)?);
    if !request.names.is_empty() {
        entry.term("names", json!(request.names));
    }
    entry.term("expires", request.expires.map(|expires| json!(expires)));
    entry.term("if_epoch", request.if_epoch.map(|epoch| json!(epoch)));
    call.reach(&request.scope, &entry).await?;
    let state = Arc::clone(&call.shared().state);
    let by = Arc::clone(&call.identity.uri);
    let change = async move { state.grant(&by, &request).await };
    call.changed(
        entry,
        |_| change,
        |grant: &Grant, entry| {
            entry.epoch = Some(grant.epoch);
            entry.migration.clone_from(&grant.migration);
        },
    )
    .await
}

/// Takes a grant away: from the next request on the node has it no more.
pub(super) async fn revoke(call: &Arc<Call>, request: RevokeRequest) -> Result<Vec<u8>> {
    call.scope(&request.scope)?;
    let mut entry = call.entry(Some(request.scope.clone()));
    entry.node = Some(node(&request.node)?);
    entry.term("if_epoch", request.if_epoch.map(|epoch| json!(epoch)));
    call.reach(&request.scope, &entry).await?;
    let state = Arc::clone(&call.shared().state);
    let change = async move { state.revoke(&request).await };
    call.changed(
        entry,
        |_| change,
        |answer: &RevokeAnswer, entry| {
            entry.epoch = Some(answer.epoch);
        },
    )
    .await
}

/// The grants by which somebody can read a secret.
pub(super) async fn who_can(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let reference = call.secret(query.needed("secret")?)?;
    let entry = call.entry(Some(reference.subject().to_owned()));
    call.reach(reference.scope(), &entry).await?;
    let grants = call.shared().state.who_can(&reference);
    call.looked(entry, Ok(GrantsAnswer { grants, next: None }))
        .await
}

/// What a node can read in the manager's scopes.
pub(super) async fn what_can(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let name = query.needed("node")?;
    let mut entry = call.entry(None);
    entry.node = Some(node(name)?);
    let grants = covered(call, call.shared().state.what_can(name));
    call.looked(entry, Ok(GrantsAnswer { grants, next: None }))
        .await
}

/// Those of the caller's scopes.
fn covered(call: &Call, mut grants: Vec<Grant>) -> Vec<Grant> {
    grants.retain(|grant| call.identity.covers(&grant.scope));
    grants
}

/// A node's name.
///
/// # Errors
/// `InvalidReference` where it is none.
pub(super) fn node(name: &str) -> Result<Arc<str>> {
    check_node_name(name)?;
    Ok(name.into())
}
