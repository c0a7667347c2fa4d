//! The folder of credentials: files that are replaced whole.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keyhaul_core::{Error, ErrorKind, Result, random, trust};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::credstore;
use crate::error::io_error;

/// systemd's `CREDENTIAL_ENCRYPTED_SIZE_MAX`: it opens nothing longer.
const MOST: usize = (1024 + 128) * 1024;
const TEMPORARY: &str = ".tmp-";
/// No write takes that long: what is older was left by one that died.
const LEFT: Duration = Duration::from_secs(3600);

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
// Non-blocking, so that a pipe planted under a credential's name is refused and not waited for.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open folder in which nobody else can put a file.
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// An encrypted credential, as it lies there.
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) written: Option<SystemTime>,
}

impl Folder {
    /// Opens the folder; none where there is none.
    ///
    /// # Errors
    /// `PermissionDenied` where others could exchange credentials in it, `InvalidConfig` where systemd
    /// takes its own from it.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let Some(real) = trust::folder("the folder of credentials", path)? else {
            return Ok(None);
        };
        let failed = |error| io_error("opening", path, error);
        let fd = rustix::fs::open(&real, FOLDER, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        credstore::refuse_named(&real)?;
        credstore::refuse_itself(&real, &stat)?;
        let path = path.to_owned();
        Ok(Some(Self { fd, path }))
    }

    /// Opens the folder, made where there is none. The folder it lies in is there.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => {
                let said = format!("there is no folder to make {} in", path.display());
                return Err(Error::new(ErrorKind::Unavailable, said)
                    .with_advice("mount what it lies on, or make the folders above it"));
            }
            Err(error) => return Err(io_error("making the folder", path, error)),
        }
        if let Some(parent) = path.parent() {
            rustix::fs::open(parent, FOLDER, Mode::empty())
                .and_then(rustix::fs::fsync)
                .map_err(|error| io_error("writing", parent, error))?;
        }
        Self::open(path)?.ok_or_else(|| io_error("opening", path, Errno::NOENT))
    }

    /// The credential of this name; none where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Sealed>> {
        let Some((file, stat)) = self.file(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(MOST as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| io_error("reading", &self.path.join(name), error))?;
        if bytes.len() > MOST {
            return Err(self.corrupt(name, "is longer than any encrypted credential"));
        }
        let written = written(&stat);
        Ok(Some(Sealed { bytes, written }))
    }

    /// When the credential of this name was written; none where there is none.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Option<SystemTime>>> {
        Ok(self.file(name)?.map(|(_, stat)| written(&stat)))
    }

    /// Writes the credential of this name, durably; over what is there, or only where nothing is.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], only_new: bool) -> Result<()> {
        self.sweep()?;
        let temporary = format!("{TEMPORARY}{}", random::hex(8)?);
        let done = self
            .fill(&temporary, bytes)
            .and_then(|()| self.place(&temporary, name, only_new));
        // Where it was moved, there is none.
        let _ = rustix::fs::unlinkat(&self.fd, temporary.as_str(), AtFlags::empty());
        done?;
        self.sync()
    }

    /// Removes the credential of this name, durably, where there is one.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => self.sync(),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_error("removing", &self.path.join(name), error)),
        }
    }

    /// The names of all files, those in progress left out.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let failed = |error| io_error("listing", &self.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = matches!(
                entry.file_type(),
                // A link is in a secret's way; reading it says what is wrong. Not every file
                // system says what an entry is.
                FileType::RegularFile | FileType::Symlink | FileType::Unknown
            );
            if let (true, Ok(name)) = (is_file, entry.file_name().to_str())
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn file(&self, name: &str) -> Result<Option<(File, Stat)>> {
        let path = self.path.join(name);
        let fd = match rustix::fs::openat(&self.fd, name, FILE, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.corrupt(name, "is a symbolic link")),
            Err(Errno::NXIO | Errno::NODEV) => return Err(self.corrupt(name, "is no regular file")),
            Err(error) => return Err(io_error("opening", &path, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| io_error("reading", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.corrupt(name, "is no regular file"));
        }
        Ok(Some((File::from(fd), stat)))
    }

    fn fill(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let failed = |error: std::io::Error| io_error("writing", &self.path.join(name), error);
        let fd = rustix::fs::openat(&self.fd, name, NEW, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed(error.into()))?;
        let mut file = File::from(fd);
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    fn place(&self, temporary: &str, name: &str, only_new: bool) -> Result<()> {
        let done = if only_new {
            self.place_new(temporary, name)
        } else {
            rustix::fs::renameat(&self.fd, temporary, &self.fd, name)
        };
        match done {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(Error::new(
                ErrorKind::AlreadyExists,
                "there is such a secret already",
            )),
            Err(Errno::OPNOTSUPP) if only_new => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the file system of {} takes no new name without overwriting what may be there",
                    self.path.display()
                ),
            )
            .with_advice("keep the folder on a file system that renames so or has hard links")),
            Err(error) => Err(io_error("writing", &self.path.join(name), error)),
        }
    }

    fn place_new(&self, temporary: &str, name: &str) -> Result<(), Errno> {
        let only_new = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.fd, temporary, &self.fd, name, only_new) {
            // NFS and some others cannot, but have links.
            Err(Errno::INVAL | Errno::NOSYS) => match self.link(temporary, name) {
                Err(Errno::PERM | Errno::NOSYS) => Err(Errno::OPNOTSUPP),
                done => done,
            },
            done => done,
        }
    }

    fn link(&self, temporary: &str, name: &str) -> Result<(), Errno> {
        rustix::fs::linkat(&self.fd, temporary, &self.fd, name, AtFlags::empty())
    }

    /// Removes what killed writers left.
    fn sweep(&self) -> Result<()> {
        let failed = |error| io_error("listing", &self.path, error);
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if !name.to_bytes().starts_with(TEMPORARY.as_bytes()) {
                continue;
            }
            let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
            let age = stat.ok().as_ref().and_then(written).map(|at| at.elapsed());
            if matches!(age, Some(Ok(age)) if age > LEFT) {
                // Another writer may have been faster.
                let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.fd))
            .map_err(|error| io_error("writing", &self.path, error))
    }

    fn corrupt(&self, name: &str, what: &str) -> Error {
        let file = self.path.join(name);
        Error::new(ErrorKind::Corrupt, format!("{} {what}", file.display()))
            .with_advice("restore it from a backup, or delete the secret and set it anew")
    }
}

fn written(stat: &Stat) -> Option<SystemTime> {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_renamed_so_is_linked_and_takes_no_name_that_is_taken() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("ours").expect("there");
        for name in ["a", "b"] {
            folder.fill(name, name.as_bytes()).expect("written");
        }
        for take in [Folder::link, Folder::place_new] {
            assert_eq!(take(&folder, "a", "b"), Err(Errno::EXIST));
            assert_eq!(std::fs::read(place.path().join("b")).expect("b"), b"b");
        }
        folder.link("a", "linked").expect("free");
        folder.place_new("a", "renamed").expect("free");
        for name in ["linked", "renamed"] {
            assert_eq!(std::fs::read(place.path().join(name)).expect(name), b"a");
        }
    }
}
