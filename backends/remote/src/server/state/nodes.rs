//! Nodes: what they have fetched, and their quarantine.

use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result};
use rusqlite::{OptionalExtension, Row, params};

use super::database::{self, GRANT, TOMBSTONE, Worded, rows, tombstone};
use super::memory::Change;
use super::time::timestamp;
use super::writer::{Buffer, Work};
use super::{Tombstone, grants, names};
use crate::protocol::{Fetch, Grant, Node, NodesAnswer};

const NODE: &str = "node, quarantined, (SELECT count(*) FROM grants WHERE grants.node = nodes.node), \
                    (SELECT max(last) FROM fetches WHERE fetches.node = nodes.node)";

/// Takes everything from a node; what it held.
pub(super) fn quarantine(work: &mut Work<'_>, node: &str) -> Result<Vec<Grant>> {
    names::node(node)?;
    let sql = format!("SELECT {GRANT} FROM grants WHERE node = ? ORDER BY scope");
    let held = rows(work.db, &sql, [node], database::grant)?;
    for grant in &held {
        grants::take(work, &grant.scope, node)?;
    }
    let sql = "INSERT INTO nodes (node, quarantined) VALUES (?1, ?2) \
               ON CONFLICT DO UPDATE SET quarantined = coalesce(quarantined, ?2) RETURNING quarantined";
    let since = work
        .db
        .query_row(sql, params![node, work.now], |row| row.get(0))
        .worded()?;
    let change = Change::Quarantined(node.into(), Some(timestamp(since)));
    work.changes.push(change);
    Ok(held)
}

/// Lets a node be granted again.
pub(super) fn release(work: &mut Work<'_>, node: &str) -> Result<Node> {
    names::node(node)?;
    let sql = "UPDATE nodes SET quarantined = NULL WHERE node = ?";
    work.db.execute(sql, [node]).worded()?;
    work.changes.push(Change::Quarantined(node.into(), None));
    let sql = format!("SELECT {NODE} FROM nodes WHERE node = ?");
    let found = work.db.query_row(&sql, [node], read).optional().worded()?;
    found.ok_or_else(|| {
        let message = format!("no node {node} ever held a grant or fetched something");
        Error::new(ErrorKind::NotFound, message)
            .with_advice("`keyhaul node list` shows those that did")
    })
}

/// Everything that a node has fetched, by name.
pub(super) fn fetched(work: &Work<'_>, node: &str) -> Result<Vec<Fetch>> {
    let sql =
        "SELECT secret, version, first, last, count FROM fetches WHERE node = ? ORDER BY secret";
    rows(work.db, sql, [node], |row| {
        Ok(Fetch {
            secret: row.get(0)?,
            version: row.get(1)?,
            first: timestamp(row.get(2)?),
            last: timestamp(row.get(3)?),
            count: row.get::<_, i64>(4)?.cast_unsigned(),
        })
    })
}

/// A page of nodes, by name.
pub(super) fn page(work: &Work<'_>, limit: usize, after: Option<&str>) -> Result<NodesAnswer> {
    let sql = format!("SELECT {NODE} FROM nodes WHERE node > ? ORDER BY node LIMIT ?");
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut nodes = rows(work.db, &sql, params![after.unwrap_or(""), more], read)?;
    let next = nodes.len() > limit;
    nodes.truncate(limit);
    Ok(NodesAnswer {
        next: match nodes.last() {
            Some(last) if next => Some(last.node.clone()),
            _ => None,
        },
        nodes,
    })
}

/// Writes down what was fetched, with the audit's record up to which that is so.
pub(super) fn index(db: &rusqlite::Connection, buffer: &Buffer) -> Result<()> {
    let mut known = db
        .prepare("INSERT INTO nodes (node) VALUES (?) ON CONFLICT DO NOTHING")
        .worded()?;
    let mut add = db
        .prepare(
            "INSERT INTO fetches (node, secret, version, first, last, count) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET version = excluded.version, last = excluded.last, \
             count = count + excluded.count",
        )
        .worded()?;
    for (node, secrets) in &buffer.fetches {
        known.execute([&**node]).worded()?;
        for (secret, seen) in secrets {
            let row = params![
                &**node,
                secret,
                seen.version,
                seen.first,
                seen.last,
                seen.count
            ];
            add.execute(row).worded()?;
        }
    }
    if let Some(head) = &buffer.head {
        let sql = "INSERT OR REPLACE INTO anchor VALUES (1, ?, ?)";
        let row = params![head.sequence.cast_signed(), head.hash];
        db.execute(sql, row).worded()?;
    }
    Ok(())
}

/// Remembers a deletion.
pub(super) fn bury(work: &mut Work<'_>, tombstone: Tombstone) -> Result<()> {
    let sql = format!("INSERT OR REPLACE INTO tombstones ({TOMBSTONE}) VALUES (?, ?, ?, ?, ?)");
    let until = tombstone.until.as_microsecond();
    let row = params![
        tombstone.subject,
        tombstone.version,
        tombstone.created.to_string(),
        until,
        micros(tombstone.left),
    ];
    work.db.execute(&sql, row).worded()?;
    let until = timestamp(until);
    work.changes
        .push(Change::Buried(Tombstone { until, ..tombstone }));
    Ok(())
}

/// Counts time that the service has run.
pub(super) fn age(work: &mut Work<'_>, by: Duration) -> Result<()> {
    let sql = "UPDATE tombstones SET remaining = max(0, remaining - ?) WHERE remaining > 0";
    work.db.execute(sql, [micros(by)]).worded()?;
    work.changes.push(Change::Aged(by));
    Ok(())
}

/// Forgets a deletion.
pub(super) fn exhume(work: &mut Work<'_>, subject: &str) -> Result<Option<Tombstone>> {
    let sql = format!("DELETE FROM tombstones WHERE subject = ? RETURNING {TOMBSTONE}");
    let found = rows(work.db, &sql, [subject], tombstone);
    let found = found?.pop();
    if found.is_some() {
        work.changes.push(Change::Exhumed(subject.into()));
    }
    Ok(found)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Node> {
    Ok(Node {
        node: row.get(0)?,
        quarantined: row.get::<_, Option<i64>>(1)?.map(timestamp),
        grants: row.get::<_, i64>(2)?.cast_unsigned(),
        last_fetch: row.get::<_, Option<i64>>(3)?.map(timestamp),
    })
}
