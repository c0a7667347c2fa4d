//! Migrations, as fenced tickets.
//!
//! ```text
//!            begin                commit
//! (nothing) ───────▶ open ──┬──────────────▶ committed   the target keeps the grant
//!                     │     │     abort
//!      its time ends, │     ├──────────────▶ aborted     the source keeps it
//!        the target … │     │ … fetched nothing
//!                     │     └──────────────▶ expired     the source keeps it
//!                     │ … has fetched       commit, abort
//!                     └──────────────▶ undecided ──────▶ committed, aborted
//! ```
//!
//! While a ticket is open or undecided both nodes hold a grant, unless somebody revokes one by
//! hand, lets it expire, or quarantines its node: that always works, and decides nothing. A ticket
//! then ends only where a grant remains: it is not committed to a target that holds none, nor
//! aborted to a source that holds none while the target does.

use keyhaul_core::{Error, ErrorKind, Result, random};
use rusqlite::{Connection, OptionalExtension, params};

use super::database::{self, TICKET, Worded, rows, word};
use super::grants::{self, find, put, take};
use super::memory::Change;
use super::names;
use super::names::invalid;
use super::time::timestamp;
use super::writer::Work;
use super::{Ended, Notice};
use crate::protocol::{
    BeginRequest, EndRequest, Grant, Ticket, TicketState, TicketsAnswer, check_node_name,
};

/// How long a ticket lasts where nobody says, in seconds.
const USUAL: u64 = 60 * 60;
/// How long it lasts at most.
const LONGEST: u64 = 24 * USUAL;
/// How many ended tickets are kept.
const HISTORY: i64 = 10_000;

