//! The one call of the kernel's keyrings that no crate wraps.

use std::io;

/// `keyctl(2)`, not in every C library's headers.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Gives the calling thread, and what it starts from now on, a fresh anonymous session keyring.
pub(super) fn join_fresh_session() -> io::Result<()> {
    let name = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; the call reads and writes no memory of
    // this process.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    if serial < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
