//! Long answers, in pages.

use super::limit;

/// Which part of a long answer: the query's `limit` and `after`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// At most this many entries; the service may give fewer, and never gives more than
    /// [`limit::PAGE`].
    pub limit: Option<usize>,
    /// Where the page before ended: its `next`.
    pub after: Option<String>,
}

impl Paging {
    /// How many entries the service gives at most.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(limit::PAGE).clamp(1, limit::PAGE)
    }
}
