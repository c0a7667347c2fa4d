//! The token's library: which one may be loaded, and the token in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};
use keyhaul_core::trust::{self, Sticky};
use keyhaul_core::{Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::Failure;
use crate::gate::{Gate, Gates};
use crate::raw::Values;

/// A library, loaded and ready. It stays so until the process ends.
pub(crate) struct Module {
    pub(crate) pkcs11: Pkcs11,
    pub(crate) values: Values,
    /// That of the library itself, whatever names and links lead to it.
    pub(crate) gate: Arc<Gate>,
}

impl Module {
    /// Loads the library at `path`.
    ///
    /// # Errors
    /// `InvalidConfig` where there is none, `PermissionDenied` where others could change it, and
    /// what the library says.
    pub(crate) fn load(path: &Path, gates: &Gates) -> Result<Self> {
        let path = trusted(path)?;
        let gate = gates.of(&path);
        let door = gate.door("the start of the library")?;
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
        drop(door);
        Ok(Self {
            pkcs11,
            values,
            gate,
        })
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
            [
                (&settings.token, info.label()),
                (&settings.serial, info.serial_number()),
                (&settings.manufacturer, info.manufacturer_id()),
                (&settings.model, info.model()),
            ]
            .iter()
            .all(|(wanted, is)| wanted.as_deref().is_none_or(|wanted| wanted == *is))
        };
        let known: Vec<String> = there.iter().map(|(_, info)| name(info)).collect();
        let mut found = there.into_iter().filter(|(_, info)| wanted(info));
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => Err(Error::new(
                ErrorKind::Unavailable,
                match settings.location() {
                    any if any == "pkcs11:" => "there is no token".to_owned(),
                    token => format!("there is no token {token}"),
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
    let advice = "see `module` in the policy, and whether its package is installed";
    trust::file("the token's library", path, Sticky::Above).map_err(|error| match error.advice() {
        Some(_) => error,
        None => error.with_advice(advice),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

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
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("token.so");
        fs::write(&library, "").expect("a file");
        let link = folder.path().join("link.so");
        symlink(&library, &link).expect("a link");
        for (mode, refusal) in [
            (0o755, None),
            (0o757, Some(ErrorKind::PermissionDenied)),
            (0o644, None),
        ] {
            fs::set_permissions(&library, PermissionsExt::from_mode(mode)).expect("a mode");
            for way in [&library, &link] {
                match refusal {
                    Some(kind) => assert_eq!(refused(way), kind),
                    None => assert_eq!(trusted(way).expect("ours alone"), library),
                }
            }
        }
    }

    #[test]
    fn what_is_no_library_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing.so");
        assert_eq!(refused(&missing), ErrorKind::InvalidConfig);
        let inner = folder.path().join("folder.so");
        fs::create_dir(&inner).expect("a folder");
        assert_eq!(refused(&inner), ErrorKind::InvalidConfig);
        let text = folder.path().join("text.so");
        fs::write(&text, "no library").expect("a file");
        let error = Module::load(&text, &Gates::default())
            .err()
            .expect("no library");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("text.so"), "{error}");
    }
}
