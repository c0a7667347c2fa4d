//! The law of capabilities: a plugin is never asked for what it does not declare.

pub(crate) use keyhaul_core::law::{fits, need, not_root, to_delete, to_get, to_put};
use keyhaul_core::{Capabilities, Capability};

/// What a store can do whose plugin declares `own`.
pub(crate) fn capabilities(mut own: Capabilities) -> Capabilities {
    if own.can.intersects(Capability::WRITE | Capability::CREATE) {
        // The host makes what the plugin does not.
        own.can |= Capability::GENERATE;
    }
    own
}
