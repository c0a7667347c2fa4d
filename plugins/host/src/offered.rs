//! Writing where a plugin says.

use std::io;
use std::os::fd::AsRawFd as _;

use keyhaul_plugin_abi::Bytes;
use rustix::pipe::PipeFlags;

use crate::copy;

/// Writes `bytes` to `place`, as [`copy`] reads: it is the kernel that does. Whether there is memory
/// that can be written.
pub(crate) fn write(place: *mut Bytes, bytes: Bytes) -> bool {
    match at_once(place, &bytes) {
        Ok(written) => written == size_of::<Bytes>(),
        Err(error) if copy::is_forbidden(&error) => through_a_pipe(place, &bytes).is_ok(),
        Err(_) => false,
    }
}

/// By one call, which a sandbox may forbid.
fn at_once(place: *mut Bytes, bytes: &Bytes) -> io::Result<usize> {
    let ours = libc::iovec {
        iov_base: (&raw const *bytes).cast_mut().cast(),
        iov_len: size_of::<Bytes>(),
    };
    let theirs = libc::iovec {
        iov_base: place.cast(),
        iov_len: size_of::<Bytes>(),
    };
    // SAFETY: `ours` is only read, and lives until this returns; the kernel checks `theirs` itself.
    let written = unsafe { libc::process_vm_writev(libc::getpid(), &ours, 1, &theirs, 1, 0) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// By the calls that no sandbox forbids.
fn through_a_pipe(place: *mut Bytes, bytes: &Bytes) -> io::Result<()> {
    let (reads, writes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (from, len) = ((&raw const *bytes).cast(), size_of::<Bytes>());
    // SAFETY: as many bytes as `bytes` has are read; the kernel checks where they are written to.
    let through = unsafe {
        libc::write(writes.as_raw_fd(), from, len);
        libc::read(reads.as_raw_fd(), place.cast(), len)
    };
    match usize::try_from(through) {
        Ok(through) if through == len => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    type Writing = fn(*mut Bytes, &Bytes) -> bool;

    /// Both ways, of which a system takes one.
    const WAYS: [Writing; 2] = [
        |place, bytes| at_once(place, bytes).is_ok_and(|written| written == size_of::<Bytes>()),
        |place, bytes| through_a_pipe(place, bytes).is_ok(),
    ];

    #[test]
    fn only_memory_that_is_there_and_can_be_written_is_written_to() {
        static CONSTANT: [usize; 2] = [7; 2];
        let given = Bytes {
            ptr: ptr::without_provenance(1),
            len: 2,
        };
        for write in WAYS {
            let mut place = [0_u8; size_of::<Bytes>() + 1];
            // Odd, so that it is aligned for nobody.
            assert!(write(place[1..].as_mut_ptr().cast(), &given));
            let halves = place[1..].split_at(size_of::<usize>());
            assert_eq!(halves.0, 1_usize.to_ne_bytes());
            assert_eq!(halves.1, 2_usize.to_ne_bytes());
            for nowhere in [
                ptr::null_mut(),
                ptr::without_provenance_mut(4096),
                ptr::without_provenance_mut(usize::MAX - 3),
                (&raw const CONSTANT).cast_mut().cast(),
            ] {
                assert!(!write(nowhere, &given), "{nowhere:p}");
            }
            assert_eq!(CONSTANT, [7; 2]);
        }
    }
}
