//! The file: how it is opened, what stands in it, and its failures in words.

use std::path::Path;
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::memory::Change;
use super::time::timestamp;
use super::{Ended, Notice, Tombstone};
use crate::protocol::{AuditHead, Grant, Ticket, TicketState};

/// Marks the file as keyhaul's: "khst".
const APPLICATION: i64 = 0x6b68_7374;
/// The tables' version. A newer one is refused, an older one is brought up to it.
const VERSION: i64 = 1;

/// Times are microseconds since 1970.
const TABLES: &str = "
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch INTEGER NOT NULL,     -- of the latest change of a grant
        mark INTEGER NOT NULL       -- the greatest time seen
    ) STRICT;
    INSERT INTO meta VALUES (1, 0, 0);
    CREATE TABLE tickets (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        scope TEXT NOT NULL,
        source TEXT NOT NULL,
        target TEXT NOT NULL,
        state TEXT NOT NULL,
        fetched INTEGER NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        by TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX one_running ON tickets (scope) WHERE state IN ('open', 'undecided');
    CREATE INDEX by_scope ON tickets (scope, number);
    CREATE TABLE grants (
        scope TEXT NOT NULL,
        node TEXT NOT NULL,
        names TEXT NOT NULL,        -- a list in JSON
        expires INTEGER,
        epoch INTEGER NOT NULL,
        created INTEGER NOT NULL,
        by TEXT NOT NULL,
        migration TEXT REFERENCES tickets (id),
        PRIMARY KEY (scope, node)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX by_node ON grants (node);
    CREATE INDEX by_expiry ON grants (expires) WHERE expires IS NOT NULL;
    CREATE INDEX by_migration ON grants (migration) WHERE migration IS NOT NULL;
    CREATE TABLE nodes (
        node TEXT PRIMARY KEY,
        quarantined INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE fetches (
        node TEXT NOT NULL,
        secret TEXT NOT NULL,
        version TEXT,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (node, secret)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE anchor (           -- the audit's record up to which fetches are counted
        one INTEGER PRIMARY KEY CHECK (one = 1),
        sequence INTEGER NOT NULL,
        hash TEXT NOT NULL
    ) STRICT;
    CREATE TABLE tombstones (
        subject TEXT PRIMARY KEY,
        version TEXT NOT NULL,
        created TEXT NOT NULL,      -- RFC 3339, as exact as the store has it
        until INTEGER NOT NULL,
        remaining INTEGER NOT NULL       -- microseconds that the service has to run still
    ) STRICT, WITHOUT ROWID;
";

/// What came later, and is made where it is missing.
const LATER: &str = "
    CREATE TABLE IF NOT EXISTS untold ( -- what ended by itself, and the audit may not hold yet
        id TEXT PRIMARY KEY,
        ended TEXT NOT NULL             -- in JSON
    ) STRICT, WITHOUT ROWID;
";

pub(super) const GRANT: &str = "scope, node, names, expires, epoch, created, by, migration";
pub(super) const TICKET: &str = "id, scope, source, target, state, fetched, created, expires, by";
pub(super) const TOMBSTONE: &str = "subject, version, created, until, remaining";

/// Opens the file at `path` and makes its tables where it is new.
pub(super) fn open(path: &Path, busy: Duration) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let opened = Connection::open_with_flags(path, flags).and_then(|db| {
        db.busy_timeout(busy)?;
        // A log beside the file, forced to the disk with every commit.
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "trusted_schema", false)?;
        Ok(db)
    });
    let mut db = opened
        .worded()
        .map_err(|error| error.with_place(path.display()))?;
    prepare(&mut db).map_err(|error| error.with_place(path.display()))?;
    Ok(db)
}

fn prepare(db: &mut Connection) -> Result<()> {
    let behaviour = rusqlite::TransactionBehavior::Immediate;
    let transaction = db.transaction_with_behavior(behaviour).worded()?;
    let number = |pragma: &str| transaction.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id").worded()?;
    let version = number("PRAGMA user_version").worded()?;
    let tables = number("SELECT count(*) FROM sqlite_schema").worded()?;
    match (application, version, tables) {
        (APPLICATION, VERSION, _) => {
            transaction.execute_batch(LATER).worded()?;
            return transaction.commit().worded();
        }
        (0, 0, 0) => {}
        (APPLICATION, newer, _) if newer > VERSION => {
            let message = format!("the state is of version {newer}, this keyhaul knows {VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_advice("start the keyhaul that wrote it, or a newer one"));
        }
        _ => {
            let message = "the file is a database, but no state of a key service";
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_advice("name a file of its own as `state`"));
        }
    }
    transaction.execute_batch(TABLES).worded()?;
    transaction.execute_batch(LATER).worded()?;
    let marks = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}");
    transaction.execute_batch(&marks).worded()?;
    transaction.commit().worded()
}

/// Everything that memory holds, as changes to nothing, and what has to be told: what ended and
/// was not told yet, and all undecided tickets.
pub(super) fn load(db: &Connection) -> Result<(Vec<Change>, Vec<Notice>)> {
    let mut changes = Vec::new();
    let running = format!("SELECT {TICKET} FROM tickets WHERE state IN ('open', 'undecided')");
    let running = rows(db, &running, [], ticket)?;
    changes.extend(running.iter().cloned().map(Change::Ticket));
    let grants = rows(db, &format!("SELECT {GRANT} FROM grants"), [], grant)?;
    changes.extend(grants.into_iter().map(Change::Granted));
    let quarantined = "SELECT node, quarantined FROM nodes WHERE quarantined IS NOT NULL";
    let quarantined = rows(db, quarantined, [], |row| {
        Ok(Change::Quarantined(
            row.get(0)?,
            Some(timestamp(row.get(1)?)),
        ))
    })?;
    changes.extend(quarantined);
    let tombstones = format!("SELECT {TOMBSTONE} FROM tombstones");
    let tombstones = rows(db, &tombstones, [], tombstone)?;
    changes.extend(tombstones.into_iter().map(Change::TombstonePut));
    let undecided = running.into_iter();
    let undecided = undecided.filter(|ticket| ticket.state == TicketState::Undecided);
    let mut notices: Vec<Notice> = undecided
        .map(|ticket| Notice {
            id: ticket.id.clone(),
            ended: Ended::Ticket(ticket),
        })
        .collect();
    let untold = "SELECT id, ended FROM untold ORDER BY id";
    notices.extend(rows(db, untold, [], |row| {
        let (id, ended): (_, String) = (row.get(0)?, row.get(1)?);
        let ended = serde_json::from_str(&ended).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into())
        })?;
        Ok(Notice { id, ended })
    })?);
    Ok((changes, notices))
}

