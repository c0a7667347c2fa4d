//! One key's private folder: what it is called, what may lie in it, who holds its lock, and how it
//! is removed without ever following a path.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

/// The file with the master key.
pub const KEY_FILE: &str = "master-key.aes";
/// The file whose lock says that somebody living needs the key.
pub(super) const LOCK_FILE: &str = "lock";
const PREFIX: &str = "keyhaul-";
const RANDOM: usize = 8;

/// A fresh folder name.
pub(super) fn fresh_name() -> crate::Result<String> {
    Ok(format!("{PREFIX}{}", crate::random::hex(RANDOM)?))
}

/// Whether a folder of this name can be ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|random| {
        random.len() == RANDOM * 2
            && random
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
}

/// What lies in a folder of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) key: bool,
    pub(super) lock: bool,
}

impl Folder {
    /// Makes `name` in `parent`, for us alone.
    pub(super) fn make(parent: impl AsFd, name: &str) -> rustix::io::Result<Self> {
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        Self::open(&parent, name).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
        })
    }

    /// Opens `name` in `parent`; a link is refused.
    pub(super) fn open(parent: impl AsFd, name: &str) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Makes a file that was not there, for us alone.
    pub(super) fn make_file(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.fd, name, flags, mode)?;
        rustix::fs::fchmod(&file, mode)?;
        Ok(file)
    }

    /// What lies in it, or the name of the first thing that is not ours.
    pub(super) fn contents(&self) -> rustix::io::Result<Result<Contents, String>> {
        let mut contents = Contents::default();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let found = match name {
                b"." | b".." => continue,
                _ if name == KEY_FILE.as_bytes() => &mut contents.key,
                _ if name == LOCK_FILE.as_bytes() => &mut contents.lock,
                _ => return Ok(Err(entry.file_name().to_string_lossy().into_owned())),
            };
            let stat = statat(&self.fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(Err(entry.file_name().to_string_lossy().into_owned()));
            }
            *found = true;
        }
        Ok(Ok(contents))
    }

    /// Takes the lock, or `None` where somebody living holds it or it is gone.
    pub(super) fn take_lock(&self) -> rustix::io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = match openat(&self.fd, LOCK_FILE, flags, Mode::empty()) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error),
        }
        // Its last holder may have taken the file away between the opening and the locking: then
        // the folder was left on purpose, and this is the lock of nothing.
        let still = match statat(&self.fd, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => {
                let held = fstat(&lock)?;
                (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
            }
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error),
        };
        Ok(still.then_some(lock))
    }

    /// Removes one file; one that is not there is as good.
    pub(super) fn remove_file(&self, name: &str) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes key, lock and the folder itself, the key first.
    pub(super) fn remove(&self, parent: impl AsFd, name: &str) -> rustix::io::Result<()> {
        self.remove_file(KEY_FILE)?;
        self.remove_file(LOCK_FILE)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_or_not() {
        assert!(is_ours(&fresh_name().expect("randomness")));
        for name in [
            "keyhaul-",
            "keyhaul-0123",
            "keyhaul-0123456789ABCDEF",
            "x",
            "..",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn a_lock_whose_file_is_gone_is_not_taken() {
        let parent = tempfile::tempdir().expect("folder");
        let parent = std::fs::File::open(parent.path()).expect("opened");
        let folder = Folder::make(&parent, "keyhaul-0").expect("made");
        assert!(folder.take_lock().expect("asked").is_none());
        drop(folder.make_file(LOCK_FILE).expect("made"));
        let taken = folder.take_lock().expect("asked").expect("free");
        assert!(folder.take_lock().expect("asked").is_none(), "held");
        drop(taken);
        assert!(folder.take_lock().expect("asked").is_some());
    }
}
