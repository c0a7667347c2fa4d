//! Which policy holds, and whether it may be trusted.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Policy, parse};
use crate::{Error, ErrorKind, Result, typed};

/// The largest policy file that is read.
const MAX_FILE: u64 = 1024 * 1024;
const SYSTEM: &str = "/etc/keyhaul/keyhaul.toml";

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A file, with its drop-ins in `keyhaul.d` beside it.
    File(PathBuf),
    /// No file: a text that the program brings, and the name errors call it by.
    Embedded {
        /// What errors call it.
        name: String,
        /// The policy itself.
        text: String,
    },
}

/// The policy file that holds: `named` (the command line's), `$KEYHAUL_CONFIG`,
/// `$XDG_CONFIG_HOME/keyhaul/keyhaul.toml`, `/etc/keyhaul/keyhaul.toml`. A named one need not exist: loading says
/// so. One that we may not look at counts as there, and loading says that too: another in its place
/// would lead to other secrets. With none, `None`.
pub fn locate(named: Option<&Path>) -> Option<Location> {
    let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = named {
        return Some(Location::File(path.into()));
    }
    if let Some(path) = environment("KEYHAUL_CONFIG") {
        return Some(Location::File(path.into()));
    }
    let user = environment("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| environment("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|folder| folder.join("keyhaul/keyhaul.toml"))
        .filter(|path| path.is_absolute());
    let exists = |path: &PathBuf| match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    };
    user.filter(exists)
        .or_else(|| Some(PathBuf::from(SYSTEM)).filter(exists))
        .map(Location::File)
}

pub(super) fn load(location: &Location) -> Result<Policy, Vec<Error>> {
    match location {
        Location::Embedded { name, text } => parse::policy(name, &[(name.clone(), text.clone())]),
        Location::File(path) => {
            let sources = sources(path).map_err(|error| vec![error])?;
            parse::policy(&path.display().to_string(), &sources)
        }
    }
}

/// The main file and its drop-ins, in the order they count.
fn sources(path: &Path) -> Result<Vec<(String, String)>> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let metadata = parent.metadata().map_err(|error| unreadable(path, error))?;
    // In a sticky folder, as /tmp is, others can add files and replace none of ours.
    let sticky = metadata.mode() & 0o1000 != 0;
    trusted("the policy's folder", parent, &metadata, !sticky)?;
    let mut sources = vec![read(path)?];
    let folder = path.with_file_name("keyhaul.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sources),
        Err(error) => return Err(unreadable(&folder, error)),
    };
    let metadata = folder
        .metadata()
        .map_err(|error| unreadable(&folder, error))?;
    trusted("the policy's folder", &folder, &metadata, true)?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|error| unreadable(&folder, error))?
            .file_name();
        // Editors leave backups and hidden files; `.toml` alone counts.
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    for name in names {
        sources.push(read(&folder.join(name))?);
    }
    Ok(sources)
}

fn read(path: &Path) -> Result<(String, String)> {
    // Not to wait for the other end of what is a pipe.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        let rule = format!(
            "the policy {} is not a file of at most 1 MiB",
            path.display()
        );
        return Err(Error::new(ErrorKind::InvalidConfig, rule));
    }
    trusted("the policy", path, &metadata, true)?;
    let mut text = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(path, error))?;
    Ok((path.display().to_string(), text))
}

/// Whether a file that says whom to trust, `what`, is nobody else's to write, nor to replace by
/// another: as a policy is held to it.
///
/// # Errors
/// `PermissionDenied` with the command that mends it; `InvalidConfig` where there is no such file.
pub fn check_trust(what: &str, path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let looked = |path: &Path| {
        let failed = |error: io::Error| {
            let rule = format!("{what} {} cannot be read", path.display());
            Error::new(ErrorKind::InvalidConfig, rule).with_source(error)
        };
        path.metadata().map_err(failed)
    };
    let metadata = looked(path)?;
    let folder = looked(parent)?;
    let sticky = folder.mode() & 0o1000 != 0;
    trusted(&format!("{what}'s folder"), parent, &folder, !sticky)?;
    trusted(what, path, &metadata, true)
}

/// A policy says whom to trust with secrets: it must itself be nobody else's to write, nor to
/// replace by another.
fn trusted(what: &str, path: &Path, metadata: &Metadata, strict: bool) -> Result<()> {
    let (path, typed) = (path.display(), typed(path));
    let us = rustix::process::geteuid().as_raw();
    let refuse = |rule: String, advice: String| {
        Err(Error::new(ErrorKind::PermissionDenied, rule).with_advice(advice))
    };
    if metadata.uid() != 0 && metadata.uid() != us {
        let whose = if us == 0 {
            "root reads no user's policy"
        } else {
            "it is another user's"
        };
        return refuse(
            format!("{what} {path} belongs to uid {}: {whose}", metadata.uid()),
            format!("check it, then: chown {us} {typed}"),
        );
    }
    if strict && metadata.mode() & 0o022 != 0 {
        return refuse(
            format!(
                "{what} {path} has mode {:04o}: others could write it",
                metadata.mode() & 0o7777
            ),
            format!("check it, then: chmod go-w {typed}"),
        );
    }
    Ok(())
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(
        kind,
        format!("the policy {} cannot be read", path.display()),
    )
    .with_source(error)
}
