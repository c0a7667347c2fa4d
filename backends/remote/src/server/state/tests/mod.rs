//! The state as a whole.

mod crash;
mod durable;
mod grants;
mod index;
mod model;
mod moves;
mod pages;
mod tickets;
mod tombstones;
mod trouble;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Reference, Result};
use tempfile::TempDir;

use super::*;
use crate::protocol::{
    BeginRequest, EndRequest, Grant, GrantRequest, Paging, RevokeRequest, Ticket, TicketState,
};

const MANAGER: &str = "spiffe://site/manager/m";
/// 2026-01-01T00:00:00Z, as `date -u -d @1767225600` tells it.
const NEW_YEAR: i64 = 1_767_225_600;

/// A clock that moves when a test says so.
#[derive(Debug)]
pub struct Hand {
    wall: AtomicI64,
    steady: AtomicI64,
}

impl Clock for Hand {
    fn wall(&self) -> Timestamp {
        Timestamp::from_second(self.wall.load(Ordering::SeqCst)).expect("in range")
    }

    fn steady(&self) -> Duration {
        Duration::from_secs(self.steady.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// A state in a folder of its own, with a clock of its own.
pub struct Bench {
    pub folder: TempDir,
    pub clock: Arc<Hand>,
    pub state: Option<State>,
}

impl Bench {
    pub fn new() -> Self {
        let mut bench = Self {
            folder: tempfile::tempdir().expect("folder"),
            clock: Arc::new(Hand {
                wall: AtomicI64::new(NEW_YEAR),
                steady: AtomicI64::new(0),
            }),
            state: None,
        };
        bench.reopen();
        bench
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("service.db")
    }

    pub fn settings(&self) -> StateSettings {
        StateSettings {
            busy: Duration::from_millis(200),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
        }
    }

    /// Closes the state and opens it again.
    pub fn reopen(&mut self) {
        self.state = None;
        let opened = State::open(&self.path(), self.settings());
        self.state = Some(opened.expect("opened"));
    }

    /// Ends the service as a kill does, with what is in its files at this moment: a copy of them is
    /// what it is opened on again.
    pub fn kill(&mut self) {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["service.db", "service.db-wal"] {
            let from = self.folder.path().join(name);
            if from.exists() {
                std::fs::copy(from, folder.path().join(name)).expect("copied");
            }
        }
        self.state = None;
        self.folder = folder;
        self.reopen();
    }

    /// Time goes by.
    pub fn pass(&self, seconds: i64) {
        self.step(seconds);
        self.clock.steady.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The wall clock is set, and no time goes by.
    pub fn step(&self, seconds: i64) {
        self.clock.wall.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn at(&self, seconds: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(NEW_YEAR + seconds).expect("in range"))
    }

    pub fn state(&self) -> &State {
        self.state.as_ref().expect("open")
    }

    pub fn grant_with(
        &self,
        scope: &str,
        node: &str,
        names: &[&str],
        expires: Option<Timestamp>,
    ) -> Result<Grant> {
        let request = GrantRequest {
            scope: scope.into(),
            node: node.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            expires,
            if_epoch: None,
        };
        block_on(self.state().grant(MANAGER, &request))
    }

    pub fn grant(&self, scope: &str, node: &str) -> Grant {
        self.grant_with(scope, node, &[], None).expect("granted")
    }

    pub fn revoke(&self, scope: &str, node: &str) -> bool {
        let (scope, node) = (scope.into(), node.into());
        let answer = block_on(self.state().revoke(&RevokeRequest {
            scope,
            node,
            if_epoch: None,
        }));
        answer.expect("revoked").revoked
    }

    pub fn begin(&self, scope: &str, from: &str, to: &str) -> Result<Ticket> {
        let request = BeginRequest {
            scope: scope.into(),
            from: from.into(),
            to: to.into(),
            seconds: None,
        };
        block_on(self.state().begin(MANAGER, &request))
    }

    pub fn commit(&self, ticket: &Ticket) -> Result<Ticket> {
        block_on(self.state().commit(&by_id(ticket)))
    }

    pub fn abort(&self, ticket: &Ticket) -> Result<Ticket> {
        block_on(self.state().abort(&by_id(ticket)))
    }

    pub fn expire(&self) -> Vec<Ticket> {
        let notices = block_on(self.state().expire()).expect("expired");
        let ids = notices.iter().map(|notice| notice.id.clone()).collect();
        block_on(self.state().told(ids)).expect("told");
        let tickets = notices.into_iter().filter_map(|notice| match notice.ended {
            Ended::Ticket(ticket) => Some(ticket),
            Ended::Grant(_) => None,
        });
        tickets.collect()
    }

    /// Reads as the server does: asks, and says what was fetched.
    pub fn fetch(&self, node: &str, text: &str) -> Result<()> {
        let permit = self.state().may_read(node, &reference(text));
        let permit = permit
            .map_err(|denial| Error::new(ErrorKind::PermissionDenied, denial.reason.to_owned()))?;
        block_on(self.state().fetched(&[permit]))
    }

    pub fn reads(&self, node: &str, text: &str) -> bool {
        self.state().may_read(node, &reference(text)).is_ok()
    }

    /// Why it may not.
    pub fn denial(&self, node: &str, text: &str) -> &'static str {
        let denial = self.state().may_read(node, &reference(text));
        denial.expect_err("denied").reason
    }
}

pub fn by_id(ticket: &Ticket) -> EndRequest {
    EndRequest {
        id: Some(ticket.id.clone()),
        scope: None,
        from: None,
        to: None,
    }
}

/// What has to be told, without telling it.
pub fn notices(bench: &Bench) -> Vec<Ended> {
    let notices = block_on(bench.state().expire()).expect("expired");
    notices.into_iter().map(|notice| notice.ended).collect()
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("a reference")
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("refused").kind()
}
