//! Folders and files under a root: walked one name at a time without following links, each checked
//! for owner and mode.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result, typed};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{corrupt, io_error, unsafe_path};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
// Non-blocking, so that a pipe planted under a secret's name is refused and not waited for.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const PRIVATE_FOLDER: Mode = Mode::RWXU;

/// An open folder, safe to work in.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
    Other,
}

impl Folder {
    /// Opens the root; none where there is none. The root itself may be a link: where a store is
    /// kept is the policy's choice.
    pub(crate) fn root(path: &Path) -> Result<Option<Self>> {
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Self::checked(fd, path.to_owned()).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{} is no folder", path.display()),
            )),
            Err(error) => Err(io_error("opening", path, error)),
        }
    }

    /// Opens the root, made with its parents where there is none.
    pub(crate) fn make_root(path: &Path) -> Result<Self> {
        if let Some(root) = Self::root(path)? {
            return Ok(root);
        }
        make_private_folders(path)?;
        Self::root(path)?
            .ok_or_else(|| io_error("opening", path, io::Error::from(io::ErrorKind::NotFound)))
    }

    /// Opens a folder that is not the store's, as the one an identity lies in: others may look into it.
    pub(crate) fn shared(path: &Path) -> Result<Self> {
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| io_error("opening", path, error))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// This folder once more.
    pub(crate) fn again(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|error| io_error("opening", &self.path, error))?;
        Ok(Self {
            fd,
            path: self.path.clone(),
        })
    }

    /// The folder `name` in this one; none where there is none.
    pub(crate) fn enter(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path.join(name);
        match rustix::fs::openat(&self.fd, name, FOLDER, Mode::empty()) {
            Ok(fd) => Self::checked(fd, path).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => match self.kind(name)? {
                Some(Kind::Link) => Err(link(&path)),
                _ => Ok(None),
            },
            Err(error) => Err(io_error("opening", &path, error)),
        }
    }

    /// The folder `name` in this one, made where there is none, durably.
    pub(crate) fn enter_or_make(&self, name: &str) -> Result<Self> {
        if let Some(folder) = self.enter(name)? {
            return Ok(folder);
        }
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, PRIVATE_FOLDER) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io_error("making the folder", &path, error)),
        }
        self.enter(name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidReference,
                format!("{} is a file, so nothing can lie below it", path.display()),
            )
            .with_advice("choose a name that is not below another secret's")
        })
    }

    /// The regular file `name`, checked and open for reading; none where there is none.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<(File, Stat)>> {
        let path = self.path.join(name);
        let fd = match rustix::fs::openat(&self.fd, name, FILE, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(link(&path)),
            // Sockets, and devices without a driver.
            Err(Errno::NXIO | Errno::NODEV) => return Err(corrupt(&path, "is no regular file")),
            Err(error) => return Err(io_error("opening", &path, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| io_error("reading", &path, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(None),
            _ => return Err(corrupt(&path, "is no regular file")),
        }
        check(&stat, &path, "0600")?;
        Ok(Some((File::from(fd), stat)))
    }

    /// All bytes of the file `name`, which are no secret; none where there is none. Longer than
    /// `limit` is `Corrupt`: nothing of ours is.
    pub(crate) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        // Over NFS, a file replaced by another host while it is read is stale: there is a new one.
        for _ in 0..3 {
            let Some((file, stat)) = self.open_file(name)? else {
                return Ok(None);
            };
            let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
            if size > limit {
                return Err(corrupt(&path, "is longer than anything keyhaul writes"));
            }
            let mut bytes = Vec::with_capacity(size);
            match file.take(limit as u64).read_to_end(&mut bytes) {
                Ok(_) => return Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {}
                Err(error) => return Err(io_error("reading", &path, error)),
            }
        }
        Err(io_error(
            "reading",
            &path,
            io::Error::from(io::ErrorKind::StaleNetworkFileHandle),
        ))
    }

    /// Opens the file `name` for locking, made with `mode` where there is none.
    pub(crate) fn open_lock(&self, name: &str, mode: Mode) -> Result<OwnedFd> {
        let path = self.path.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, mode).map_err(|error| match error {
            Errno::LOOP => link(&path),
            error => io_error("locking", &path, error),
        })
    }

    /// Removes the file or link `name`; whether there was one.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // In a clear-text store, a folder of that name: no secret.
            Err(Errno::ISDIR) => Ok(false),
            Err(error) => Err(io_error("removing", &self.path.join(name), error)),
        }
    }

    /// Removes the folder `name` where it is empty; whether it was.
    pub(crate) fn remove_empty(&self, name: &str) -> bool {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// Makes what happened in this folder durable.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.fd))
            .map_err(|error| io_error("writing", &self.path, error))
    }

    /// Everything in this folder but `.`, `..` and names that are not UTF-8, which are not ours.
    pub(crate) fn entries(&self) -> Result<Vec<(String, Kind)>> {
        let failed = |error| io_error("listing", &self.path, error);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Not every file system says.
                FileType::Unknown => self.kind(name)?,
                known => Some(Kind::of(known)),
            };
            if let Some(kind) = kind {
                entries.push((name.to_owned(), kind));
            }
        }
        Ok(entries)
    }

    /// The open folder itself, for what [`temporary`](crate::temporary) does in it.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where this folder is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self, name: &str) -> Result<Option<Kind>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Kind::of(FileType::from_raw_mode(stat.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io_error("reading", &self.path.join(name), error)),
        }
    }

    fn checked(fd: OwnedFd, path: PathBuf) -> Result<Self> {
        let stat =
            rustix::fs::fstat(fd.as_fd()).map_err(|error| io_error("reading", &path, error))?;
        check(&stat, &path, "0700")?;
        Ok(Self { fd, path })
    }
}

impl Kind {
    fn of(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

/// Makes a folder and its parents, where they are missing, readable by nobody else, and durable.
pub(crate) fn make_private_folders(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_private_folders(parent)?;
        match rustix::fs::mkdir(path, PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io_error("making the folder", path, error)),
        }
        let sync = rustix::fs::open(parent, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())
            .and_then(|fd| rustix::io::retry_on_intr(|| rustix::fs::fsync(&fd)));
        sync.map_err(|error| io_error("writing", parent, error))?;
    }
    Ok(())
}

fn check(stat: &Stat, path: &Path, wanted: &str) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid != us && stat.st_uid != 0 {
        return Err(unsafe_path(
            path,
            &format!(
                "belongs to user {}, neither to root nor to user {us}",
                stat.st_uid
            ),
        )
        .with_advice(format!("chown {us} {}", typed(path))));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(unsafe_path(
            path,
            &format!(
                "has mode {:04o}: others could get at it",
                stat.st_mode & 0o7777
            ),
        )
        .with_advice(format!("chmod {wanted} {}", typed(path))));
    }
    Ok(())
}

fn link(path: &Path) -> Error {
    unsafe_path(path, "is a symbolic link, which could lead anywhere")
        .with_advice("put the file itself there, or make the whole root a link")
}
