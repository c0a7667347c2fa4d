//! What is asked on every request, in memory.

use crate::protocol::Grant;

/// A grant.
#[derive(Debug)]
pub(super) struct Held {
    pub grant: Grant,
}
