//! How the process ends.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};

use keyhaul_core::{Error, ErrorKind};

use crate::output;

/// The exit status where somebody else ends the process.
static UNASKED: AtomicU8 = AtomicU8::new(0);

/// Ends the process at once, whatever a store still blocks.
///
/// Not by `exit`: that runs what libraries have registered, beside calls of theirs that have not come back,
/// and waits for a library that hangs while it is loaded, for ever.
pub fn end(status: u8) -> ! {
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    // SAFETY: nothing comes after it.
    unsafe { libc::_exit(status.into()) }
}

/// From now on, a library that ends the process by `exit` does so with this status, and not in silence:
/// whoever waits for us would take it for our word.
pub fn guard(status: u8) {
    UNASKED.store(status, Ordering::Relaxed);
    // SAFETY: the function takes nothing and gives nothing. Where there is no room for it, it is not called.
    unsafe { libc::atexit(unasked) };
}

/// The same for a worker, of which whoever watches it says how it ended: in silence, and as one that has
/// told nothing more.
pub fn guard_worker() {
    extern "C" fn silent() {
        end(0);
    }
    // SAFETY: as above.
    unsafe { libc::atexit(silent) };
}

extern "C" fn unasked() {
    let rule = "a library has ended keyhaul, as none may";
    let error = Error::new(ErrorKind::Internal, rule).with_advice(
        "keyhaul plugin list says which plugin does; until it is mended, take its store out of the policy",
    );
    output::failures(&[error]);
    end(UNASKED.load(Ordering::Relaxed));
}
