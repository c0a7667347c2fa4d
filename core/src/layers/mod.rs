//! What every store needs besides itself: context in errors, time limits, retries, audit.
//!
//! A layer is a store around a store. The order is part of the meaning; [`standard`] is the one
//! that holds in keyhaul, innermost first:
//!
//! | layer        | why there |
//! |--------------|-----------|
//! | [`Context`]  | closest to the backend, where the path is that of the very request that failed |
//! | [`Timeout`]  | bounds one attempt, so that a retry gets its turn |
//! | [`Breaker`]  | counts single attempts, those that timed out too; inside the throttle, so that what waits for its turn is refused as soon as the store is known to be down |
//! | [`Throttle`] | outside the timeout, since waiting for a turn is not the store's fault; inside the retries, so that they are counted, and what waits to be tried again holds no turn |
//! | [`Retry`]    | around single attempts |
//! | [`Cache`]    | outside the retries: one flight for a key, however often it is tried |
//! | [`Deadline`] | bounds all attempts and all waits together, also for an answer that another caller fetches |
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
//! Breaker, throttle and cache are there where the settings ask for them. By default, stores that
//! their backend gives [limits](crate::StoreFactory::limits) get a throttle and a breaker, and none
//! gets a cache.
//!
//! Layers need a tokio runtime with its clock enabled, start no task of their own, and cost a
//! request that succeeds at once some small allocations.

mod audit;
mod breaker;
mod cache;
mod context;
mod deadline;
mod json_lines;
mod layer;
mod retry;
mod throttle;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

pub use audit::{Audit, AuditEvent, AuditRecord, AuditSink};
pub use breaker::{Breaker, BreakerSettings};
pub use cache::{Cache, CacheSettings};
pub use context::Context;
pub use deadline::Deadline;
pub use json_lines::JsonLinesSink;
pub use layer::{Call, Layer, Layered};
pub use retry::Retry;
pub use throttle::Throttle;
pub use timeout::Timeout;

use crate::SecretStore;
use crate::registry::Limits;

/// How long, how often and how much, for [`standard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSettings {
    /// The limit of one attempt. 10 seconds by default.
    pub timeout: Duration,
    /// How often an attempt that failed for a passing reason is repeated. 3 by default.
    pub retries: u32,
    /// The limit of all attempts and waits together. 30 seconds by default.
    pub deadline: Duration,
    /// How much the store is asked at once. Without limits by default.
    pub limits: Option<Limits>,
    /// When the store counts as down. Never by default.
    pub breaker: Option<BreakerSettings>,
    /// What is kept of the store's answers. Nothing by default.
    pub cache: Option<CacheSettings>,
}

impl Default for LayerSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            retries: 3,
            deadline: Duration::from_secs(30),
            limits: None,
            breaker: None,
            cache: None,
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
    let store = match settings.breaker {
        Some(breaker) => Breaker::new(breaker).over(store),
        None => store,
    };
    let store = match settings.limits {
        Some(limits) => Throttle::new(limits).over(store),
        None => store,
    };
    let store = Retry::new(settings.retries).over(store);
    let store = match settings.cache {
        Some(cache) => Cache::over(cache, store),
        None => store,
    };
    let store = Deadline::new(settings.deadline).over(store);
    match sink {
        Some(sink) => Audit::new(sink).over(store),
        None => store,
    }
}
