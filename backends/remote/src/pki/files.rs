//! An authority's folder: files replaced whole, and one writer at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, random};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const LOCK: &str = ".lock";
/// How long to wait for another writer, who takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Folder(PathBuf);

/// Held while the folder is written to; freed when dropped.
pub(super) struct Lock(
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")] File,
);

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The folder, made for its owner alone where it is not there.
    pub(super) fn make(path: &Path) -> Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let made = builder.create(path);
        made.map_err(|error| Error::io(path.display(), error))?;
        Ok(Self::at(path))
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn has(&self, name: &str) -> Result<bool> {
        let path = self.path(name);
        path.try_exists()
            .map_err(|error| Error::io(path.display(), error))
    }

    pub(super) fn lock(&self) -> Result<Lock> {
        let path = self.path(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path);
        let file = file.map_err(|error| Error::io(path.display(), error))?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(Errno::WOULDBLOCK) => {
                    let rule = format!("somebody else is writing to {}", self.0.display());
                    return Err(Error::new(ErrorKind::Unavailable, rule));
                }
                Err(error) => return Err(Error::io(path.display(), error.into())),
            }
        }
    }

    pub(super) fn read(&self, name: &str, longest: usize) -> Result<String> {
        let path = self.path(name);
        let read = || {
            let mut text = String::new();
            let file = File::open(&path)?;
            file.take(longest as u64).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error: io::Error| Error::io(path.display(), error))
    }

    /// Replaces a file that anybody may read.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace(name, bytes, 0o644)
    }

    /// Replaces a file that only its owner may read.
    pub(super) fn write_private(&self, name: &str, bytes: &SecretBytes) -> Result<()> {
        self.replace(name, bytes.expose(), 0o600)
    }

    /// Old or new, never half, and durable before it returns.
    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.path(name);
        let temporary = self.path(&format!(".{name}.{}", random::hex(8)?));
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(mode);
            let mut file = options.open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| {
            // Not there any more where only the folder could not be synced.
            let _ = fs::remove_file(&temporary);
            Error::io(path.display(), error)
        })
    }
}
