//! Overwriting memory in a way that the optimiser must keep.

use std::hint::black_box;
use std::mem::MaybeUninit;

/// How much of the stack [`wiping_stack`] reaches: several times what decrypting and decoding take.
const STACK: usize = 64 * 1024;
/// How much [`wiping_some_stack`] reaches: several times what deriving one key takes, and less than
/// what processors keep closest.
const SOME_STACK: usize = 16 * 1024;

/// Overwrites `bytes` with zeros.
///
/// A plain fill before a free is a dead store, and compilers remove it. `explicit_bzero` is the C
/// library's promise that it stays, and an order of magnitude faster than volatile byte stores.
pub fn wipe(bytes: &mut [u8]) {
    // SAFETY: the pointer and length come from a live, exclusive slice of plain bytes.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) }
}

/// Does `work`, and then overwrites what it left on this thread's stack.
///
/// Ciphers, decoders and moves leave copies of keys and values in frames that nothing ever uses
/// again. A process that lives on after such work, or a thread that does, would keep them. It costs
/// some microseconds and 64 KiB of stack.
pub fn wiping_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    wipe_below::<STACK>();
    done
}

/// As [`wiping_stack`], for work that goes no deeper than deriving a key or two: a quarter of the
/// stack, and of the time.
pub fn wiping_some_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    wipe_below::<SOME_STACK>();
    done
}

/// Keeps `work` in frames below the caller's, where [`wipe_below`] reaches them.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_below<const REACH: usize>() {
    let mut left = [const { MaybeUninit::<u8>::uninit() }; REACH];
    // SAFETY: zeros are written to an array of our own, which is that long.
    unsafe { libc::explicit_bzero(left.as_mut_ptr().cast(), REACH) }
    black_box(&left);
}
