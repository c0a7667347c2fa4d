//! The contract, held by the store itself and by the library that a policy names, at the same time: both
//! wait more than they work.

mod bare;
#[path = "../../../host/tests/support/mod.rs"]
mod host;
mod loaded;
#[path = "../support/mod.rs"]
mod support;
