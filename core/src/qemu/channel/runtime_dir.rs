use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::{Error, ErrorKind, Result, typed};

/// How long to wait for another keyhaul that is sweeping, which takes microseconds.
const SWEEP_LIMIT: Duration = Duration::from_secs(5);

/// The directory that key files live below: ours, and writable by nobody else.
///
/// `/run/keyhaul` for root, which other users can pass through but not list, so that a QEMU of
/// another user reaches its own folder; `$XDG_RUNTIME_DIR/keyhaul` for a user. Both are in memory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: String,
    fd: OwnedFd,
}

impl RuntimeDir {
    /// Where the directory is when nobody names one.
    ///
    /// # Errors
    /// `InvalidConfig` for a user without `$XDG_RUNTIME_DIR`.
    pub fn default_path() -> Result<PathBuf> {
        if geteuid().is_root() {
            return Ok(PathBuf::from("/run/keyhaul"));
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) if Path::new(&folder).is_absolute() => {
                Ok(Path::new(&folder).join("keyhaul"))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                "there is no runtime directory: $XDG_RUNTIME_DIR is not set to an absolute path",
            )
            .with_advice("name a private directory in memory with --runtime-dir")),
        }
    }

    /// Opens the directory at `path`, or at [`default_path`](Self::default_path), and makes it
    /// where only its parent exists.
    ///
    /// # Errors
    /// `PermissionDenied` where others could write in it or own it; `InvalidConfig` where the path
    /// is not UTF-8 or has no parent directory.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => Self::default_path()?,
        };
        let path = absolute(&path)?;
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        let made = match rustix::fs::mkdir(&path, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => {
                return Err(Error::io(format!("making {path}"), error.into())
                    .with_advice("make its parent directory, or name another with --runtime-dir"));
            }
        };
        let dir = Self::open_existing(path)?;
        if made {
            // The umask may have taken bits away.
            rustix::fs::fchmod(&dir.fd, Mode::from_raw_mode(mode))
                .map_err(|error| Error::io(format!("making {}", dir.path), error.into()))?;
        }
        Ok(dir)
    }

    /// The directory that `folder` lies in.
    pub(super) fn of_folder(folder: &Path) -> Result<(Self, String)> {
        let folder = absolute(folder)?;
        match folder.rsplit_once('/') {
            Some((parent, name)) if !parent.is_empty() => {
                Ok((Self::open_existing(parent.to_owned())?, name.to_owned()))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{folder} is no folder of a runtime directory"),
            )),
        }
    }

    fn open_existing(path: String) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.as_str(), flags, Mode::empty())
            .map_err(|error| Error::io(format!("opening {path}"), error.into()))?;
        let stat = fstat(&fd).map_err(|error| Error::io(&path, error.into()))?;
        let refuse = |why: String, advice: String| {
            let advice = format!("{advice}, or name another with --runtime-dir");
            Err(Error::new(ErrorKind::PermissionDenied, why).with_advice(advice))
        };
        let us = geteuid().as_raw();
        if stat.st_uid != us {
            return refuse(
                format!("{path} belongs to user {}, not to {us}", stat.st_uid),
                "a runtime directory belongs to the user who runs keyhaul".into(),
            );
        }
        if stat.st_mode & 0o022 != 0 {
            return refuse(
                format!(
                    "others can write in {path}: it has mode {:04o}",
                    stat.st_mode & 0o7777
                ),
                format!("chmod go-w {}", typed(path)),
            );
        }
        Ok(Self { path, fd })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    pub(super) fn text(&self) -> &str {
        &self.path
    }

    /// Whether a user other than us can pass through.
    pub(super) fn lets_others_through(&self) -> Result<bool> {
        let stat = fstat(&self.fd).map_err(|error| Error::io(&self.path, error.into()))?;
        Ok(stat.st_mode & 0o001 != 0)
    }

    /// Keeps sweepers out while a folder is being made, until the guard is dropped.
    pub(super) fn hold(&self) -> Result<OwnedFd> {
        let guard = self.reopen()?;
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&guard, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Ok(guard),
                Err(Errno::WOULDBLOCK | Errno::INTR) if started.elapsed() < SWEEP_LIMIT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    return Err(Error::io(format!("locking {}", self.path), error.into()));
                }
            }
        }
    }

    /// Has the directory to oneself, or `None` while somebody makes a folder in it.
    pub(super) fn hold_alone(&self) -> Result<Option<OwnedFd>> {
        let guard = self.reopen()?;
        match rustix::fs::flock(&guard, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(guard)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::io(format!("locking {}", self.path), error.into())),
        }
    }

    /// A description of its own: locks belong to descriptions, and a copied descriptor shares one.
    fn reopen(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
            .map_err(|error| Error::io(format!("opening {}", self.path), error.into()))
    }
}

impl AsFd for RuntimeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn absolute(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::io(path.display(), error))?
        .into_os_string()
        .into_string();
    let text = absolute.map_err(|path| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the path {} is not UTF-8, which QEMU's JSON needs",
                path.display()
            ),
        )
    })?;
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() {
        text
    } else {
        trimmed.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_made_where_its_parent_exists() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("keyhaul");
        let dir = RuntimeDir::open(Some(&path)).expect("made");
        assert_eq!(dir.path(), path);
        let mode = fs::metadata(&path).expect("there").mode() & 0o7777;
        assert_eq!(mode, if geteuid().is_root() { 0o711 } else { 0o700 });
        RuntimeDir::open(Some(&path)).expect("opened again");
        let orphan = folder.path().join("no/keyhaul");
        assert_eq!(
            RuntimeDir::open(Some(&orphan))
                .expect_err("no parent")
                .kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn what_others_can_write_and_links_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("open");
        fs::create_dir(&path).expect("made");
        for mode in [0o720, 0o702, 0o1777] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
            let error = RuntimeDir::open(Some(&path)).expect_err("writable by others");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
        RuntimeDir::open(Some(&path)).expect("readable by others is fine");
        let link = folder.path().join("link");
        symlink(&path, &link).expect("linked");
        RuntimeDir::open(Some(&link)).expect_err("a link");
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        if !geteuid().is_root() {
            // A user meets root's directory instead.
            RuntimeDir::open(Some(Path::new("/proc/1"))).expect_err("root's");
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        std::os::unix::fs::chown(folder.path(), Some(65534), None).expect("given");
        let error = RuntimeDir::open(Some(folder.path())).expect_err("nobody's");
        assert!(error.message().contains("65534"), "{error}");
    }
}
