//! The trials, by what they are about.

mod concurrency;
mod delete;
mod expiry;
mod fields;
mod generate;
mod idempotency;
mod law;
mod list;
mod manners;
mod many;
mod modes;
mod names;
mod values;
mod versions;

use futures_util::future::BoxFuture;
use keyhaul_core::Capability;

use crate::ground::Ground;
use crate::outcome::Outcome;

/// One thing the contract says.
pub(crate) struct Trial {
    /// It, as a sentence.
    pub(crate) name: &'static str,
    /// What a store must be able to do for it to apply.
    needs: Capability,
    /// What a store must not be able to do for it to apply.
    lacks: Capability,
    /// Whether the trial needs a secret to be there, by whichever mode of `put`.
    seeds: bool,
    pub(crate) run: fn(Ground) -> BoxFuture<'static, Outcome>,
}

impl Trial {
    const fn new(
        name: &'static str,
        needs: Capability,
        run: fn(Ground) -> BoxFuture<'static, Outcome>,
    ) -> Self {
        Self {
            name,
            needs,
            lacks: Capability::empty(),
            seeds: false,
            run,
        }
    }

    const fn seeded(mut self) -> Self {
        self.seeds = true;
        self
    }

    const fn lacking(mut self, lacks: Capability) -> Self {
        self.lacks = lacks;
        self
    }

    /// Whether it applies to a store that can do this.
    pub(crate) fn concerns(&self, can: Capability) -> bool {
        let seeds = can.intersects(Capability::WRITE.union(Capability::CREATE));
        can.contains(self.needs) && !can.intersects(self.lacks) && (seeds || !self.seeds)
    }
}

/// Every trial there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Trial> {
    [
        values::TRIALS,
        names::TRIALS,
        modes::TRIALS,
        versions::TRIALS,
        fields::TRIALS,
        delete::TRIALS,
        list::TRIALS,
        many::TRIALS,
        expiry::TRIALS,
        generate::TRIALS,
        idempotency::TRIALS,
        concurrency::TRIALS,
        manners::TRIALS,
        law::TRIALS,
    ]
    .into_iter()
    .flatten()
}
