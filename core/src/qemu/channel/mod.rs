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

pub use file::{FileChannel, release};
pub use folder::KEY_FILE;
pub use keyring::{KeyringChannel, release_serial};
pub use pipe::PipeChannel;
pub use runtime_dir::RuntimeDir;
pub use sweep::sweep;
pub use watch::ReadWatch;

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
