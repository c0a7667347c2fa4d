//! Overwriting memory in a way that the optimiser must keep.

/// Overwrites `bytes` with zeros.
///
/// A plain fill before a free is a dead store, and compilers remove it. `explicit_bzero` is the C
/// library's promise that it stays, and an order of magnitude faster than volatile byte stores.
pub fn wipe(bytes: &mut [u8]) {
    // SAFETY: the pointer and length come from a live, exclusive slice of plain bytes.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) }
}
