//! The audit's records, for operators.

use std::sync::Arc;

use keyhaul_core::Result;

use super::super::call::Call;
use super::super::failure::internal;
use super::Query;

/// Records of the scopes that the operator has.
pub(super) async fn audit(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let after = query.number("after")?.unwrap_or_default();
    let limit = query.limit()?;
    let log = Arc::clone(&call.shared().audit);
    let identity = Arc::clone(&call.identity);
    let read = tokio::task::spawn_blocking(move || {
        let keep = |subject: Option<&str>| {
            identity.covers_all()
                || subject.is_some_and(|subject| {
                    let scope = subject.split_once('/').map_or(subject, |(scope, _)| scope);
                    identity.covers(scope)
                })
        };
        log.read(after, limit, &keep)
    });
    let result = read
        .await
        .unwrap_or_else(|_| Err(internal("reading the audit ended early")));
    call.looked(call.entry(None), result).await
}
