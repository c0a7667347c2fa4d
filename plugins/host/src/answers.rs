//! The functions of a sink. Each is called by a plugin, with whatever it likes.

use std::ffi::c_void;
use std::time::Duration;

use keyhaul_core::SecretPath;
use keyhaul_core::law::{LONGEST_CURSOR, MOST_LABELS};
use keyhaul_plugin_abi as abi;

use crate::contained::contained;
use crate::sink::{self, Answered, MAX_VALUE, Words, gave_no};
use crate::{lent, offered};

/// The longest message or advice, in characters.
const MAX_WORDS: usize = 1000;

/// The functions that every sink has.
pub(crate) static ANSWERS: abi::Answers = abi::Answers {
    head: abi::Head::of::<abi::Answers>(),
    capabilities: Some(capabilities),
    value: Some(value),
    metadata: Some(metadata),
    item: Some(item),
    entry: Some(entry),
    next: Some(next),
    error: Some(error),
    cancelled: Some(cancelled),
};

fn answer(
    context: *mut c_void,
    take: impl FnOnce(&mut Answered) -> keyhaul_core::Result<()>,
) -> u32 {
    contained(abi::INTERNAL, || sink::answer(context, take))
}

pub(crate) extern "C" fn capabilities(context: *mut c_void, can: u64, max_value: u64) -> u32 {
    answer(context, |answered| {
        answered.take_capabilities(can, max_value)
    })
}

pub(crate) extern "C" fn value(context: *mut c_void, value: abi::Bytes) -> u32 {
    answer(context, |answered| {
        answered.take_value(|| lent::value(value, MAX_VALUE))
    })
}

pub(crate) extern "C" fn metadata(
    context: *mut c_void,
    pairs: *const abi::Pair,
    len: usize,
) -> u32 {
    answer(context, |answered| {
        answered.take_metadata(&lent::pairs(pairs, len, MOST_LABELS)?)
    })
}

pub(crate) extern "C" fn item(context: *mut c_void, index: usize, status: u32) -> u32 {
    answer(context, |answered| answered.take_item(index, status))
}

pub(crate) extern "C" fn entry(context: *mut c_void, path: abi::Str, folder: u32) -> u32 {
    answer(context, |answered| {
        let path = lent::text("a path", path, SecretPath::MAX)?;
        answered.listing.take(&path.unwrap_or_default(), folder)
    })
}

pub(crate) extern "C" fn next(context: *mut c_void, after: abi::Str) -> u32 {
    answer(context, |answered| {
        let after = lent::text("a cursor", after, LONGEST_CURSOR)?;
        answered
            .listing
            .take_next(after.ok_or_else(|| gave_no("cursor"))?)
    })
}

pub(crate) extern "C" fn error(
    context: *mut c_void,
    message: abi::Str,
    advice: abi::Str,
    retry_after_ms: u64,
) -> u32 {
    answer(context, |answered| {
        answered.take_words(Words {
            message: lent::words(message, MAX_WORDS),
            advice: lent::words(advice, MAX_WORDS),
            retry_after: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms)),
        });
        Ok(())
    })
}

pub(crate) extern "C" fn cancelled(context: *mut c_void) -> u32 {
    // Who asks after the end, or from elsewhere, is not waited for.
    contained(1, || {
        let over = sink::running(context, |answered| answered.is_cancelled());
        u32::from(over.unwrap_or(true))
    })
}

/// Gives an opening store a credential.
pub(crate) extern "C" fn credential(
    context: *mut c_void,
    name: abi::Str,
    bytes: *mut abi::Bytes,
) -> u32 {
    let mut shown = None;
    let status = answer(context, |answered| {
        let name = lent::text("an option's name", name, MAX_WORDS)?;
        shown = answered.credential(&name.unwrap_or_default())?;
        Ok(())
    });
    match shown {
        _ if status != abi::OK => status,
        None => abi::NOT_FOUND,
        Some(shown) if offered::write(bytes, shown) => abi::OK,
        Some(_) => abi::INTERNAL,
    }
}
