//! How the master key reaches QEMU.
//!
//! | channel | where the key is | who can read it | for |
//! |---|---|---|---|
//! | [pipe](PipeChannel) | in an inherited pipe, until QEMU has read it | whoever inherits it, once | `run` |
//! | [file](FileChannel) | in a private folder of the runtime directory | its owner and root | `resolve`, and wrappers that close descriptors |
//! | [keyring](KeyringChannel) | in the kernel, in a session keyring | whoever is in the session | hosts without a runtime directory |

mod file;
mod folder;
mod keyring;
mod pipe;
mod runtime_dir;
mod session;
mod sweep;
mod watch;

use std::fmt;
use std::str::FromStr;

pub use file::{FileChannel, release};
pub use folder::KEY_FILE;
pub use keyring::{KeyringChannel, release_serial};
pub use pipe::PipeChannel;
pub use runtime_dir::RuntimeDir;
pub use sweep::sweep;
pub use watch::ReadWatch;

use crate::{Error, ErrorKind, Result};

/// How the master key reaches QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// `file`.
    File,
    /// `keyring`.
    Keyring,
    /// `pipe`.
    Pipe,
}

impl ChannelKind {
    /// Every channel, in alphabetical order.
    pub const ALL: &'static [Self] = &[Self::File, Self::Keyring, Self::Pipe];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Keyring => "keyring",
            Self::Pipe => "pipe",
        }
    }
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChannelKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().copied().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("`{text}` is no channel: known are file, keyring and pipe"),
            )
        })
    }
}

/// The user and group that QEMU runs as, where they are not keyhaul's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Owner {
    fn ids(self) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
        (
            Some(rustix::fs::Uid::from_raw(self.uid)),
            Some(rustix::fs::Gid::from_raw(self.gid)),
        )
    }
}

/// Where QEMU finds the master key: the property that the master key's object gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// `secret` with `file=`: an absolute path to the 32 raw bytes.
    File(String),
    /// `secret_keyring` with `serial=`: a key whose payload is the 32 raw bytes.
    Serial(i32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_the_rest_lists_what_is_known() {
        for kind in ChannelKind::ALL {
            assert_eq!(kind.name().parse::<ChannelKind>().expect("known"), *kind);
        }
        let error = "memfd".parse::<ChannelKind>().expect_err("unknown");
        assert!(error.message().contains("file, keyring and pipe"));
    }
}
