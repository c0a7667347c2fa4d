//! Changes of grants.

use keyhaul_core::{Error, ErrorKind, Result};
use rusqlite::{OptionalExtension, params};

use super::database::{self, GRANT, Worded, rows};
use super::memory::Change;
use super::time::timestamp;
use super::writer::Work;
use super::{Ended, names, tickets};
use crate::protocol::{Grant, GrantRequest, RevokeAnswer, RevokeRequest, check_node_name};

/// Gives a grant. The same again changes nothing; other terms replace the old.
pub(super) fn give(work: &mut Work<'_>, by: &str, request: &GrantRequest) -> Result<Grant> {
    let (scope, node) = (request.scope.as_str(), request.node.as_str());
    names::scope(scope)?;
    check_node_name(node)?;
    let names = names::patterns(scope, &request.names)?;
    let expires = names::end(request.expires, work.now)?;
    refuse_quarantined(work, node)?;
    let running = tickets::running(work, scope)?;
    if let Some(ticket) = &running
        && ticket.to == node
    {
        let message =
            format!("{scope} is migrating to {node}: what it may read then is the source's");
        return Err(Error::new(ErrorKind::Conflict, message)
            .with_advice(format!("commit or abort the migration {} first", ticket.id)));
    }
    let held = find(work, scope, node)?;
    if let Some(held) = &held
        && held.names == names
        && held.expires.map(|expires| expires.as_microsecond()) == expires
    {
        return Ok(held.clone());
    }
    if let Some(expected) = request.if_epoch {
        let epoch = held.map_or(0, |held| held.epoch);
        refuse_other(scope, node, expected, epoch)?;
    }
    let grant = Grant {
        scope: scope.into(),
        node: node.into(),
        names,
        expires: expires.map(timestamp),
        epoch: 0,
        created: timestamp(work.now),
        by: by.into(),
        migration: None,
    };
    let grant = put(work, grant)?;
    // The target reads what the source does: other terms are for both.
    if let Some(ticket) = running
        && ticket.from == node
        && let Some(target) = find(work, scope, &ticket.to)?
    {
        let (names, expires) = (grant.names.clone(), grant.expires);
        put(
            work,
            Grant {
                names,
                expires,
                ..target
            },
        )?;
    }
    Ok(grant)
}

/// Takes a grant away, whatever migration it belongs to. Where there is none, changes nothing.
pub(super) fn revoke(work: &mut Work<'_>, request: &RevokeRequest) -> Result<RevokeAnswer> {
    let (scope, node) = (request.scope.as_str(), request.node.as_str());
    names::scope(scope)?;
    check_node_name(node)?;
    if let Some(expected) = request.if_epoch
        && let Some(held) = find(work, scope, node)?
    {
        refuse_other(scope, node, expected, held.epoch)?;
    }
    let revoked = take(work, scope, node)?;
    Ok(RevokeAnswer {
        revoked,
        epoch: work.epoch.cast_unsigned(),
    })
}

/// Refuses a change that is meant for another grant than the one that is held; 0 stands for none.
fn refuse_other(scope: &str, node: &str, expected: u64, epoch: u64) -> Result<()> {
    let message = match (expected, epoch) {
        (expected, epoch) if expected == epoch => return Ok(()),
        (0, _) => format!("{node} holds a grant of {scope} already, of epoch {epoch}"),
        (_, 0) => format!("{node} no longer holds the grant of {scope} of epoch {expected}"),
        _ => format!("the grant of {scope} to {node} has epoch {epoch} by now, not {expected}"),
    };
    Err(
        Error::new(ErrorKind::Conflict, message).with_advice(format!(
            "somebody else has changed it: keyhaul grants --scope {scope} --node {node}"
        )),
    )
}

/// Refuses what would be given to a quarantined node.
pub(super) fn refuse_quarantined(work: &Work<'_>, node: &str) -> Result<()> {
    let sql = "SELECT quarantined FROM nodes WHERE node = ? AND quarantined IS NOT NULL";
    let since: Option<i64> = work
        .db
        .query_row(sql, [node], |row| row.get(0))
        .optional()
        .worded()?;
    let Some(since) = since else { return Ok(()) };
    let message = format!("{node} is quarantined since {:.0}", timestamp(since));
    Err(
        Error::new(ErrorKind::Conflict, message).with_advice(format!(
            "once it is known to be sound, and has a new certificate: keyhaul node release {node}"
        )),
    )
}

/// The grant of `scope` that `node` holds. What has expired is no longer there.
pub(super) fn find(work: &Work<'_>, scope: &str, node: &str) -> Result<Option<Grant>> {
    let sql = format!("SELECT {GRANT} FROM grants WHERE scope = ? AND node = ?");
    work.db
        .query_row(&sql, [scope, node], database::grant)
        .optional()
        .worded()
}

/// Writes a grant in place of the old, with an epoch of its own.
pub(super) fn put(work: &mut Work<'_>, mut grant: Grant) -> Result<Grant> {
    let epoch = work.next_epoch();
    grant.epoch = epoch.cast_unsigned();
    let names = serde_json::to_string(&grant.names).map_err(|error| {
        let message = "a grant's names cannot be put in words";
        Error::new(ErrorKind::Internal, message).with_source(error)
    })?;
    let known = "INSERT INTO nodes (node) VALUES (?) ON CONFLICT DO NOTHING";
    work.db.execute(known, [&grant.node]).worded()?;
    let sql = format!("INSERT OR REPLACE INTO grants ({GRANT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    let row = params![
        grant.scope,
        grant.node,
        names,
        grant.expires.map(|expires| expires.as_microsecond()),
        epoch,
        grant.created.as_microsecond(),
        grant.by,
        grant.migration,
    ];
    work.db.execute(&sql, row).worded()?;
    work.changes.push(Change::Granted(grant.clone()));
    Ok(grant)
}

/// Removes a grant; false where there is none.
pub(super) fn take(work: &mut Work<'_>, scope: &str, node: &str) -> Result<bool> {
    let sql = "DELETE FROM grants WHERE scope = ? AND node = ?";
    if work.db.execute(sql, [scope, node]).worded()? == 0 {
        return Ok(false);
    }
    work.next_epoch();
    let (scope, node) = (scope.to_owned(), node.to_owned());
    work.changes.push(Change::Revoked { scope, node });
    Ok(true)
}

/// Removes what has expired. Each grant said so from its beginning: no epoch is spent.
pub(super) fn sweep(work: &mut Work<'_>) -> Result<()> {
    let sql = format!("DELETE FROM grants WHERE expires <= ? RETURNING {GRANT}");
    for grant in rows(work.db, &sql, [work.now], database::grant)? {
        let (scope, node) = (grant.scope.clone(), grant.node.clone());
        work.changes.push(Change::Revoked { scope, node });
        let id = format!("{}/{}#{}", grant.scope, grant.node, grant.epoch);
        work.notice(id, Ended::Grant(grant))?;
    }
    Ok(())
}