/// Begins a migration. The same again, while it is open, gives the same ticket.
pub(super) fn begin(work: &mut Work<'_>, by: &str, request: &BeginRequest) -> Result<Ticket> {
    let (scope, from, to) = (&request.scope, &request.from, &request.to);
    names::scope(scope)?;
    check_node_name(from)?;
    check_node_name(to)?;
    if from == to {
        return Err(invalid(format!(
            "{scope} cannot migrate from {from} to itself"
        )));
    }
    let seconds = request.seconds.unwrap_or(USUAL);
    if !(1..=LONGEST).contains(&seconds) {
        let rule = format!("a migration lasts 1 to {LONGEST} seconds, not {seconds}");
        return Err(invalid(rule));
    }
    if let Some(ticket) = running(work, scope)? {
        let same = ticket.from == *from && ticket.to == *to;
        if same && ticket.state == TicketState::Open && holds(work, &ticket, to)? {
            return Ok(ticket);
        }
        let message = format!(
            "{scope} is migrating from {} to {} already: the ticket {} is {}",
            ticket.from,
            ticket.to,
            ticket.id,
            word(ticket.state)
        );
        return Err(conflict(message).with_advice("commit or abort it first"));
    }
    let Some(source) = find(work, scope, from)? else {
        let message = format!("{from} holds no grant of {scope} that could migrate");
        return Err(conflict(message).with_advice(format!("keyhaul grants --scope {scope}")));
    };
    grants::refuse_quarantined(work, to)?;
    if find(work, scope, to)?.is_some() {
        let message = format!("{to} holds a grant of {scope} already");
        return Err(conflict(message).with_advice(format!(
            "where the guest is to run there: keyhaul revoke {scope} --node {from}"
        )));
    }
    let length = i64::try_from(seconds).unwrap_or(i64::MAX);
    let ticket = Ticket {
        id: random::hex(8)?,
        scope: scope.clone(),
        from: from.clone(),
        to: to.clone(),
        state: TicketState::Open,
        fetched: false,
        created: timestamp(work.now),
        expires: timestamp(work.now.saturating_add(length.saturating_mul(1_000_000))),
        by: by.into(),
    };
    let sql = format!("INSERT INTO tickets ({TICKET}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
    let row = params![
        ticket.id,
        scope,
        from,
        to,
        word(ticket.state),
        ticket.fetched,
        ticket.created.as_microsecond(),
        ticket.expires.as_microsecond(),
        by,
    ];
    work.db.execute(&sql, row).worded()?;
    forget(work)?;
    // Memory looks the ticket up when it learns of the grant.
    work.changes.push(Change::Ticket(ticket.clone()));
    put(
        work,
        Grant {
            node: to.clone(),
            created: ticket.created,
            by: by.into(),
            migration: Some(ticket.id.clone()),
            ..source
        },
    )?;
    Ok(ticket)
}

/// Ends a migration at its target. Again, it changes nothing.
pub(super) fn commit(work: &mut Work<'_>, request: &EndRequest) -> Result<Ticket> {
    let mut ticket = named(work.db, request)?;
    match ticket.state {
        TicketState::Committed => return Ok(ticket),
        TicketState::Aborted | TicketState::Expired | TicketState::Unknown => {
            return Err(ended(&ticket));
        }
        TicketState::Open | TicketState::Undecided => {}
    }
    let (scope, to) = (ticket.scope.clone(), ticket.to.clone());
    let target = find(work, &scope, &to)?.filter(|grant| belongs(grant, &ticket));
    let Some(target) = target else {
        let message = format!("{to} holds no grant of {scope} any more: none would remain");
        return Err(conflict(message).with_advice("abort the migration, and begin another"));
    };
    let source = find(work, &scope, &ticket.from)?;
    let from = ticket.from.clone();
    take(work, &scope, &from)?;
    let (names, expires) = match source {
        Some(source) => (source.names, source.expires),
        None => (target.names.clone(), target.expires),
    };
    put(
        work,
        Grant {
            names,
            expires,
            migration: None,
            ..target
        },
    )?;
    set(work, &mut ticket, TicketState::Committed)?;
    Ok(ticket)
}

/// Ends a migration at its source. Again, or where it has expired, it changes nothing.
pub(super) fn abort(work: &mut Work<'_>, request: &EndRequest) -> Result<Ticket> {
    let mut ticket = named(work.db, request)?;
    match ticket.state {
        TicketState::Aborted | TicketState::Expired => return Ok(ticket),
        TicketState::Committed | TicketState::Unknown => return Err(ended(&ticket)),
        TicketState::Open | TicketState::Undecided => {}
    }
    let (scope, from, to) = (&ticket.scope, &ticket.from, &ticket.to);
    let target = holds(work, &ticket, to)?;
    if target && find(work, scope, from)?.is_none() {
        let message = format!("{from} holds no grant of {scope} any more: none would remain");
        return Err(conflict(message).with_advice(format!(
            "commit the migration, or revoke {to}'s grant first"
        )));
    }
    if target {
        let (scope, to) = (scope.clone(), to.clone());
        take(work, &scope, &to)?;
    }
    set(work, &mut ticket, TicketState::Aborted)?;
    Ok(ticket)
}

/// Notes that the target fetches a secret under a ticket. Refused where it gives it no right any
/// more: then the secret must not be given out.
pub(super) fn fetch(work: &mut Work<'_>, id: &str) -> Result<()> {
    let mut ticket = by_id(work.db, id)?.ok_or_else(gone)?;
    let to = ticket.to.clone();
    if !is_running(&ticket) || !holds(work, &ticket, &to)? {
        return Err(gone());
    }
    if !ticket.fetched {
        ticket.fetched = true;
        let state = ticket.state;
        set(work, &mut ticket, state)?;
    }
    Ok(())
}

/// The refusal of what was permitted and is not any more.
pub(super) fn gone() -> Error {
    let message = "the grant was taken away while the secret was fetched";
    Error::new(ErrorKind::PermissionDenied, message)
}

/// Ends what has run out: grants, and tickets.
pub(super) fn sweep(work: &mut Work<'_>) -> Result<()> {
    let sql = format!("SELECT {TICKET} FROM tickets WHERE state = 'open' AND expires <= ?");
    for mut ticket in rows(work.db, &sql, [work.now], database::ticket)? {
        if ticket.fetched {
            set(work, &mut ticket, TicketState::Undecided)?;
        } else {
            let (scope, to) = (ticket.scope.clone(), ticket.to.clone());
            if holds(work, &ticket, &to)? {
                take(work, &scope, &to)?;
            }
            set(work, &mut ticket, TicketState::Expired)?;
        }
        let id = ticket.id.clone();
        match ticket.state {
            // The ticket itself says so, and is told of again after each start.
            TicketState::Undecided => work.ended.push(Notice {
                id,
                ended: Ended::Ticket(ticket),
            }),
            _ => work.notice(id, Ended::Ticket(ticket))?,
        }
    }
    grants::sweep(work)
}

/// The ticket that is open or undecided for `scope`.
pub(super) fn running(work: &Work<'_>, scope: &str) -> Result<Option<Ticket>> {
    let running = "scope = ? AND state IN ('open', 'undecided')";
    let sql = format!("SELECT {TICKET} FROM tickets WHERE {running}");
    work.db
        .query_row(&sql, [scope], database::ticket)
        .optional()
        .worded()
}

/// The ticket that a request names: by its id, or by its scope and both its nodes. A scope alone
/// would be whatever migration came last, and that may be another than the one that is meant.
pub(super) fn named(db: &Connection, request: &EndRequest) -> Result<Ticket> {
    let EndRequest {
        id,
        scope,
        from,
        to,
    } = request;
    let found = match (id, scope, from, to) {
        (Some(id), ..) => by_id(db, id)?,
        (None, Some(scope), Some(_), Some(_)) => {
            let latest = "WHERE scope = ? ORDER BY number DESC LIMIT 1";
            let sql = format!("SELECT {TICKET} FROM tickets {latest}");
            db.query_row(&sql, [scope], database::ticket)
                .optional()
                .worded()?
        }
        (None, ..) => {
            let rule = "a migration is named by its `id`, or by `scope`, `from` and `to` together";
            return Err(invalid(rule.into()));
        }
    };
    let found = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "there is no such migration")
            .with_advice("`keyhaul migrate list` shows those there are")
    })?;
    let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
    if same(scope, &found.scope) && same(from, &found.from) && same(to, &found.to) {
        return Ok(found);
    }
    if scope.as_ref().is_some_and(|scope| *scope != found.scope) {
        // Whose it is, is not for who asks about another scope.
        return Err(
            Error::new(ErrorKind::NotFound, "there is no such migration")
                .with_advice("`keyhaul migrate list` shows those there are"),
        );
    }
    let message = format!(
        "the migration {} of {} is another: from {} to {}, {}",
        found.id,
        found.scope,
        found.from,
        found.to,
        word(found.state)
    );
    Err(conflict(message).with_advice("name the one that is meant by its id"))
}

