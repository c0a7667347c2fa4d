//! Numbers with names. A number is never given a second meaning.

use core::ffi::CStr;

/// Another major version is another interface.
pub const MAJOR: u16 = 1;
/// What has been appended since the major version began.
pub const MINOR: u16 = 0;
/// What a table is known by: "khpl".
pub const MAGIC: u32 = 0x6b68_706c;
/// The symbol that a plugin exports.
pub const ENTRY: &CStr = c"keyhaul_plugin_entry";

/// It is done.
pub const OK: u32 = 0;
/// The secret is there already, and the call was to create it.
pub const ALREADY_EXISTS: u32 = 1;
/// The version given is not the current one.
pub const CONFLICT: u32 = 2;
/// What is stored is damaged or foreign.
pub const CORRUPT: u32 = 3;
/// A defect. Every status that the host does not know counts as this one.
pub const INTERNAL: u32 = 4;
/// An option is wrong or missing.
pub const INVALID_CONFIG: u32 = 5;
/// The path or its use is wrong.
pub const INVALID_REFERENCE: u32 = 6;
/// There is no such secret, version or field, or it has expired.
pub const NOT_FOUND: u32 = 7;
/// The store knows who asks, and says no.
pub const PERMISSION_DENIED: u32 = 8;
/// The store asks for fewer requests.
pub const RATE_LIMITED: u32 = 9;
/// The store has no room.
pub const STORAGE_FULL: u32 = 10;
/// No answer in time. A retry can help.
pub const TIMEOUT: u32 = 11;
/// The value or the request is over a limit.
pub const TOO_LARGE: u32 = 12;
/// The store does not know who asks.
pub const UNAUTHENTICATED: u32 = 13;
/// The store cannot be reached or cannot serve now. A retry can help.
pub const UNAVAILABLE: u32 = 14;
/// The store cannot do that at all, as its capabilities say.
pub const UNSUPPORTED: u32 = 15;

/// `get`, `get_many` and `stat`.
pub const CAN_READ: u64 = 1;
/// `put` over anything or nothing.
pub const CAN_WRITE: u64 = 2;
/// `put` where there is nothing yet.
pub const CAN_CREATE: u64 = 4;
/// `put` over one version, and `delete` of one: compare and set.
pub const CAN_UPDATE: u64 = 8;
/// `delete`.
pub const CAN_DELETE: u64 = 16;
/// `list`.
pub const CAN_LIST: u64 = 32;
/// `generate`. The host adds it where there is a `put` and no `generate`, and makes the value itself.
pub const CAN_GENERATE: u64 = 64;
/// Versions other than the current one can be read.
pub const CAN_VERSIONS: u64 = 128;
/// Labels.
pub const CAN_LABELS: u64 = 256;
/// Secrets that expire.
pub const CAN_EXPIRY: u64 = 512;
/// Values that are maps of fields.
pub const CAN_FIELDS: u64 = 1024;
/// Writes that can be repeated under the same idempotency id.
pub const CAN_IDEMPOTENT: u64 = 2048;
/// `generate` makes the value at the store's end.
pub const CAN_GENERATES_REMOTELY: u64 = 4096;

/// `put`: anything or nothing may be there.
pub const PUT_OVERWRITE: u32 = 0;
/// `put`: nothing may be there, else KEYHAUL_ALREADY_EXISTS.
pub const PUT_CREATE: u32 = 1;
/// `put`: exactly the version given may be there, else KEYHAUL_CONFLICT; nothing at all is
/// KEYHAUL_NOT_FOUND.
pub const PUT_UPDATE: u32 = 2;

/// A recipe's alphabet: A-Z, a-z, 0-9.
pub const ALPHABET_ALPHANUMERIC: u32 = 0;
/// A recipe's alphabet: any byte.
pub const ALPHABET_BYTES: u32 = 1;
/// A recipe's alphabet: 0-9, a-f.
pub const ALPHABET_HEX: u32 = 2;

/// An option: a text.
pub const OPTION_TEXT: u32 = 0;
/// An option: "true" or "false".
pub const OPTION_BOOLEAN: u32 = 1;
/// An option: a credential. The policy names its source, and the plugin asks for the bytes.
pub const OPTION_CREDENTIAL: u32 = 2;
/// An option: a duration, given in whole milliseconds.
pub const OPTION_DURATION: u32 = 3;
/// An option: a whole number, not negative.
pub const OPTION_INTEGER: u32 = 4;
/// An option: a list of texts, given as a pair for each.
pub const OPTION_TEXTS: u32 = 5;

/// A log line: something is broken.
pub const LOG_ERROR: u32 = 1;
/// A log line: something is odd.
pub const LOG_WARN: u32 = 2;
/// A log line: what an operator may want to know.
pub const LOG_INFO: u32 = 3;
/// A log line: what a developer may want to know.
pub const LOG_DEBUG: u32 = 4;
