use std::path::PathBuf;

use rustix::fs::Dir;
use rustix::io::Errno;

use super::RuntimeDir;
use super::folder::{Contents, Folder, is_ours};
use crate::{Error, Result};

/// Removes what a killed keyhaul left in the runtime directory, and nothing else; gives the folders
/// that are gone.
///
/// A folder goes where its name and all its contents are ours and its lock can be taken: then
/// neither keyhaul nor a QEMU that inherited the lock is alive. One without a lock was left on
/// purpose, unless it has no key either. Nothing happens while somebody is making a folder: the
/// next sweep comes with the next start.
///
/// # Errors
/// The file system's, for the directory itself. A folder that cannot be looked into is passed over.
pub fn sweep(runtime: &RuntimeDir) -> Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    let Some(guard) = runtime.hold_alone()? else {
        return Ok(swept);
    };
    let failed = |error: Errno| Error::io(format!("sweeping {}", runtime.text()), error.into());
    for entry in Dir::read_from(&guard).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if is_ours(name) && sweep_one(runtime, name).unwrap_or(false) {
            swept.push(runtime.path().join(name));
        }
    }
    Ok(swept)
}

fn sweep_one(runtime: &RuntimeDir, name: &str) -> rustix::io::Result<bool> {
    let folder = Folder::open(runtime, name)?;
    let Ok(contents) = folder.contents()? else {
        return Ok(false);
    };
    let lock = folder.take_lock()?;
    // Killed after making the folder, before anything was in it.
    let abandoned = contents == Contents::default();
    if lock.is_none() && !abandoned {
        return Ok(false);
    }
    folder.remove(runtime, name)?;
    Ok(true)
}
