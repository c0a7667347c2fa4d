//! The folders from which systemd takes credentials for its own services.
//!
//! From version 254 on, `ImportCredential=` finds there by itself whatever has the right name:
//! `tmpfiles.extra` is run as root with the next boot, `ssh.authorized_keys.root` says who may log in.
//! So no VM's secret belongs there, whose name a VM's definition chooses; and no VM's definition is to
//! reach what the host has there.

use std::path::Path;

use keyhaul_core::{Error, ErrorKind, Result};
use rustix::fs::Stat;

/// Above which they lie: systemd's `CONF_PATHS`, and `/lib` where that is another than `/usr/lib`.
const ABOVE: [&str; 5] = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"];
/// Their names, there and for a user's own services.
const NAMES: [&str; 2] = ["credstore", "credstore.encrypted"];
/// What a system was given at its start.
const GIVEN: &str = "/run/credentials";
/// What the boot loader gives to a system, below the boot partition.
const BOOT: &str = "loader/credentials";

/// Refuses a folder that is called as systemd's are.
///
/// # Errors
/// `InvalidConfig`.
pub(crate) fn refuse_named(folder: &Path) -> Result<()> {
    let is_systemds = NAMES.iter().any(|name| folder.ends_with(name))
        || folder.ends_with(BOOT)
        || folder.starts_with(GIVEN);
    if is_systemds {
        Err(refused(folder))
    } else {
        Ok(())
    }
}

/// Refuses a folder that is one of systemd's under another name: one of systemd's may be a link, or
/// the same by a bind mount.
///
/// # Errors
/// `InvalidConfig`.
pub(crate) fn refuse_itself(folder: &Path, stat: &Stat) -> Result<()> {
    for above in ABOVE {
        for name in NAMES {
            let systemds = rustix::fs::stat(Path::new(above).join(name));
            let is = |other: Stat| (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino);
            if systemds.is_ok_and(is) {
                return Err(refused(folder));
            }
        }
    }
    Ok(())
}

fn refused(folder: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "systemd takes credentials for its own services from {}: a secret there could become the host's configuration",
            folder.display()
        ),
    )
    .with_advice("give the store a folder of its own, as /var/lib/keyhaul/credentials; a credential that keyhaul is to read can be copied there, under its name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_folders_are_known_by_name() {
        for folder in [
            "/etc/credstore",
            "/etc/credstore.encrypted/",
            "/etc/./credstore.encrypted/.",
            "/run/credstore.encrypted",
            "/usr/lib/credstore",
            "/usr/local/lib/credstore.encrypted",
            "/root/.config/credstore.encrypted",
            "/run/credentials/@encrypted",
            "/boot/efi/loader/credentials",
        ] {
            let error = refuse_named(Path::new(folder)).expect_err(folder);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(folder), "{error}");
        }
        for folder in [
            "/var/lib/keyhaul/credentials",
            "/var/lib/libvirt/secrets",
            "/srv/credstore.encrypted.old",
            "/run/keyhaul",
        ] {
            refuse_named(Path::new(folder)).expect(folder);
        }
    }
}
