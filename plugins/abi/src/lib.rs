//! The C interface between keyhaul and a plugin that it loads: types and constants, nothing that
//! runs. `include/keyhaul_plugin.h` is made from this crate, and a test holds the two together.
//!
//! A plugin exports one symbol, [`ENTRY`], which answers with a [`Plugin`]: a table of functions. The
//! host calls them, and the plugin answers through a [`Sink`] while the call runs.
//!
//! # Rules
//!
//! - **Growth.** Every table begins with a [`Head`]. Fields are only ever appended, and that raises the minor version.
//!   Each side reads as much as the size says that the other has written and takes the rest as zeros;
//!   a function that is zero is one that is not there. Another major version is refused.
//! - **Memory.** None changes hands. Every pointer that is given is borrowed until the call that it
//!   was given in returns; who keeps it copies it. Whoever allocates a secret's memory wipes it.
//! - **Text** is UTF-8 and has a length, not a zero at its end. Absent is a null pointer.
//! - **Statuses** are 0, or an error's kind. Words come through [`Answers::error`], before the call returns, and
//!   hold no byte of a secret.
//! - **Threads.** The host calls from many threads at the same time, for one store too; they are its
//!   own, with a stack of 2 MiB and all signals blocked, which what a plugin starts inherits. A sink
//!   answers on the thread that it was given to, until that call returns; everything else is
//!   refused and does no harm.
//! - **Time.** A call may block. The host stops waiting at the deadline, and lends a thread to few calls
//!   that have not come back by then.
//! - A plugin never unwinds, longjmps or forks through the host. It is never unloaded.

#![no_std]

mod answers;
mod constants;
mod plugin;
mod requests;
mod text;

pub use answers::{Answers, Sink};
pub use constants::*;
pub use plugin::{Entry, Host, Plugin, PluginOption};
pub use requests::{Call, DeleteOptions, GetOptions, ListOptions, Opening, PutOptions, Recipe};
pub use text::{Bytes, Head, Pair, Str};