/// The epoch and the greatest time seen.
pub(super) fn meta(db: &Connection) -> Result<(i64, i64)> {
    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    db.query_row("SELECT epoch, mark FROM meta", [], row)
        .worded()
}

pub(super) fn anchor(db: &Connection) -> Result<Option<AuditHead>> {
    let found = rows(db, "SELECT sequence, hash FROM anchor", [], |row| {
        Ok(AuditHead {
            sequence: row.get::<_, i64>(0)?.cast_unsigned(),
            hash: row.get(1)?,
        })
    });
    Ok(found?.pop())
}

/// All rows of a query.
pub(super) fn rows<T>(
    db: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = db.prepare(sql).worded()?;
    let rows = statement.query_map(parameters, read).worded()?;
    rows.collect::<rusqlite::Result<_>>().worded()
}

/// A grant of the columns [`GRANT`].
pub(super) fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    let names: String = row.get(2)?;
    let names = serde_json::from_str(&names).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(Grant {
        scope: row.get(0)?,
        node: row.get(1)?,
        names,
        expires: row.get::<_, Option<i64>>(3)?.map(timestamp),
        epoch: row.get::<_, i64>(4)?.cast_unsigned(),
        created: timestamp(row.get(5)?),
        by: row.get(6)?,
        migration: row.get(7)?,
    })
}

/// A ticket of the columns [`TICKET`].
pub(super) fn ticket(row: &Row<'_>) -> rusqlite::Result<Ticket> {
    let state: String = row.get(4)?;
    let known = |candidate: &&TicketState| word(**candidate) == state;
    let state = STATES.iter().find(known).copied().ok_or_else(|| {
        let unknown = format!("no state of a migration: {state}");
        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, unknown.into())
    })?;
    Ok(Ticket {
        id: row.get(0)?,
        scope: row.get(1)?,
        from: row.get(2)?,
        to: row.get(3)?,
        state,
        fetched: row.get(5)?,
        created: timestamp(row.get(6)?),
        expires: timestamp(row.get(7)?),
        by: row.get(8)?,
    })
}

/// A tombstone of the columns [`TOMBSTONE`].
pub(super) fn tombstone(row: &Row<'_>) -> rusqlite::Result<Tombstone> {
    let created: String = row.get(2)?;
    let created = created.parse().map_err(|error: jiff::Error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
    })?;
    let left = row.get::<_, i64>(4)?;
    Ok(Tombstone {
        subject: row.get(0)?,
        version: row.get(1)?,
        created,
        until: timestamp(row.get(3)?),
        left: Duration::from_micros(u64::try_from(left).unwrap_or(0)),
    })
}

const STATES: [TicketState; 5] = [
    TicketState::Open,
    TicketState::Undecided,
    TicketState::Committed,
    TicketState::Aborted,
    TicketState::Expired,
];

/// A state's word in the file, the protocol's too.
pub(super) fn word(state: TicketState) -> &'static str {
    match state {
        TicketState::Open => "open",
        TicketState::Undecided => "undecided",
        TicketState::Committed => "committed",
        TicketState::Aborted => "aborted",
        TicketState::Expired => "expired",
        // Never written: no request and no row gives it.
        TicketState::Unknown => "unknown",
    }
}

/// SQLite's failures in the contract's kinds.
pub(super) trait Worded<T> {
    fn worded(self) -> Result<T>;
}

impl<T> Worded<T> for rusqlite::Result<T> {
    fn worded(self) -> Result<T> {
        self.map_err(|error| {
            let (kind, message, advice) = match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                    ErrorKind::Unavailable,
                    "the service's state is locked by another program",
                    "look for it with `fuser` on the state's file; a backup must not hold it long",
                ),
                Some(ErrorCode::DiskFull) => (
                    ErrorKind::StorageFull,
                    "there is no room for the service's state",
                    "make room on its disk",
                ),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                    ErrorKind::Corrupt,
                    "the service's state is damaged",
                    "restore it from a backup, and bring its grants up to date",
                ),
                Some(_) => (
                    ErrorKind::Unavailable,
                    "the service's state cannot be read or written",
                    "look at its disk, and at the mode of its folder",
                ),
                None => (
                    ErrorKind::Internal,
                    "the service's state holds what it should not",
                    "report this",
                ),
            };
            Error::new(kind, message)
                .with_advice(advice)
                .with_source(error)
        })
    }
}
