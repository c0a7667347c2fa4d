//! Reading what the host lends.

use std::mem::MaybeUninit;
use std::slice;

use keyhaul_core::{Error, ErrorKind, Result, SecretPath};
use keyhaul_plugin_abi::{Head, MAGIC, MAJOR, Pair, Str};

/// A copy of a table, with zeros where the host knows fewer fields than we do. Nothing where it
/// is none of this interface's.
///
/// # Safety
/// `ptr` is null, or points to a table that begins with a head and is as long as that says; and `T`
/// is such a table, all of whose fields may be zero.
pub(crate) unsafe fn table<T>(ptr: *const T) -> Option<T> {
    if ptr.is_null() || !ptr.is_aligned() {
        return None;
    }
    // SAFETY: it begins with a head.
    let head = unsafe { ptr.cast::<Head>().read() };
    if head.magic != MAGIC || head.major != MAJOR || head.size < size_of::<Head>() {
        return None;
    }
    let mut value = MaybeUninit::<T>::zeroed();
    let size = head.size.min(size_of::<T>());
    // SAFETY: both are at least so long, and `value` is ours. Zeros are a `T`, and so are a `T`'s
    // own bytes.
    unsafe {
        ptr.cast::<u8>()
            .copy_to_nonoverlapping(value.as_mut_ptr().cast(), size);
        Some(value.assume_init())
    }
}

/// The error for a table that is none.
pub(crate) fn no_table() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the host gave a table of another interface",
    )
}

/// Bytes that are lent.
///
/// # Safety
/// `ptr` points to `len` bytes for as long as the answer is used, or `len` is 0.
pub(crate) unsafe fn bytes<'a>(ptr: *const u8, len: usize) -> &'a [u8] {
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: as the caller vouches.
    unsafe { slice::from_raw_parts(ptr, len) }
}

/// A text, which may be absent.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(text: Str) -> Result<Option<&'a str>> {
    if text.ptr.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller vouches.
    let bytes = unsafe { bytes(text.ptr, text.len) };
    let text = std::str::from_utf8(bytes);
    text.map(Some)
        .map_err(|_| Error::new(ErrorKind::Internal, "the host gave a text that is no UTF-8"))
}

/// A path. The empty one is the root.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn path(path: Str) -> Result<SecretPath> {
    // SAFETY: as the caller vouches.
    match unsafe { text(path) }? {
        None | Some("") => Ok(SecretPath::root()),
        Some(path) => SecretPath::new(path),
    }
}

/// Pairs of texts.
///
/// # Safety
/// As [`bytes`], for the pairs and each text in them.
pub(crate) unsafe fn pairs<'a>(ptr: *const Pair, len: usize) -> Result<Vec<(&'a str, &'a str)>> {
    if ptr.is_null() || len == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: as the caller vouches.
    let pairs = unsafe { slice::from_raw_parts(ptr, len) };
    let read = |pair: &Pair| {
        // SAFETY: as the caller vouches.
        let (name, value) = unsafe { (text(pair.name)?, text(pair.value)?) };
        Ok((name.unwrap_or_default(), value.unwrap_or_default()))
    };
    pairs.iter().map(read).collect()
}
