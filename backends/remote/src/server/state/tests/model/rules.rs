//! What the rules of grants and migrations say, in as few words as they can be said: no file, no
//! transaction, no thread.

use std::collections::{BTreeMap, BTreeSet};

use super::{End, HOUR, Step, Which};
use crate::protocol::TicketState;

/// A way in which the rules below can be wrong: the control of what holds them against the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    AbortKeepsTarget,
    ClockTurnsBack,
    CommitKeepsSource,
    CommitWithoutTarget,
    FetchedExpires,
    KillForgetsFetch,
    SecondBegin,
    SourceTermsStay,
}

/// A migration.
#[derive(Clone, Debug)]
pub struct Migration {
    pub from: usize,
    pub to: usize,
    pub state: TicketState,
    pub fetched: bool,
    ends: i64,
    /// Whether source or target lost its grant since it began, by hand or by its own end.
    pub interfered: bool,
}

impl Migration {
    pub fn runs(&self) -> bool {
        matches!(self.state, TicketState::Open | TicketState::Undecided)
    }
}

/// A grant: when it ends, and the migration that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub expires: Option<i64>,
    given_by: Option<usize>,
}

/// Who holds a grant of the one scope. Times are in seconds, from the test's beginning.
#[derive(Debug, Default)]
pub struct Model {
    pub now: i64,
    pub wall: i64,
    pub held: BTreeMap<usize, Held>,
    pub migrations: Vec<Migration>,
    quarantined: BTreeSet<usize>,
    lie: Option<Lie>,
}

impl Model {
    pub fn new(lie: Option<Lie>) -> Self {
        Self {
            lie,
            ..Self::default()
        }
    }

    /// Does a step; whether it succeeds.
    pub fn step(&mut self, step: &Step) -> bool {
        match *step {
            Step::Begin(from, to) => self.begin(from, to),
            Step::Clock(seconds) => {
                self.wall += seconds;
                self.now = self.now.max(self.wall);
                if self.lies(Lie::ClockTurnsBack) {
                    self.now = self.wall;
                }
                self.run_out();
                true
            }
            Step::End(end, which) => self.end(end, which),
            Step::Expire | Step::Reopen => true,
            Step::Fetch(node) => {
                let Some(held) = self.held.get(&node) else {
                    return false;
                };
                if let Some(migration) = held.given_by {
                    self.migrations[migration].fetched = true;
                }
                true
            }
            Step::Grant(node, length) => self.grant(node, length.map(|length| self.now + length)),
            Step::Kill => {
                if self.lies(Lie::KillForgetsFetch)
                    && let Some(running) = self.running()
                {
                    self.migrations[running].fetched = false;
                }
                true
            }
            Step::Pass(seconds) => {
                self.wall += seconds;
                self.now = (self.now + seconds).max(self.wall);
                self.run_out();
                true
            }
            Step::Quarantine(node) => {
                self.lose(node);
                self.quarantined.insert(node);
                true
            }
            // Each is known: it was quarantined at the beginning, and released.
            Step::Release(node) => {
                self.quarantined.remove(&node);
                true
            }
            Step::Revoke(node) => {
                self.lose(node);
                true
            }
        }
    }

    /// The migration that is not over.
    pub fn running(&self) -> Option<usize> {
        self.migrations.iter().position(Migration::runs)
    }

    /// The migration that is meant, where there was any.
    pub fn meant(&self, which: Which) -> Option<usize> {
        match which {
            Which::Earlier(back) => self.migrations.len().checked_sub(1 + back),
            Which::Latest => self.migrations.len().checked_sub(1),
        }
    }

    fn begin(&mut self, from: usize, to: usize) -> bool {
        if from == to {
            return false;
        }
        if let Some(running) = self.running()
            && !self.lies(Lie::SecondBegin)
        {
            let it = &self.migrations[running];
            let same = (it.from, it.to, it.state) == (from, to, TicketState::Open);
            return same && self.holds(running);
        }
        let Some(source) = self.held.get(&from).cloned() else {
            return false;
        };
        if self.held.contains_key(&to) || self.quarantined.contains(&to) {
            return false;
        }
        let given_by = Some(self.migrations.len());
        self.held.insert(to, Held { given_by, ..source });
        self.migrations.push(Migration {
            from,
            to,
            state: TicketState::Open,
            fetched: false,
            ends: self.now + HOUR,
            interfered: false,
        });
        true
    }

    fn end(&mut self, end: End, which: Which) -> bool {
        let Some(meant) = self.meant(which) else {
            return false;
        };
        let Migration {
            from, to, state, ..
        } = self.migrations[meant];
        let target = self.holds(meant);
        match (end, state) {
            (End::Commit, TicketState::Open | TicketState::Undecided) => {
                if !target && !self.lies(Lie::CommitWithoutTarget) {
                    return false;
                }
                let source = match self.lies(Lie::CommitKeepsSource) {
                    true => self.held.get(&from).cloned(),
                    false => self.held.remove(&from),
                };
                if let Some(target) = self.held.get_mut(&to) {
                    target.given_by = None;
                    target.expires = source.map_or(target.expires, |source| source.expires);
                }
                self.migrations[meant].state = TicketState::Committed;
                true
            }
            (End::Abort, TicketState::Open | TicketState::Undecided) => {
                if target && !self.held.contains_key(&from) {
                    return false;
                }
                if target && !self.lies(Lie::AbortKeepsTarget) {
                    self.held.remove(&to);
                }
                self.migrations[meant].state = TicketState::Aborted;
                true
            }
            (End::Commit, ended) => ended == TicketState::Committed,
            (End::Abort, ended) => ended != TicketState::Committed,
        }
    }

    fn grant(&mut self, node: usize, expires: Option<i64>) -> bool {
        let running = self
            .running()
            .map(|running| self.migrations[running].clone());
        let target = running.as_ref().is_some_and(|it| it.to == node);
        if target || self.quarantined.contains(&node) {
            return false;
        }
        let given_by = None;
        self.held.insert(node, Held { expires, given_by });
        if let Some(running) = running.filter(|it| it.from == node)
            && !self.lies(Lie::SourceTermsStay)
            && let Some(target) = self.held.get_mut(&running.to)
        {
            target.expires = expires;
        }
        true
    }

    /// Takes away what is over.
    fn run_out(&mut self) {
        if let Some(running) = self.running() {
            let holds = self.holds(running);
            let it = &mut self.migrations[running];
            if it.state == TicketState::Open && it.ends <= self.now {
                if it.fetched && self.lie != Some(Lie::FetchedExpires) {
                    it.state = TicketState::Undecided;
                } else {
                    it.state = TicketState::Expired;
                    if holds {
                        self.held.remove(&it.to);
                    }
                }
            }
        }
        let over = |held: &Held| held.expires.is_some_and(|expires| expires <= self.now);
        let over: Vec<usize> = self
            .held
            .iter()
            .filter(|(_, held)| over(held))
            .map(|(node, _)| *node)
            .collect();
        over.into_iter().for_each(|node| self.lose(node));
    }

    fn lose(&mut self, node: usize) {
        self.held.remove(&node);
        if let Some(running) = self.running() {
            let it = &mut self.migrations[running];
            it.interfered |= it.from == node || it.to == node;
        }
    }

    /// Whether the target still holds what a migration gave it.
    fn holds(&self, migration: usize) -> bool {
        let target = self.held.get(&self.migrations[migration].to);
        target.is_some_and(|held| held.given_by == Some(migration))
    }

    fn lies(&self, lie: Lie) -> bool {
        self.lie == Some(lie)
    }
}
