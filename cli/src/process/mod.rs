//! Starting QEMU and waiting for it as if it had been started directly; what a service manager is
//! told.

mod launch;
mod notify;
mod user;
mod wait;

pub use launch::{Launch, check_program, exec, spawn};
pub use notify::{Moment, notify};
pub use user::User;
pub use wait::{PASSED_ON, Watcher, block_signals, take_no_signals, wait_for};
