//! What each operation does: one file per theme.

mod audit;
mod grants;
mod migrations;
mod nodes;
mod query;
mod read;
mod secrets;
mod service;
mod stat;

use std::sync::Arc;

use keyhaul_core::Result;

use super::call::Call;
use super::guard::Operation;
use super::http::parse;
use query::Query;

/// Does what is asked. The answer's body is JSON.
///
/// # Errors
/// Whatever went wrong, fit for the caller; the audit has the rest.
pub(super) async fn answer(call: Arc<Call>, query: &str, body: &[u8]) -> Result<Vec<u8>> {
    match call.operation {
        Operation::Read => read::read(&call, &parse(body)?).await,
        // Apart, so that reads do not carry the room that these need.
        _ => Box::pin(other(&call, query, body)).await,
    }
}

async fn other(call: &Arc<Call>, query: &str, body: &[u8]) -> Result<Vec<u8>> {
    let query = |known| Query::parse(query, known);
    match call.operation {
        Operation::Read => read::read(call, &parse(body)?).await,
        Operation::Stat => stat::stat(call, &parse(body)?).await,
        Operation::Service => service::service(call, query(&[])?).await,
        Operation::OpenApi => service::openapi(query(&[])?),
        Operation::Write => secrets::write(call, parse(body)?).await,
        Operation::Generate => secrets::generate(call, parse(body)?).await,
        Operation::Delete => secrets::delete(call, parse(body)?).await,
        Operation::Restore => secrets::restore(call, parse(body)?).await,
        Operation::List => {
            let known = &["prefix", "shallow", "limit", "after"];
            secrets::list(call, query(known)?).await
        }
        Operation::Grants => {
            let known = &["scope", "node", "limit", "after"];
            grants::grants(call, query(known)?).await
        }
        Operation::Grant => grants::grant(call, parse(body)?).await,
        Operation::Revoke => grants::revoke(call, parse(body)?).await,
        Operation::WhoCan => grants::who_can(call, query(&["secret"])?).await,
        Operation::WhatCan => grants::what_can(call, query(&["node"])?).await,
        Operation::Migrations => {
            let known = &["scope", "state", "limit", "after"];
            migrations::tickets(call, query(known)?).await
        }
        Operation::Begin => migrations::begin(call, parse(body)?).await,
        Operation::Commit | Operation::Abort => migrations::end(call, parse(body)?).await,
        Operation::Nodes => nodes::nodes(call, query(&["limit", "after"])?).await,
        Operation::Quarantine => nodes::quarantine(call, parse(body)?).await,
        Operation::Release => nodes::release(call, parse(body)?).await,
        Operation::Audit => audit::audit(call, query(&["after", "limit"])?).await,
    }
}
