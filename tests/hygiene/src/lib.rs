//! The hunt for secrets where none may be.
//!
//! A canary goes through keyhaul and is then looked for, in every [disguise](Disguise), in the
//! [arguments and environments](process) of processes, in [files](files), in the
//! [system calls](trace) that keyhaul and its programs make, and in its [memory](memory). Each
//! place has a control beside it that must be found, so that a hunt that finds nothing means
//! something.
//!
//! It needs root, for other processes' memory, and says so where it is not.

pub mod files;
pub mod freed;
pub mod house;
pub mod hunt;
pub mod memory;
pub mod needle;
pub mod process;
pub mod program;
pub mod qemu;
pub mod store;
pub mod terminal;
pub mod trace;

use std::fmt;

pub use house::{Done, House};
pub use needle::{Disguise, Hit, Needle};

/// A secret, or a piece of one, in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// Where it was.
    pub place: String,
    /// What it was.
    pub hit: Hit,
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.hit)
    }
}

/// Looks for `needles` in bytes that are at `place`.
pub fn search(place: &str, haystack: &[u8], needles: &[&Needle]) -> Vec<Find> {
    let find = |hit| Find {
        place: place.to_owned(),
        hit,
    };
    needles
        .iter()
        .flat_map(|needle| needle.find(haystack))
        .map(find)
        .collect()
}

/// Fails with every find.
///
/// # Panics
/// Where there is one.
#[track_caller]
pub fn assert_clean(finds: &[Find]) {
    let lines: Vec<String> = finds.iter().map(ToString::to_string).collect();
    assert!(
        finds.is_empty(),
        "secrets where none may be:\n{}",
        lines.join("\n")
    );
}

/// Makes sure that other processes' memory can be read.
///
/// # Panics
/// Where this is not root.
#[track_caller]
pub fn need_root() {
    // SAFETY: takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    assert!(
        user == 0,
        "this hunt reads other processes' memory and runs programs as other users, which takes \
         root: sudo -E env \"PATH=$PATH\" cargo test -p keyhaul-hygiene"
    );
}
