//! The audit's records, for operators.

use std::sync::Arc;

use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::super::call::Call;
use super::super::failure::internal;
use super::Query;

/// How many read the audit at the same time: it is large, and on the disk that all wait for.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Records of the scopes that the operator has.
pub(super) async fn audit(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let after = query.number("after")?.unwrap_or_default();
    let limit = query.limit()?;
    let log = Arc::clone(&call.shared().audit);
    let identity = Arc::clone(&call.identity);
    let deadline = call.deadline.into();
    let turn = timeout_at(deadline, TURNS.acquire()).await;
    let turn = turn
        .map_err(|_| late())?
        .map_err(|_| internal("the service ends"))?;
    let read = tokio::task::spawn_blocking(move || {
        // Held until the reading is over, also where nobody waits for it any more.
        let _turn = turn;
        let keep = |subject: Option<&str>| {
            identity.covers_all()
                || subject.is_some_and(|subject| {
                    let scope = subject.split_once('/').map_or(subject, |(scope, _)| scope);
                    identity.covers(scope)
                })
        };
        log.read(after, limit, &keep)
    });
    let result = match timeout_at(deadline, read).await {
        Ok(read) => read.unwrap_or_else(|_| Err(internal("reading the audit ended early"))),
        Err(_) => Err(late()),
    };
    call.looked(call.entry(None), result).await
}

fn late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the audit could not be read in time: others read it, or its disk is slow",
    )
}
