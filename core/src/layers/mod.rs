//! What every store needs besides itself: context in errors, time limits, retries, audit.
//!
//! A layer is a store around a store. The order is part of the meaning; [`standard`] is the one
//! that holds in keyhaul, innermost first:
//!
//! | layer        | why there |
//! |--------------|-----------|
//! | [`Context`]  | closest to the backend, where the path is that of the very request that failed |
//! | [`Timeout`]  | bounds one attempt, so that a retry gets its turn |
//! | [`Retry`]    | around single attempts |
//! | [`Deadline`] | bounds all attempts and the waits between them together |
//! | [`Audit`]    | outermost: one record for what the caller asked, however often it was tried |
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use keyhaul_core::layers::{self, Context, Deadline, Layer, LayerSettings, Retry, Timeout};
//! use keyhaul_core::{MemoryStore, SecretStore};
//!
//! let store: Arc<dyn SecretStore> = Arc::new(MemoryStore::new("local"));
//! let by_hand = Deadline::new(Duration::from_secs(30)).over(
//!     Retry::new(3).over(Timeout::new(Duration::from_secs(10)).over(Context.over(store.clone()))),
//! );
//! let the_same = layers::standard(store, &LayerSettings::default(), None);
//! # assert_eq!(format!("{by_hand:?}"), format!("{the_same:?}"));
//! ```
//!
//! Layers need a tokio runtime with its clock enabled, start no task of their own, and cost a
//! request that succeeds at once some small allocations.

mod audit;
mod context;
mod deadline;
mod json_lines;
mod layer;
mod retry;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

pub use audit::{Audit, AuditEvent, AuditRecord, AuditSink};
pub use context::Context;
pub use deadline::Deadline;
pub use json_lines::JsonLinesSink;
pub use layer::{Call, Layer, Layered};
pub use retry::Retry;
pub use timeout::Timeout;

use crate::SecretStore;

/// How long and how often, for [`standard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSettings {
    /// The limit of one attempt. 10 seconds by default.
    pub timeout: Duration,
    /// How often an attempt that failed for a passing reason is repeated. 3 by default.
    pub retries: u32,
    /// The limit of all attempts and waits together. 30 seconds by default.
    pub deadline: Duration,
}

impl Default for LayerSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            retries: 3,
            deadline: Duration::from_secs(30),
        }
    }
}

/// `store` with every layer, in the order that holds. Audited where there is a sink.
pub fn standard(
    store: Arc<dyn SecretStore>,
    settings: &LayerSettings,
    sink: Option<Arc<dyn AuditSink>>,
) -> Arc<dyn SecretStore> {
    let store = Context.over(store);
    let store = Timeout::new(settings.timeout).over(store);
    let store = Retry::new(settings.retries).over(store);
    let store = Deadline::new(settings.deadline).over(store);
    match sink {
        Some(sink) => Audit::new(sink).over(store),
        None => store,
    }
}
