//! Secret bytes in memory.
//!
//! A value is created at its final size in memory that is locked against swap and kept out of
//! core dumps where the limits allow it, filled in place, and wiped when dropped. Nothing here can be
//! cloned, printed or serialised by accident: reading the bytes takes a call to
//! [`SecretBytes::expose`], which is easy to search for.

mod allocator;
mod arena;
mod bytes;
mod wipe;
mod writer;

pub use allocator::WipeOnFree;
pub use arena::{Protection, protection};
pub use bytes::SecretBytes;
pub use wipe::{wipe, wiping_some_stack, wiping_stack};
pub use writer::SecretWriter;