/// Those tickets that are open or undecided and have `node` as source or target.
pub(super) fn running_at(db: &Connection, node: &str) -> Result<Vec<Ticket>> {
    let sql = format!(
        "SELECT {TICKET} FROM tickets WHERE state IN ('open', 'undecided') \
         AND (source = ?1 OR target = ?1) ORDER BY number"
    );
    rows(db, &sql, [node], database::ticket)
}

/// A page of tickets of the scopes that `covers` wants, the latest first. A page's `next` is the id
/// of its last ticket: a number would count others' too.
pub(super) fn page(
    db: &Connection,
    scope: Option<&str>,
    state: Option<TicketState>,
    (limit, after): (usize, Option<&str>),
    covers: &dyn Fn(&str) -> bool,
) -> Result<TicketsAnswer> {
    let after = match after {
        None => i64::MAX,
        Some(id) => {
            let sql = "SELECT number FROM tickets WHERE id = ?";
            let number = db.query_row(sql, [id], |row| row.get(0)).optional();
            number
                .worded()?
                .ok_or_else(|| invalid("`after` is none of a page's `next`".into()))?
        }
    };
    let sql = format!(
        "SELECT {TICKET} FROM tickets WHERE number < ?1 AND (?2 IS NULL OR scope = ?2) \
         AND (?3 IS NULL OR state = ?3) ORDER BY number DESC"
    );
    let mut statement = db.prepare(&sql).worded()?;
    let found = statement
        .query_map(params![after, scope, state.map(word)], database::ticket)
        .worded()?;
    let mut tickets: Vec<Ticket> = Vec::new();
    for ticket in found {
        let ticket = ticket.worded()?;
        if !covers(&ticket.scope) {
            continue;
        }
        if tickets.len() == limit {
            let next = tickets.last().map(|last| last.id.clone());
            return Ok(TicketsAnswer { tickets, next });
        }
        tickets.push(ticket);
    }
    Ok(TicketsAnswer {
        tickets,
        next: None,
    })
}

fn by_id(db: &Connection, id: &str) -> Result<Option<Ticket>> {
    let sql = format!("SELECT {TICKET} FROM tickets WHERE id = ?");
    db.query_row(&sql, [id], database::ticket)
        .optional()
        .worded()
}

/// Whether `node` holds the grant that the ticket gave.
fn holds(work: &Work<'_>, ticket: &Ticket, node: &str) -> Result<bool> {
    let held = find(work, &ticket.scope, node)?;
    Ok(held.is_some_and(|grant| belongs(&grant, ticket)))
}

fn belongs(grant: &Grant, ticket: &Ticket) -> bool {
    grant.migration.as_ref() == Some(&ticket.id)
}

fn is_running(ticket: &Ticket) -> bool {
    matches!(ticket.state, TicketState::Open | TicketState::Undecided)
}

fn set(work: &mut Work<'_>, ticket: &mut Ticket, state: TicketState) -> Result<()> {
    ticket.state = state;
    let sql = "UPDATE tickets SET state = ?, fetched = ? WHERE id = ?";
    let row = params![word(state), ticket.fetched, ticket.id];
    work.db.execute(sql, row).worded()?;
    work.changes.push(Change::Ticket(ticket.clone()));
    Ok(())
}

/// Forgets the oldest of the ended tickets, past [`HISTORY`].
fn forget(work: &Work<'_>) -> Result<()> {
    let sql = "DELETE FROM tickets WHERE number <= (SELECT max(number) FROM tickets) - ? \
               AND state NOT IN ('open', 'undecided')";
    work.db.execute(sql, [HISTORY]).worded()?;
    Ok(())
}

fn ended(ticket: &Ticket) -> Error {
    let state = word(ticket.state);
    let message = format!("the migration {} of {} is {state}", ticket.id, ticket.scope);
    conflict(message).with_advice(format!(
        "`keyhaul grants --scope {}` shows who can read now",
        ticket.scope
    ))
}

fn conflict(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message)
}
