//! The contract of keyhaul stores as a test suite, and fixtures.
//!
//! A backend's `tests/conformance.rs` is ten lines:
//!
//! ```
//! use std::sync::Arc;
//!
//! use keyhaul_conformance::Handles;
//! use keyhaul_core::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! keyhaul_conformance::run(async || Handles::same(Arc::new(MemoryStore::new("trial")))).await;
//! # }
//! ```
//!
//! The store's capabilities choose the trials: what it can do is held to the contract, what it
//! cannot do must fail `Unsupported` and have no effect. Each trial works below a random prefix of
//! its own and deletes what it wrote, so that the suite can run against a server others use.

mod fault;
mod ground;
mod handles;
mod leak;
mod outcome;
mod report;
mod trials;

pub use fault::{Fault, FaultStore, Seen};
pub use handles::Handles;
pub use outcome::Failure;
pub use report::{Progress, Report, TrialReport, report, run, watched};
