//! Tombstones: what is deleted, and can be restored still.

use std::time::Duration;

use keyhaul_core::Result;
use rusqlite::params;

use super::Tombstone;
use super::database::{TOMBSTONE, Worded, rows, tombstone};
use super::memory::Change;
use super::time::timestamp;
use super::writer::Work;

/// Remembers a deletion, in place of an older tombstone.
pub(super) fn put(work: &mut Work<'_>, tombstone: Tombstone) -> Result<()> {
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
        .push(Change::TombstonePut(Tombstone { until, ..tombstone }));
    Ok(())
}

/// Counts time that the service has run.
pub(super) fn age(work: &mut Work<'_>, by: Duration) -> Result<()> {
    let sql = "UPDATE tombstones SET remaining = max(0, remaining - ?) WHERE remaining > 0";
    work.db.execute(sql, [micros(by)]).worded()?;
    work.changes.push(Change::Aged(by));
    Ok(())
}

/// Forgets a deletion, and says which.
pub(super) fn take(work: &mut Work<'_>, subject: &str) -> Result<Option<Tombstone>> {
    let sql = format!("DELETE FROM tombstones WHERE subject = ? RETURNING {TOMBSTONE}");
    let found = rows(work.db, &sql, [subject], tombstone);
    let found = found?.pop();
    if found.is_some() {
        work.changes.push(Change::TombstoneTaken(subject.into()));
    }
    Ok(found)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
