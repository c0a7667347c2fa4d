//! The protocol's words: one JSON object a line, version 1.
//!
//! Both ends are written in `docs/plugin-process.md`. A value is in a line as base64, or from a
//! plugin as text; it is read straight into locked memory, since serde_json only finds where it
//! stands.

mod answer;
mod hello;
mod request;

pub(crate) use answer::{Answer, Reply};
pub(crate) use hello::{Declared, Hello};
pub(crate) use request::{Line, cancel, hello};

/// The version of the protocol.
pub(crate) const VERSION: u64 = 1;

/// The longest value that goes through, whatever a plugin says.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// The longest value where a plugin does not say.
pub(crate) const DEFAULT_MAX_VALUE: usize = 64 * 1024;

/// What a line may have besides a value: metadata, or a page of a listing.
const BESIDES: usize = 1024 * 1024;

/// The longest first line of a plugin.
pub(crate) const MAX_HELLO: usize = 64 * 1024;

/// The longest line of a plugin whose values have at most `max_value` bytes.
pub(crate) fn longest_line(max_value: usize) -> usize {
    // As text, each byte can be an escape of six.
    max_value * 6 + BESIDES
}
