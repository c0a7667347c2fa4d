//! What a plugin was asked and has not wholly answered.

use std::collections::BTreeMap;
use std::time::Duration;

use keyhaul_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::broken;
use crate::wire::Reply;

/// What came of a request: as many outcomes as it has paths, one for all others.
pub(crate) type Outcomes = Vec<Result<Reply>>;

/// The open requests of a plugin. One that its caller gave up is open until it is answered: the
/// plugin still works on it.
pub(crate) struct Requests {
    open: BTreeMap<u64, Open>,
    latest: u64,
    /// When the plugin last answered, or was first asked after a rest.
    heard: Instant,
    /// Why nothing more can be asked.
    ended: Option<Error>,
}

/// A request that is not wholly answered.
pub(crate) struct Open {
    outcomes: Vec<Option<Result<Reply>>>,
    left: usize,
    /// Whether its answers name the paths they are about.
    indexed: bool,
    done: oneshot::Sender<Outcomes>,
    _room: OwnedSemaphorePermit,
}

impl Open {
    /// A request for one outcome, or for one of each of `paths`. It gives its room back when it is
    /// answered.
    pub(crate) fn new(
        paths: Option<usize>,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Outcomes>) {
        let (done, outcomes) = oneshot::channel();
        let count = paths.unwrap_or(1);
        let open = Self {
            outcomes: std::iter::repeat_with(|| None).take(count).collect(),
            left: count,
            indexed: paths.is_some(),
            done,
            _room: room,
        };
        (open, outcomes)
    }

    /// Tells whoever asked, where somebody still waits; what came is wiped otherwise.
    pub(crate) fn tell(self) {
        let _ = self
            .done
            .send(self.outcomes.into_iter().flatten().collect());
    }

    fn take(&mut self, index: Option<usize>, reply: Result<Reply>) -> Result<()> {
        match (self.indexed, index, reply) {
            // A refusal of all that is left of a batch.
            (true, None, Err(error)) => {
                let missing = self.outcomes.iter_mut().filter(|one| one.is_none());
                missing.for_each(|one| *one = Some(Err(error.duplicate())));
                self.left = 0;
                Ok(())
            }
            (true, None, Ok(_)) => Err(broken(
                "an answer of many does not say which path it is about",
            )),
            (false, Some(_), _) => {
                Err(broken("it answered for one of many, and was asked for one"))
            }
            (_, index, reply) => match self.outcomes.get_mut(index.unwrap_or(0)) {
                Some(one @ None) => {
                    *one = Some(reply);
                    self.left -= 1;
                    Ok(())
                }
                _ => Err(broken(
                    "it answered for a path that was not asked, or twice",
                )),
            },
        }
    }
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            latest: 0,
            heard: Instant::now(),
            ended: None,
        }
    }

    /// A number that no request has had.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// Adds what is about to be asked.
    ///
    /// # Errors
    /// Why the plugin ended, where it has.
    pub(crate) fn add(&mut self, id: u64, open: Open) -> Result<()> {
        if let Some(error) = &self.ended {
            return Err(error.duplicate());
        }
        if self.open.is_empty() {
            self.heard = Instant::now();
        }
        self.open.insert(id, open);
        Ok(())
    }

    /// Takes an answer. The request, where it is wholly answered now.
    ///
    /// # Errors
    /// `Internal` where it is no answer to what was asked.
    pub(crate) fn answered(
        &mut self,
        id: u64,
        index: Option<usize>,
        reply: Result<Reply>,
    ) -> Result<Option<Open>> {
        let open = self.open.get_mut(&id);
        let open = open.ok_or_else(|| broken("it answered what was not asked, or twice"))?;
        open.take(index, reply)?;
        let whole = open.left == 0;
        self.heard = Instant::now();
        Ok(if whole { self.open.remove(&id) } else { None })
    }

    /// Whether a request is not wholly answered.
    pub(crate) fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// Whether all are.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The oldest that is not.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.open.keys().next().copied()
    }

    /// The latest there was.
    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    /// When a plugin that has `stall` for each answer has had its time. Never now where nothing is
    /// asked of it.
    pub(crate) fn patience_ends(&self, stall: Duration) -> Instant {
        let since = if self.open.is_empty() {
            Instant::now()
        } else {
            self.heard
        };
        since + stall
    }

    /// Notes why the plugin ended, unless it has already. Why it has, and what it leaves unanswered.
    pub(crate) fn end(&mut self, why: Error) -> (Error, BTreeMap<u64, Open>) {
        let why = self.ended.get_or_insert(why).duplicate();
        (why, std::mem::take(&mut self.open))
    }

    /// Why the plugin ended, where it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.ended.as_ref().map(Error::duplicate)
    }

    /// Whether it has.
    pub(crate) fn have_ended(&self) -> bool {
        self.ended.is_some()
    }
}
