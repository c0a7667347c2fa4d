use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::FdFlags;

use super::folder::{Folder, KEY_FILE, LOCK_FILE, fresh_name, is_ours};
use super::{KeySource, Owner, ReadWatch, RuntimeDir};
use crate::qemu::MasterKey;
use crate::{Error, ErrorKind, Result, typed};

/// The master key in a file: `RUNTIME/keyhaul-RANDOM/master-key.aes`, mode 0600 in a folder of
/// mode 0700, both of the user QEMU runs as.
///
/// Beside it lies `lock`, locked by this process. A folder whose lock nobody holds was left by a
/// killed keyhaul, and is [swept](super::sweep). How the file ends:
///
/// - dropped or [removed](Self::remove): at once, as when QEMU [has read it](Self::watch);
/// - [made to live with QEMU](Self::make_lock_inheritable) and [settled](Self::settle): it stays
///   while a process holds the lock it inherited, which `-daemonize` keeps and death frees;
/// - [left](Self::leave): until it is [released](release). Without its lock, no sweep touches it.
#[derive(Debug)]
pub struct FileChannel {
    runtime: OwnedFd,
    name: String,
    path: String,
    folder: Folder,
    lock: Option<OwnedFd>,
    armed: bool,
}

impl FileChannel {
    /// Writes the key into a folder of its own, for the `owner` that QEMU runs as.
    ///
    /// # Errors
    /// `PermissionDenied` where the owner cannot be given the file or could not reach it,
    /// `StorageFull` where it has no room; nothing is left then.
    pub fn create(runtime: &RuntimeDir, master: &MasterKey, owner: Option<Owner>) -> Result<Self> {
        let others = owner.filter(|owner| owner.uid != rustix::process::geteuid().as_raw());
        if others.is_some() && !runtime.lets_others_through()? {
            let path = runtime.text();
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "user {} cannot reach files in {path}",
                    others.map_or(0, |o| o.uid)
                ),
            )
            .with_advice(format!("chmod 0711 {}", typed(path))));
        }
        let name = fresh_name()?;
        let path = format!("{}/{name}", runtime.text());
        let failed = |error: rustix::io::Errno| {
            Error::io(format!("making the key file in {path}"), error.into())
        };
        let guard = runtime.hold()?;
        let copy = rustix::io::fcntl_dupfd_cloexec(runtime.as_fd(), 3).map_err(failed)?;
        let folder = Folder::make(runtime, &name).map_err(failed)?;
        // From here on, a failure takes everything away by dropping.
        let mut channel = Self {
            runtime: copy,
            name,
            path: path.clone(),
            folder,
            lock: None,
            armed: true,
        };
        channel.fill(master, owner).map_err(failed)?;
        drop(guard);
        Ok(channel)
    }

    fn fill(&mut self, master: &MasterKey, owner: Option<Owner>) -> rustix::io::Result<()> {
        let lock = self.folder.make_file(LOCK_FILE)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        self.lock = Some(lock);
        let file = self.folder.make_file(KEY_FILE)?;
        if let Some(owner) = owner {
            let (uid, gid) = owner.ids();
            rustix::fs::fchown(&file, uid, gid)?;
            rustix::fs::fchown(self.folder.fd(), uid, gid)?;
        }
        let mut rest = master.expose();
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        Path::new(&self.path)
    }

    /// What the master key's object says.
    pub fn property(&self) -> KeySource {
        KeySource::File(format!("{}/{KEY_FILE}", self.path))
    }

    /// Watches for QEMU having read the key. To be called before QEMU is started.
    ///
    /// # Errors
    /// As [`ReadWatch`] says; the key file works without.
    pub fn watch(&self) -> Result<ReadWatch> {
        ReadWatch::new(&self.folder().join(KEY_FILE))
    }

    /// Takes the key away.
    ///
    /// # Errors
    /// The file system's, with the folder that is still there.
    pub fn remove(mut self) -> Result<()> {
        self.armed = false;
        self.clear()
    }

    /// Lets the lock survive exec, so that QEMU holds it for its life. One system call and no
    /// allocation: made for the moment between fork and exec.
    ///
    /// # Errors
    /// The system call's.
    pub fn make_lock_inheritable(&self) -> io::Result<()> {
        match &self.lock {
            Some(lock) => Ok(rustix::io::fcntl_setfd(lock.as_fd(), FdFlags::empty())?),
            None => Ok(()),
        }
    }

    /// The lock's descriptor, for whoever starts QEMU and decides what it inherits.
    pub fn lock_fd(&self) -> Option<RawFd> {
        self.lock.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Lets go: gives back the folder where a process still holds the lock it inherited, which is
    /// a running QEMU, and takes the key away otherwise. For when the process that was started has
    /// ended, since `-daemonize` leaves another one behind.
    ///
    /// # Errors
    /// The file system's, with the folder that is still there.
    pub fn settle(mut self) -> Result<Option<PathBuf>> {
        self.armed = false;
        // Our descriptor and QEMU's share one lock. Only a new one can tell who is left.
        self.lock = None;
        let taken = self.folder.take_lock();
        match taken.map_err(|error| Error::io(&self.path, error.into()))? {
            Some(lock) => {
                self.lock = Some(lock);
                self.clear()?;
                Ok(None)
            }
            None => Ok(Some(PathBuf::from(&self.path))),
        }
    }

    /// Leaves the key for another process to read, until [`release`].
    ///
    /// # Errors
    /// The file system's; nothing is left then.
    pub fn leave(mut self) -> Result<PathBuf> {
        // The lock goes while it is held: no sweeper can have taken it in between.
        let removed = self.folder.remove_file(LOCK_FILE);
        removed.map_err(|error| Error::io(&self.path, error.into()))?;
        self.armed = false;
        Ok(PathBuf::from(&self.path))
    }

    fn clear(&self) -> Result<()> {
        let removed = self.folder.remove(&self.runtime, &self.name);
        removed.map_err(|error| Error::io(format!("removing {}", self.path), error.into()))
    }
}

impl Drop for FileChannel {
    fn drop(&mut self) {
        if self.armed {
            // There is nobody to tell. A sweep will find what could not be removed.
            let _ = self.clear();
        }
    }
}

/// Takes away a key that was [left](FileChannel::leave).
///
/// # Errors
/// `NotFound` where there is no such folder, `InvalidConfig` where it is none of keyhaul's,
/// `Conflict` while a running process holds it. Nothing is removed then.
pub fn release(folder: &Path) -> Result<()> {
    let (runtime, name) = RuntimeDir::of_folder(folder)?;
    let shown = folder.display();
    let foreign = |why: String| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("{shown} is no key folder of keyhaul: {why}"),
        )
        .with_advice("give the folder that `keyhaul resolve` printed")
    };
    if !is_ours(&name) {
        return Err(foreign(format!(
            "its name is not keyhaul- and {} hex digits",
            16
        )));
    }
    let failed = |error: rustix::io::Errno| Error::io(format!("releasing {shown}"), error.into());
    let open = Folder::open(&runtime, &name).map_err(failed)?;
    let contents = open.contents().map_err(failed)?;
    let contents = contents.map_err(|other| foreign(format!("`{other}` lies in it")))?;
    let lock = open.take_lock().map_err(failed)?;
    if contents.lock && lock.is_none() {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("a running process holds {shown}"),
        )
        .with_advice("it is removed when that process has ended"));
    }
    open.remove(&runtime, &name).map_err(failed)
}
