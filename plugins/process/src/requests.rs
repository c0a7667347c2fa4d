//! What a plugin was asked and has not wholly answered.

use std::collections::BTreeMap;
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::broken;
use crate::wire::{Reply, Wants};

/// What the answers to one request may hold together, in bytes: more than a batch is asked for.
const MOST_HELD: usize = 32 * 1024 * 1024;

/// What came of a request: as many outcomes as it has paths, one for all others.
pub(crate) type Outcomes = Vec<Result<Reply>>;

/// The open requests of a plugin. One that its caller gave up is open until it is answered: the
/// plugin still works on it.
pub(crate) struct Requests {
    open: BTreeMap<u64, Open>,
    latest: u64,
    /// When the plugin last answered, or was first asked after a rest.
    heard: Instant,
    /// When the plugin ended and why, after which nothing more can be asked.
    ended: Option<(Instant, Error)>,
}

/// A request that is not wholly answered.
pub(crate) struct Open {
    wants: Wants,
    outcomes: Vec<Option<Result<Reply>>>,
    left: usize,
    /// How many bytes the outcomes have.
    held: usize,
    /// Whether its answers name the paths they are about.
    indexed: bool,
    done: oneshot::Sender<Outcomes>,
    _room: OwnedSemaphorePermit,
}

impl Open {
    /// A request for one outcome, or for one of each of `paths`. It gives its room back when it is
    /// answered.
    pub(crate) fn new(
        wants: Wants,
        paths: Option<usize>,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Outcomes>) {
        let (done, outcomes) = oneshot::channel();
        let count = paths.unwrap_or(1);
        let open = Self {
            wants,
            outcomes: std::iter::repeat_with(|| None).take(count).collect(),
            left: count,
            held: 0,
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
                    self.held += reply.as_ref().map_or(0, Reply::size);
                    *one = Some(match self.held > MOST_HELD {
                        true => Err(too_much()),
                        false => reply,
                    });
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
        if let Some((_, error)) = &self.ended {
            return Err(error.duplicate());
        }
        if self.open.is_empty() {
            self.heard = Instant::now();
        }
        self.open.insert(id, open);
        Ok(())
    }

    /// What the answer to a request may hold.
    ///
    /// # Errors
    /// `Internal` where there is no such request.
    pub(crate) fn wants(&self, id: u64) -> Result<Wants> {
        let open = self.open.get(&id).ok_or_else(not_asked)?;
        Ok(open.wants)
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
        let open = self.open.get_mut(&id).ok_or_else(not_asked)?;
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
        let (_, why) = self.ended.get_or_insert((Instant::now(), why));
        (why.duplicate(), std::mem::take(&mut self.open))
    }

    /// When the plugin ended and why, where it has.
    pub(crate) fn ended(&self) -> Option<(Instant, Error)> {
        let ended = self.ended.as_ref();
        ended.map(|(at, why)| (*at, why.duplicate()))
    }

    /// Whether it has.
    pub(crate) fn have_ended(&self) -> bool {
        self.ended.is_some()
    }
}

fn not_asked() -> Error {
    broken("it answered what was not asked, or twice")
}

fn too_much() -> Error {
    let rule = format!("the answers to one request have more than {MOST_HELD} bytes together");
    Error::new(ErrorKind::TooLarge, rule).with_advice("tell the plugin's author")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// With labels of 1 MiB, as many as one answer may have.
    fn large() -> Result<Reply> {
        let mut reply = Reply::default();
        let labels = (0..16).map(|n: u8| (n.to_string(), "x".repeat(64 * 1024)));
        reply.metadata.labels = labels.collect();
        Ok(reply)
    }

    #[test]
    fn the_answers_to_one_request_have_a_bound_together() {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned();
        let (open, mut outcomes) = Open::new(Wants::Value, Some(40), room.expect("room"));
        let mut requests = Requests::new();
        requests.add(1, open).expect("open");
        for index in 0..40 {
            let whole = requests.answered(1, Some(index), large());
            if let Some(open) = whole.expect("right") {
                open.tell();
            }
        }
        let outcomes = outcomes.try_recv().expect("answered");
        let kinds = outcomes
            .iter()
            .map(|one| one.as_ref().err().map(Error::kind));
        let refused: Vec<_> = kinds
            .map(|kind| kind == Some(ErrorKind::TooLarge))
            .collect();
        // The names of the labels count too.
        assert_eq!(refused, [vec![false; 31], vec![true; 9]].concat());
    }
}
