//! Nodes: what they have fetched, and their quarantine.

use keyhaul_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::database::{self, GRANT, Worded, rows};
use super::memory::Change;
use super::time::timestamp;
use super::writer::{Buffer, Work};
use super::{grants, tickets};
use crate::protocol::{Fetch, Node, NodesAnswer, QuarantineAnswer, check_node_name};

/// With the time as `?1`: what has expired and was not taken away yet does not count.
const NODE: &str = "node, quarantined, (SELECT count(*) FROM grants WHERE grants.node = nodes.node \
                    AND (grants.expires IS NULL OR grants.expires > ?1)), \
                    (SELECT max(last) FROM fetches WHERE fetches.node = nodes.node)";

/// Takes everything from a node, and says what it was, as far as the file knows.
pub(super) fn quarantine(work: &mut Work<'_>, node: &str) -> Result<QuarantineAnswer> {
    check_node_name(node)?;
    let known = "SELECT EXISTS (SELECT 1 FROM nodes WHERE node = ?)";
    let known = work
        .db
        .query_row(known, [node], |row| row.get(0))
        .worded()?;
    let sql = format!("SELECT {GRANT} FROM grants WHERE node = ? ORDER BY scope");
    let revoked = rows(work.db, &sql, [node], database::grant)?;
    for grant in &revoked {
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
    // Even where it held nothing: an older state is known by its epoch.
    work.next_epoch();
    Ok(QuarantineAnswer {
        node: node.into(),
        known,
        revoked,
        fetched: fetched(work.db, node)?,
        tickets: tickets::running_at(work.db, node)?,
    })
}

/// Lets a node be granted again.
pub(super) fn release(work: &mut Work<'_>, node: &str) -> Result<Node> {
    check_node_name(node)?;
    let sql = "UPDATE nodes SET quarantined = NULL WHERE node = ?";
    work.db.execute(sql, [node]).worded()?;
    work.changes.push(Change::Quarantined(node.into(), None));
    work.next_epoch();
    let sql = format!("SELECT {NODE} FROM nodes WHERE node = ?2");
    let found = work
        .db
        .query_row(&sql, params![work.now, node], read)
        .optional()
        .worded()?;
    found.ok_or_else(|| {
        let message = format!("no node {node} ever held a grant or fetched something");
        Error::new(ErrorKind::NotFound, message)
            .with_advice("`keyhaul node list` shows those that did")
    })
}

/// Everything that a node has fetched, by name.
pub(super) fn fetched(db: &Connection, node: &str) -> Result<Vec<Fetch>> {
    let sql =
        "SELECT secret, version, first, last, count FROM fetches WHERE node = ? ORDER BY secret";
    rows(db, sql, [node], |row| {
        Ok(Fetch {
            secret: row.get(0)?,
            version: row.get(1)?,
            first: timestamp(row.get(2)?),
            last: timestamp(row.get(3)?),
            count: row.get::<_, i64>(4)?.cast_unsigned(),
        })
    })
}

/// Adds what was fetched and is not in the file yet.
pub(super) fn add_buffered(fetched: &mut Vec<Fetch>, buffer: &Buffer, node: &str) {
    for (secret, seen) in buffer.fetches.get(node).into_iter().flatten() {
        let at = fetched.binary_search_by(|fetch| fetch.secret.cmp(secret));
        match at {
            Ok(at) => {
                let fetch = &mut fetched[at];
                fetch.version.clone_from(&seen.version);
                fetch.last = timestamp(seen.last);
                fetch.count += seen.count.cast_unsigned();
            }
            Err(at) => fetched.insert(
                at,
                Fetch {
                    secret: secret.clone(),
                    version: seen.version.clone(),
                    first: timestamp(seen.first),
                    last: timestamp(seen.last),
                    count: seen.count.cast_unsigned(),
                },
            ),
        }
    }
}

/// A page of nodes, by name.
pub(super) fn page(
    db: &Connection,
    now: i64,
    limit: usize,
    after: Option<&str>,
) -> Result<NodesAnswer> {
    let sql = format!("SELECT {NODE} FROM nodes WHERE node > ?2 ORDER BY node LIMIT ?3");
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut nodes = rows(db, &sql, params![now, after.unwrap_or(""), more], read)?;
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

/// Forgets what was told.
pub(super) fn told(work: &mut Work<'_>, ids: Vec<String>) -> Result<()> {
    for id in &ids {
        let sql = "DELETE FROM untold WHERE id = ?";
        work.db.execute(sql, [id]).worded()?;
    }
    work.told.extend(ids);
    Ok(())
}

/// Writes down what was fetched, with the audit's record up to which that is so.
pub(super) fn index(db: &Connection, buffer: &Buffer) -> Result<()> {
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

fn read(row: &Row<'_>) -> rusqlite::Result<Node> {
    Ok(Node {
        node: row.get(0)?,
        quarantined: row.get::<_, Option<i64>>(1)?.map(timestamp),
        grants: row.get::<_, i64>(2)?.cast_unsigned(),
        last_fetch: row.get::<_, Option<i64>>(3)?.map(timestamp),
    })
}
