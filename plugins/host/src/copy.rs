//! Memory that a plugin shows, copied by the kernel, as it would copy from another process: what is not
//! there is an error then, and no crash.
//!
//! No pointer is followed here. So whoever asks for a copy has nothing to vouch for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::slice;

use keyhaul_plugin_abi::{Head, Pair, Plugin, PluginOption};
use rustix::pipe::PipeFlags;

/// So many pieces the kernel reads at once.
const PIECES: usize = 1024;
/// So many bytes go through a pipe at once: what one holds.
const PIPEFUL: usize = 64 * 1024;

/// A table of the interface, that can be made of a plugin's bytes.
///
/// # Safety
/// It has no padding, and any bytes are one: it is made of numbers, pointers and optional functions.
/// None of these is believed for that: a function is only ever as good as the plugin's word.
pub(crate) unsafe trait Table {}

// SAFETY: numbers, which fill it.
unsafe impl Table for Head {}
// SAFETY: two texts, which are a pointer and a number each.
unsafe impl Table for Pair {}
// SAFETY: numbers, pointers, texts and optional functions, all as wide as a pointer; and the head.
unsafe impl Table for Plugin {}
// SAFETY: three texts and two numbers of half their width.
unsafe impl Table for PluginOption {}

/// `T` with its first bytes from there, `size` at most, and zeros behind. Nothing where there is no
/// memory.
pub(crate) fn table<T: Table>(ptr: *const T, size: usize) -> Option<T> {
    // SAFETY: any bytes are one.
    let mut table = unsafe { MaybeUninit::<T>::zeroed().assume_init() };
    let bytes = bytes(slice::from_mut(&mut table));
    let size = size.min(bytes.len());
    read(ptr.cast(), &mut bytes[..size]).then_some(table)
}

/// The bytes of tables.
pub(crate) fn bytes<T: Table>(tables: &mut [T]) -> &mut [u8] {
    // SAFETY: they have no padding, and whatever is written there, they are tables.
    unsafe { slice::from_raw_parts_mut(tables.as_mut_ptr().cast(), size_of_val(tables)) }
}

/// Copies what is at `ptr`, as long as `to` is. Whether it was there.
pub(crate) fn read(ptr: *const u8, to: &mut [u8]) -> bool {
    gather(&[(ptr, to.len())], to)
}

/// Copies pieces one behind the other, which have as many bytes together as `to`. Whether all of
/// them were there.
pub(crate) fn gather(pieces: &[(*const u8, usize)], mut to: &mut [u8]) -> bool {
    for some in pieces.chunks(PIECES) {
        let len = some.iter().map(|(_, len)| len).sum();
        let (part, rest) = to.split_at_mut(len);
        to = rest;
        let is_there = match at_once(some, part) {
            Ok(copied) => copied == part.len(),
            Err(error) if is_forbidden(&error) => through_a_pipe(some, part).is_ok(),
            Err(_) => false,
        };
        if !is_there {
            return false;
        }
    }
    true
}

/// By one call, which a sandbox may forbid.
fn at_once(pieces: &[(*const u8, usize)], to: &mut [u8]) -> io::Result<usize> {
    if to.is_empty() {
        return Ok(0);
    }
    let given = |&(ptr, len): &(*const u8, usize)| libc::iovec {
        iov_base: ptr.cast_mut().cast(),
        iov_len: len,
    };
    let ours = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: to.len(),
    };
    // The usual case needs no memory of its own.
    let (one, many);
    let given: &[libc::iovec] = if let [piece] = pieces {
        one = [given(piece)];
        &one
    } else {
        many = pieces.iter().map(given).collect::<Vec<_>>();
        &many
    };
    let count = given.len() as libc::c_ulong;
    // To write, and not to read: then memory that only its own process can read will do as well,
    // as that of memfd_secret.
    // SAFETY: `ours` is an exclusive slice, and the kernel checks `given` itself.
    let copied =
        unsafe { libc::process_vm_writev(libc::getpid(), given.as_ptr(), count, &ours, 1, 0) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// Whether the kernel would not copy for us at all.
pub(crate) fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}

/// By the calls that no sandbox forbids. A pipe's memory is the kernel's, which nobody else reads.
fn through_a_pipe(pieces: &[(*const u8, usize)], to: &mut [u8]) -> io::Result<()> {
    let (reads, writes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let mut left = to;
    for &(ptr, len) in pieces {
        let mut done = 0;
        while done < len {
            let piece = PIPEFUL.min(len - done);
            let written = write(&writes, ptr.wrapping_add(done), piece)?;
            let (part, rest) = left.split_at_mut(written);
            // What is in it comes out at once.
            if rustix::io::read(&reads, &mut *part)? != written || written == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += written;
            left = rest;
        }
    }
    Ok(())
}

/// Has the kernel copy what is there into a pipe, as much as there is room. How much that was.
fn write(pipe: &OwnedFd, ptr: *const u8, len: usize) -> io::Result<usize> {
    // SAFETY: the kernel checks what it reads, and reads no more than `len`.
    let written = unsafe { libc::write(pipe.as_raw_fd(), ptr.cast(), len) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Copying = fn(&[(*const u8, usize)], &mut [u8]) -> bool;

    /// Both ways, of which a system takes one.
    const WAYS: [Copying; 2] = [
        |pieces, to| at_once(pieces, to).is_ok_and(|copied| copied == to.len()),
        |pieces, to| through_a_pipe(pieces, to).is_ok(),
    ];

    fn piece(bytes: &[u8]) -> (*const u8, usize) {
        (bytes.as_ptr(), bytes.len())
    }

    #[test]
    fn pieces_of_every_length_come_one_behind_the_other() {
        let whole: Vec<u8> = (0..3 * PIPEFUL).map(|at| (at % 251) as u8).collect();
        for copy in WAYS {
            for cuts in [
                [0, 0],
                [1, 2],
                [PIPEFUL - 1, PIPEFUL + 1],
                [PIPEFUL, 2 * PIPEFUL],
                [7, 3 * PIPEFUL],
            ] {
                let (first, rest) = whole.split_at(cuts[0]);
                let (second, third) = rest.split_at(cuts[1] - cuts[0]);
                let mut copied = vec![0; whole.len()];
                let pieces = [first, second, third].map(piece);
                assert!(copy(&pieces, &mut copied), "{cuts:?}");
                assert!(copied == whole, "{cuts:?}");
            }
        }
    }

    #[test]
    fn what_is_there_in_part_is_not_there() {
        // A multiple of what any system has.
        let page = PIPEFUL;
        // SAFETY: two new pages, at an address that the kernel chooses; nothing is in the second one,
        // which nobody can read from then on. They stay, so that nobody else gets them.
        let begin = unsafe {
            let (open, closed) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_NONE);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let both = libc::mmap(std::ptr::null_mut(), 2 * page, open, flags, -1, 0);
            assert_ne!(both, libc::MAP_FAILED);
            assert_eq!(
                libc::mprotect(both.wrapping_byte_add(page), page, closed),
                0
            );
            both.cast::<u8>().cast_const()
        };
        let end = begin.wrapping_add(page);
        for copy in WAYS {
            let mut to = vec![1; 16];
            assert!(copy(&[(end.wrapping_sub(16), 16)], &mut to), "the control");
            assert_eq!(to, [0; 16]);
            assert!(!copy(&[(end.wrapping_sub(8), 16)], &mut to));
            assert!(!copy(&[(end, 16)], &mut to));
            assert!(!copy(&[(begin, 8), (end, 8)], &mut to));
            assert!(!copy(&[(std::ptr::null(), 16)], &mut to));
        }
    }
}
