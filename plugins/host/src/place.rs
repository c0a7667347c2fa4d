//! From a path to bytes that can be trusted: who may have written the file, and what is in it.
//!
//! A library runs with all that this process may. So nobody else may be able to write it, nor to put
//! another in its place. The path is walked folder by folder, by descriptors, and no symbolic link is
//! followed: what was looked at is what is opened. The file is read once, into memory that is sealed
//! before its digest is taken, and that memory is what gets loaded. Whatever happens to the
//! file meanwhile, what was checked is what runs.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result, typed};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags, Stat};
use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::rule::{Broken, Rule};

/// The longest library that is loaded.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// A library's bytes, that nobody can change any more.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The memory that holds them.
    pub(crate) memory: File,
    /// Their digest.
    pub(crate) digest: Digest,
}

/// Reads the library at `path`, by the rules above, and holds it against `pin`.
///
/// # Errors
/// The rule that is broken: `InvalidConfig` where there is no such file, `TooLarge`,
/// `PermissionDenied` with what mends it.
pub(crate) fn read(path: &Path, pin: Option<&Digest>) -> Result<Sealed, Broken> {
    let mut file = open(path)?;
    let sealed = seal(path, &mut file).map_err(|error| Rule::Copied.broken(error))?;
    match pin {
        Some(pin) if *pin != sealed.digest => {
            let rule = format!(
                "the plugin {} is not the one that the policy pins: its SHA-256 is {}, not {pin}",
                path.display(),
                sealed.digest
            );
            let error = Error::new(ErrorKind::PermissionDenied, rule);
            Err(Rule::Pin.broken(error.with_advice(
                "find out who changed the file; if it is as it should be, pin its new digest",
            )))
        }
        _ => Ok(sealed),
    }
}

/// Opens the file, after a look at each folder on the way.
fn open(path: &Path) -> Result<File, Broken> {
    if !path.is_absolute() {
        let rule = format!("the path of a plugin is absolute, not {}", path.display());
        return Err(Rule::Absolute.broken(Error::new(ErrorKind::InvalidConfig, rule)));
    }
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = PathBuf::from("/");
    let of_folder = |error: Error| Rule::Folders.broken(error);
    let root = rustix::fs::open("/", look, Mode::empty());
    let mut folder = root.map_err(|error| of_folder(unreadable(&at, error.into())))?;
    let mut names = path.components().filter(|part| *part != Component::RootDir);
    let mut name = names
        .next()
        .ok_or_else(|| Rule::File.broken(not_a_file(path)))?;
    loop {
        let stat = rustix::fs::fstat(&folder);
        let stat = stat.map_err(|error| of_folder(unreadable(&at, error.into())))?;
        trusted("the plugin's folder", &at, &stat, us()).map_err(of_folder)?;
        at.push(name);
        let next = names.next();
        // The last one on the way is the file itself.
        let rule = next.map_or(Rule::File, |_| Rule::Folders);
        let broken = |error: Error| rule.broken(error);
        let failed = |error: rustix::io::Errno| broken(unreadable(&at, error.into()));
        let found = rustix::fs::openat(&folder, name.as_os_str(), look, Mode::empty());
        let found = found.map_err(failed)?;
        let stat = rustix::fs::fstat(&found).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Err(broken(a_link(path, &at)));
        }
        match next {
            Some(next) if kind == FileType::Directory => (folder, name) = (found, next),
            Some(_) => return Err(failed(rustix::io::Errno::NOTDIR)),
            None => {
                // A device may do things when it is opened: look first.
                a_trusted_file(path, &stat).map_err(broken)?;
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&folder, name.as_os_str(), read, Mode::empty())
                    .map_err(failed)?;
                // It may be another one by now.
                let stat = rustix::fs::fstat(&file).map_err(failed)?;
                a_trusted_file(path, &stat).map_err(broken)?;
                return Ok(File::from(file));
            }
        }
    }
}

fn a_trusted_file(path: &Path, stat: &Stat) -> Result<()> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_a_file(path));
    }
    trusted("the plugin", path, stat, us())
}

/// Who we are.
fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether nobody but root and `us` can write it. A sticky folder will not do: others can put a file
/// there before we do.
fn trusted(what: &str, path: &Path, stat: &Stat, us: u32) -> Result<()> {
    let (path, typed) = (path.display(), typed(path));
    let refuse = |rule: String, advice: String| {
        Err(Error::new(ErrorKind::PermissionDenied, rule).with_advice(advice))
    };
    if stat.st_uid != 0 && stat.st_uid != us {
        return refuse(
            format!(
                "{what} {path} belongs to uid {}, who is neither root nor us",
                stat.st_uid
            ),
            format!("check it, then: chown {us} {typed}"),
        );
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o1022 > 0o1000 {
        return refuse(
            format!(
                "{what} {path} is sticky and has mode {mode:04o}: others could put a plugin there"
            ),
            "keep plugins in a folder that only root can write, as /usr/lib/keyhaul".into(),
        );
    }
    if mode & 0o022 != 0 {
        return refuse(
            format!("{what} {path} has mode {mode:04o}: others could write it"),
            format!("check it, then: chmod go-w {typed}"),
        );
    }
    Ok(())
}

/// Copies the file into memory that nobody can write any more, and only then takes its digest.
fn seal(path: &Path, file: &mut File) -> Result<Sealed> {
    let failed = |error: io::Error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the plugin {} cannot be copied into memory", path.display()),
        )
        .with_source(error)
    };
    let fits = |len: u64| match len {
        0..=MAX_FILE => Ok(()),
        _ => {
            let path = path.display();
            let rule = format!("the plugin {path} has more than {MAX_FILE} bytes");
            Err(Error::new(ErrorKind::TooLarge, rule))
        }
    };
    fits(file.metadata().map_err(failed)?.len())?;
    let mut memory = File::from(memory().map_err(failed)?);
    // It may have grown.
    fits(io::copy(&mut file.take(MAX_FILE + 1), &mut memory).map_err(failed)?)?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&memory, all).map_err(|error| failed(error.into()))?;
    memory.rewind().map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match memory.read(&mut piece).map_err(failed)? {
            0 => break,
            read => hasher.update(&piece[..read]),
        }
    }
    Ok(Sealed {
        memory,
        digest: Digest(hasher.finalize().into()),
    })
}

fn memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Some systems want it said that the memory is no program to be started, and older kernels do
    // not know the word.
    rustix::fs::memfd_create(c"keyhaul-plugin", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(c"keyhaul-plugin", flags))
        .map_err(Into::into)
}

fn a_link(path: &Path, at: &Path) -> Error {
    let rule = format!(
        "the plugin {} is reached through a symbolic link, {}",
        path.display(),
        at.display()
    );
    let error = Error::new(ErrorKind::PermissionDenied, rule);
    match path.canonicalize() {
        Ok(file) => error.with_advice(format!("name the file itself: {}", file.display())),
        Err(_) => error.with_advice("name the file itself"),
    }
}

fn not_a_file(path: &Path) -> Error {
    let rule = format!("the plugin {} is no regular file", path.display());
    Error::new(ErrorKind::InvalidConfig, rule)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::InvalidConfig,
    };
    let rule = format!("the plugin cannot be read: {}", path.display());
    Error::new(kind, rule).with_source(error)
}

#[cfg(test)]
mod tests;
