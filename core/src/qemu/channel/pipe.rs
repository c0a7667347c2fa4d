use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;

use super::{KeySource, Owner};
use crate::qemu::MasterKey;
use crate::{Error, Result};

/// A pipe that holds the master key and has no writer left: nothing on disk, read once, empty
/// afterwards.
///
/// QEMU opens `/dev/fd/N`, which checks the pipe's owner and mode anew; hence the owner. The key
/// fits into the pipe's buffer, so that writing never waits, and the writing end is closed before
/// anybody reads, or QEMU would wait for ever for the end.
#[derive(Debug)]
pub struct PipeChannel {
    read: OwnedFd,
}

impl PipeChannel {
    /// Makes a pipe with the key in it, for the `owner` that QEMU runs as. Its descriptor closes
    /// at exec until [`make_inheritable`](Self::make_inheritable).
    ///
    /// # Errors
    /// `PermissionDenied` where the pipe cannot be given to the owner, `Unavailable` where there is
    /// no descriptor left.
    pub fn open(master: &MasterKey, owner: Option<Owner>) -> Result<Self> {
        let failed = |error: rustix::io::Errno| Error::io("making the pipe", error.into());
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        // 0 to 2 are QEMU's standard streams, even where the caller closed them.
        let read = if read.as_raw_fd() > 2 {
            read
        } else {
            rustix::io::fcntl_dupfd_cloexec(&read, 3).map_err(failed)?
        };
        let written = rustix::io::write(&write, master.expose()).map_err(failed)?;
        if written != MasterKey::LEN {
            return Err(Error::io(
                "writing the pipe",
                io::ErrorKind::WriteZero.into(),
            ));
        }
        if let Some(owner) = owner {
            let (uid, gid) = owner.ids();
            rustix::fs::fchown(&read, uid, gid).map_err(|error| {
                Error::io(
                    format!("giving the pipe to user {}", owner.uid),
                    error.into(),
                )
                .with_advice("only root can start QEMU as another user")
            })?;
        }
        Ok(Self { read })
    }

    /// The descriptor that QEMU inherits.
    pub fn fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    /// What the master key's object says.
    pub fn property(&self) -> KeySource {
        KeySource::File(format!("/dev/fd/{}", self.fd()))
    }

    /// Whether the key is still in the pipe. After QEMU has ended, this means that it never came
    /// to the pipe: a wrapper in between closed it.
    pub fn is_unread(&self) -> bool {
        rustix::io::ioctl_fionread(&self.read).is_ok_and(|bytes| bytes > 0)
    }

    /// Lets the descriptor survive exec. One system call and no allocation: made for the moment
    /// between fork and exec, so that no other child of this process inherits the key.
    ///
    /// # Errors
    /// The system call's.
    pub fn make_inheritable(&self) -> io::Result<()> {
        Ok(rustix::io::fcntl_setfd(
            self.read.as_fd(),
            FdFlags::empty(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_reads_the_key_once_and_to_its_end() {
        let master = MasterKey::generate().expect("randomness");
        let pipe = PipeChannel::open(&master, None).expect("opened");
        assert!(pipe.is_unread());
        assert_eq!(cat(&pipe, true), master.expose());
        assert!(!pipe.is_unread());
        assert_eq!(cat(&pipe, true), b"");
    }

    #[test]
    fn a_child_that_does_not_inherit_leaves_it_unread() {
        let master = MasterKey::generate().expect("randomness");
        let pipe = PipeChannel::open(&master, None).expect("opened");
        assert_eq!(cat(&pipe, false), b"");
        assert!(pipe.is_unread());
    }

    fn cat(pipe: &PipeChannel, inherit: bool) -> Vec<u8> {
        let KeySource::File(path) = pipe.property() else {
            panic!("a pipe is a file")
        };
        let copy = PipeChannel {
            read: rustix::io::fcntl_dupfd_cloexec(&pipe.read, 3).expect("copied"),
        };
        // The child gets the descriptor under the number that the property names.
        let fd = pipe.fd();
        let mut command = Command::new("cat");
        command.arg(&path);
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if !inherit {
                    return Ok(());
                }
                copy.make_inheritable()?;
                let number = copy.fd();
                assert_ne!(number, fd);
                match libc::dup2(number, fd) {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        command.output().expect("cat").stdout
    }
}
