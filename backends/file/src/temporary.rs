//! Atomic writes: a temporary file, moved to its place once it is on the disk.
//!
//! Temporary files lie in the root, whatever folder they are meant for: there the next writer finds
//! what a killed one left without walking the tree, and nobody lists them.

use std::fs::File;
use std::io::Write;

use keyhaul_core::{Error, ErrorKind, Result, random};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::io_error;
use crate::tree::{Folder, Kind};

const PREFIX: &str = ".tmp-";

/// A file that is written and not yet in its place. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary<'a> {
    folder: &'a Folder,
    name: String,
    placed: bool,
}

impl Folder {
    /// Writes `bytes` durably to a temporary file in this folder. Not secret in an encrypted
    /// store; in a clear-text one the file is the secret's next home.
    pub(crate) fn write_temporary(&self, bytes: &[u8]) -> Result<Temporary<'_>> {
        let name = format!("{PREFIX}{}", random::hex(8)?);
        let path = self.path().join(&name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.fd(), name.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| io_error("writing", &path, error))?;
        let temporary = Temporary {
            folder: self,
            name,
            placed: false,
        };
        let mut file = File::from(fd);
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| io_error("writing", &path, error))?;
        Ok(temporary)
    }

    /// Replaces the file `name` in this folder, durably.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_temporary(bytes)?.place(self, name)?;
        self.sync()
    }

    /// Removes what killed writers left. Only for the holder of the lock: nobody else is writing.
    pub(crate) fn sweep(&self) -> Result<()> {
        for (name, kind) in self.entries()? {
            if kind == Kind::File && name.starts_with(PREFIX) {
                tracing::debug!(file = %self.path().join(&name).display(), "removing what a killed writer left");
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl Temporary<'_> {
    /// Moves the file to its place, over what is there. Durable once `folder` is synced.
    pub(crate) fn place(mut self, folder: &Folder, name: &str) -> Result<()> {
        match rustix::fs::renameat(self.folder.fd(), self.name.as_str(), folder.fd(), name) {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            Err(Errno::ISDIR) => Err(Error::new(
                ErrorKind::InvalidReference,
                format!("{} is a folder", folder.path().join(name).display()),
            )
            .with_advice("choose a name that no other secret lies below")),
            Err(error) => Err(io_error("writing", &folder.path().join(name), error)),
        }
    }

    /// Moves the file to its place in the same folder; whether the place was free.
    pub(crate) fn place_new(mut self, name: &str) -> Result<bool> {
        let folder = &self.folder;
        let from = self.name.as_str();
        let moved =
            rustix::fs::renameat_with(folder.fd(), from, folder.fd(), name, RenameFlags::NOREPLACE);
        let done = match moved {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            // NFS and others cannot: a second name does the same, and the first goes with `self`.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(folder.fd(), from, folder.fd(), name, AtFlags::empty())
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(io_error("writing", &folder.path().join(name), error)),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed now is swept by the next writer.
            let _ = rustix::fs::unlinkat(self.folder.fd(), self.name.as_str(), AtFlags::empty());
        }
    }
}
