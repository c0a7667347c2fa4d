//! The token's library: which one may be loaded, and the token in it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};
use keyhaul_core::{Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::Failure;
use crate::raw::Values;

/// A library, loaded and ready. It stays so until the process ends.
pub(crate) struct Module {
    pub(crate) pkcs11: Pkcs11,
    pub(crate) values: Values,
}

impl Module {
    /// Loads the library at `path`.
    ///
    /// # Errors
    /// `InvalidConfig` where there is none, `PermissionDenied` where others could change it, and
    /// what the library says.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let path = trusted(path)?;
        let pkcs11 = Pkcs11::new(&path).map_err(|error| no_library(&path, error))?;
        let values = Values::of_library(&path)?;
        let threads = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        match pkcs11.initialize(threads) {
            // Somebody in this process uses it already.
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(Failure::from(error).into()),
        }
        // Libraries have threads and handlers that outlive whoever would unload them.
        std::mem::forget(pkcs11.clone());
        Ok(Self { pkcs11, values })
    }

    /// The token that `settings` name, as it is now.
    ///
    /// # Errors
    /// `Unavailable` where it is not there, `InvalidConfig` where several are meant.
    pub(crate) fn find(&self, settings: &Settings) -> Result<(Slot, TokenInfo), Failure> {
        let mut there = Vec::new();
        for slot in self.pkcs11.get_slots_with_token()? {
            // One that is being taken out, or broken, is not in the way of another.
            match self.pkcs11.get_token_info(slot) {
                Ok(info) if info.token_initialized() => there.push((slot, info)),
                _ => {}
            }
        }
        let wanted = |info: &TokenInfo| {
            let label = settings.token.as_deref().is_none_or(|l| l == info.label());
            let serial = settings.serial.as_deref();
            label && serial.is_none_or(|s| s == info.serial_number())
        };
        let known: Vec<String> = there.iter().map(|(_, info)| name(info)).collect();
        let mut found = there.into_iter().filter(|(_, info)| wanted(info));
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => Err(Error::new(
                ErrorKind::Unavailable,
                match settings.token_name() {
                    name if name.is_empty() => "there is no token".to_owned(),
                    name => format!("there is no token {name}"),
                },
            )
            .with_advice(match known.as_slice() {
                [] => "put it in, or initialise one; there is none at all".to_owned(),
                known => format!("put it in, or name one that is there: {}", known.join(", ")),
            })
            .into()),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::InvalidConfig,
                "several tokens are there, and the policy does not say which",
            )
            .with_advice(format!(
                "name one by `token`, or `serial`: {}",
                known.join(", ")
            ))
            .into()),
        }
    }
}

fn name(info: &TokenInfo) -> String {
    format!("{} (serial {})", info.label(), info.serial_number())
}

fn no_library(path: &Path, error: Pkcs11Error) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("{} is no PKCS#11 library", path.display()),
    )
    .with_source(error)
}

/// Where the library really is, if nobody but root and the user can put another in its place: its
/// code runs as keyhaul's own.
fn trusted(path: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let text = format!("the token's library {} cannot be loaded", path.display());
        let error = if missing {
            Error::new(ErrorKind::InvalidConfig, text).with_source(error)
        } else {
            Error::io(text, error)
        };
        error.with_advice("see `module` in the policy, and whether its package is installed")
    };
    let real = path.canonicalize().map_err(failed)?;
    // Whoever can turn a link to another library of root's chooses what is loaded, too.
    for place in [path, &real] {
        for (depth, above) in place.ancestors().enumerate() {
            let metadata = above.metadata().map_err(failed)?;
            if depth == 0 && !metadata.is_file() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("{} is no file", above.display()),
                ));
            }
            ours_alone(above, &metadata, depth)?;
        }
    }
    Ok(real)
}

/// Refuses a place that others own or can write to: the library itself at depth 0, its folder at 1.
fn ours_alone(place: &Path, metadata: &Metadata, depth: usize) -> Result<()> {
    let mode = metadata.mode();
    // What lies in a sticky folder like /tmp, others cannot replace; but they could have been
    // first with the file itself.
    let sticky = depth > 1 && mode & 0o1000 != 0;
    let open = mode & 0o022 != 0 && !sticky;
    let us = rustix::process::geteuid().as_raw();
    if !open && [0, us].contains(&metadata.uid()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "{} belongs to uid {} with mode {:04o}: others could change what is loaded",
            place.display(),
            metadata.uid(),
            mode & 0o7777
        ),
    )
    .with_advice("only root, or the user who runs keyhaul, may own it and write to it"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    }

    fn refused(path: &Path) -> ErrorKind {
        let error = trusted(path).expect_err("refused");
        assert!(
            error.to_string().contains('/'),
            "it names no place: {error}"
        );
        error.kind()
    }

    #[test]
    fn a_library_that_others_could_change_is_not_loaded() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("lib");
        fs::create_dir(&folder).expect("a folder");
        let library = folder.join("token.so");
        fs::write(&library, "").expect("a file");
        mode(&folder, 0o755);
        mode(&library, 0o755);
        assert_eq!(trusted(&library).expect("ours alone"), library);

        for open in [0o775, 0o757, 0o777] {
            for place in [library.as_path(), &folder, outer.path()] {
                mode(place, open);
                assert_eq!(refused(&library), ErrorKind::PermissionDenied, "{open:o}");
                mode(place, 0o755);
            }
        }
        // Nobody can replace what lies in a sticky folder, but anybody can be first.
        mode(&folder, 0o1777);
        assert_eq!(refused(&library), ErrorKind::PermissionDenied);
        mode(&folder, 0o755);
        mode(outer.path(), 0o1777);
        trusted(&library).expect("as under /tmp");
        mode(outer.path(), 0o755);

        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            for place in [library.as_path(), &folder, outer.path()] {
                chown(place, Some(65534), None).expect("given away");
                assert_eq!(refused(&library), ErrorKind::PermissionDenied);
                chown(place, Some(0), None).expect("taken back");
            }
        }
        trusted(&library).expect("ours alone, again");
    }

    #[test]
    fn a_link_counts_as_what_it_leads_to_and_where_it_lies() {
        let (ours, open) = (tempfile::tempdir(), tempfile::tempdir());
        let (ours, open) = (ours.expect("a folder"), open.expect("a folder"));
        let library = ours.path().join("token.so");
        fs::write(&library, "").expect("a file");
        let link = ours.path().join("link.so");
        symlink(&library, &link).expect("a link");
        assert_eq!(trusted(&link).expect("ours alone"), library);
        mode(&library, 0o666);
        assert_eq!(refused(&link), ErrorKind::PermissionDenied);
        mode(&library, 0o644);

        mode(open.path(), 0o777);
        let link = open.path().join("link.so");
        symlink(&library, &link).expect("a link");
        assert_eq!(refused(&link), ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_is_no_library_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing.so");
        assert_eq!(refused(&missing), ErrorKind::InvalidConfig);
        assert_eq!(refused(folder.path()), ErrorKind::InvalidConfig);
        let text = folder.path().join("text.so");
        fs::write(&text, "no library").expect("a file");
        let error = Module::load(&text).err().expect("no library");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("text.so"), "{error}");
    }
}
