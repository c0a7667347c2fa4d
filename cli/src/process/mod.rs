//! Starting QEMU and waiting for it as if it had been started directly.

mod launch;
mod user;
mod wait;

pub use launch::{Launch, check_program, exec, spawn};
pub use user::User;
pub use wait::{PASSED_ON, Watcher, block_signals, take_no_signals, wait_for};
