//! What the host asks. All of it is lent for the call.

use core::ffi::c_void;

use crate::{Bytes, Head, Pair, Str};

/// What every call carries.
#[repr(C)]
pub struct Call {
    /// How the table begins.
    pub head: Head,
    /// How long the host still waits, in milliseconds. 0: it does not say.
    pub deadline_ms: u64,
    /// The request's id, which ties log lines together. May be absent.
    pub request: Str,
    /// Who asks, as the audit shows it. May be absent.
    pub actor: Str,
}

/// How a store is opened.
#[repr(C)]
pub struct Opening {
    /// How the table begins.
    pub head: Head,
    /// The store's name in the policy.
    pub name: Str,
    /// The options that the policy gives, credentials left out. Each is one that the plugin
    /// declares, and of its kind. A list has a pair for each of its texts.
    pub options: *const Pair,
    /// How many pairs there are.
    pub options_len: usize,
    /// What `credential` is told.
    pub context: *mut c_void,
    /// Gives a credential's bytes, lent until `open` returns. KEYHAUL_NOT_FOUND where the policy
    /// has no such option; KEYHAUL_INVALID_CONFIG and others where its source cannot be read,
    /// which is then best returned: the host knows the words. KEYHAUL_INTERNAL where `bytes` is no
    /// memory that can be written.
    pub credential:
        Option<unsafe extern "C" fn(context: *mut c_void, name: Str, bytes: *mut Bytes) -> u32>,
}

/// How to read.
#[repr(C)]
pub struct GetOptions {
    /// How the table begins.
    pub head: Head,
    /// This version, not the current one, where it is there.
    pub version: Str,
    /// This field of a value that is a map, where it is there. `*` is the whole map, as a JSON object.
    pub field: Str,
    /// 1: answer even where the secret has expired and the store still keeps it.
    pub expired: u32,
    /// 0.
    pub reserved: u32,
}

/// How to write.
#[repr(C)]
pub struct PutOptions {
    /// How the table begins.
    pub head: Head,
    /// KEYHAUL_PUT_OVERWRITE, KEYHAUL_PUT_CREATE or KEYHAUL_PUT_UPDATE.
    pub mode: u32,
    /// 0.
    pub reserved: u32,
    /// The version that an update is over.
    pub version: Str,
    /// This field of a map, and its siblings stay. `*`: the whole map, as a JSON object.
    pub field: Str,
    /// 32 hexadecimal digits that make a repeated write recognisable: the same again, for the same
    /// path, is answered as the first time and writes nothing. May be absent, and may be passed over
    /// without KEYHAUL_CAN_IDEMPOTENT.
    pub idempotency: Str,
    /// `expires` (RFC 3339) and `label:NAME`.
    pub attributes: *const Pair,
    /// How many pairs there are.
    pub attributes_len: usize,
}

/// How to make a value.
#[repr(C)]
pub struct Recipe {
    /// How the table begins.
    pub head: Head,
    /// How many characters or bytes.
    pub length: usize,
    /// KEYHAUL_ALPHABET_ALPHANUMERIC, KEYHAUL_ALPHABET_BYTES or KEYHAUL_ALPHABET_HEX.
    pub alphabet: u32,
    /// 0.
    pub reserved: u32,
}

/// How to delete.
#[repr(C)]
pub struct DeleteOptions {
    /// How the table begins.
    pub head: Head,
    /// Only where this is the current version, where it is there.
    pub version: Str,
    /// 1: even where somebody is known to use it.
    pub force: u32,
    /// 0.
    pub reserved: u32,
}

/// How to list.
#[repr(C)]
pub struct ListOptions {
    /// How the table begins.
    pub head: Head,
    /// Where the page before ended, as the plugin called it. Absent: at the beginning.
    pub after: Str,
    /// At most this many entries, and fewer will do. 0: as many as the plugin likes, up to 1000.
    pub limit: usize,
    /// 1: only what lies directly below, and folders for what lies deeper. 0: all of it, and no
    /// folders.
    pub shallow: u32,
    /// 0.
    pub reserved: u32,
}
