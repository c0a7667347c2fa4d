//! How a plugin answers.

use core::ffi::c_void;

use crate::{Bytes, Head, Pair, Str};

/// Where a call's answers go, on the thread of the call and until it returns.
///
/// It is passed by value, and its table lives as long as the process: who keeps it and uses it too late
/// is refused.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sink {
    /// The functions to call.
    pub to: *const Answers,
    /// What each of them is told first. No pointer to anything.
    pub context: *mut c_void,
}

/// What can be answered. Each function copies what it is lent, and says KEYHAUL_OK or why not; after
/// a refusal the call cannot succeed any more, and is best ended.
#[repr(C)]
pub struct Answers {
    /// How the table begins.
    pub head: Head,
    /// What the store can do, as KEYHAUL_CAN_ bits, and its longest value in bytes.
    pub capabilities:
        Option<unsafe extern "C" fn(context: *mut c_void, can: u64, max_value: u64) -> u32>,
    /// The value. Once for each secret that was asked for.
    pub value: Option<unsafe extern "C" fn(context: *mut c_void, value: Bytes) -> u32>,
    /// What is known of the secret: `version`, `created` and `expires` (RFC 3339), `label:NAME`,
    /// `lease-id`, `lease-duration` (milliseconds), `lease-renewable` (`true` or `false`); after a delete
    /// `recoverable-until`: a time, or empty where it is gone for good. Once for each secret.
    pub metadata: Option<
        unsafe extern "C" fn(context: *mut c_void, pairs: *const Pair, pairs_len: usize) -> u32,
    >,
    /// Ends what is said of one of many: of the path at `index`, with this status. What was said
    /// before belongs to it alone.
    pub item: Option<unsafe extern "C" fn(context: *mut c_void, index: usize, status: u32) -> u32>,
    /// A secret (0) or a folder (1) of a listing, by its whole path, in byte order, a secret before
    /// a folder of the same path.
    pub entry: Option<unsafe extern "C" fn(context: *mut c_void, path: Str, folder: u32) -> u32>,
    /// There is more, and the next page begins here. Not for a page without an entry.
    pub next: Option<unsafe extern "C" fn(context: *mut c_void, after: Str) -> u32>,
    /// What went wrong, in words; what to do about it, which may be absent; and for how long the
    /// store asks to be left alone, in milliseconds, or 0. Never a byte of a secret.
    pub error: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            message: Str,
            advice: Str,
            retry_after_ms: u64,
        ) -> u32,
    >,
    /// 1 where nobody waits for this call any more, and nothing would come of its answer.
    pub cancelled: Option<unsafe extern "C" fn(context: *mut c_void) -> u32>,
}
