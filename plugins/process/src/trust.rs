//! Whether a program may be run as a plugin: whoever can change it can read what passes through it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The file behind `path`, where it and every folder and link on the way to it can be changed by
/// root and the user only.
///
/// # Errors
/// `InvalidConfig` where it is not there or no file, `PermissionDenied` with the rule where others
/// could change it.
pub(crate) fn trusted(path: &Path) -> Result<PathBuf> {
    let mut left: VecDeque<OsString> = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    check_folder(&at)?;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let metadata = std::fs::symlink_metadata(&next).map_err(|error| missing(&next, error))?;
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(refused(path, "is behind too many links"));
            }
            let target = std::fs::read_link(&next).map_err(|error| missing(&next, error))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
            continue;
        }
        at = next;
        if !left.is_empty() {
            if !metadata.is_dir() {
                return Err(no_file(&at, "is no folder"));
            }
            check_folder(&at)?;
        } else if metadata.is_file() {
            check(&at, &metadata)?;
        } else {
            return Err(no_file(&at, "is no regular file"));
        }
    }
    if at == Path::new("/") {
        return Err(no_file(path, "is no regular file"));
    }
    Ok(at)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn check_folder(folder: &Path) -> Result<()> {
    let metadata = std::fs::metadata(folder).map_err(|error| missing(folder, error))?;
    check(folder, &metadata)
}

fn check(path: &Path, metadata: &Metadata) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if ![0, us].contains(&metadata.uid()) {
        let owner = metadata.uid();
        return Err(refused(path, &format!("belongs to uid {owner}"))
            .with_advice(format!("chown {us} {}", path.display())));
    }
    // The sticky bit of a folder like /tmp keeps others from replacing what is in it, and not from
    // being first.
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(refused(
            path,
            &format!("has mode {mode:04o}, with which others can write"),
        )
        .with_advice(format!("chmod go-w {}", path.display())));
    }
    Ok(())
}

fn refused(path: &Path, rule: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "{} {rule}: a plugin and all folders above it belong to root or the user, and nobody else can write there",
            path.display()
        ),
    )
}

fn no_file(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the plugin is not there: {} {what}", path.display()),
    )
}

fn missing(path: &Path, error: std::io::Error) -> Error {
    let kind = match ErrorKind::of_io(&error) {
        ErrorKind::NotFound => ErrorKind::InvalidConfig,
        kind => kind,
    };
    Error::new(
        kind,
        format!("the plugin cannot be reached at {}", path.display()),
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A folder all of whose parents can be trusted, as those of a home are and /tmp is not.
    fn home() -> tempfile::TempDir {
        let home = std::env::home_dir().expect("a home");
        tempfile::Builder::new()
            .prefix(".keyhaul-test-")
            .tempdir_in(home)
            .expect("folder")
    }

    fn set_mode(path: &Path, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("mode");
    }

    fn kind(path: &Path) -> ErrorKind {
        trusted(path).expect_err("refused").kind()
    }

    #[test]
    fn a_private_program_is_trusted_also_behind_links() {
        let home = home();
        let folder = home.path().canonicalize().expect("real");
        let program = folder.join("program");
        std::fs::write(&program, "").expect("written");
        set_mode(&program, 0o755);
        symlink("program", folder.join("relative")).expect("link");
        symlink(folder.join("relative"), folder.join("absolute")).expect("link");
        std::fs::create_dir(folder.join("inner")).expect("folder");
        symlink("../program", folder.join("inner/up")).expect("link");
        for name in ["program", "relative", "absolute", "inner/up"] {
            assert_eq!(trusted(&folder.join(name)).expect(name), program);
        }
        symlink("loop", folder.join("loop")).expect("link");
        assert_eq!(kind(&folder.join("loop")), ErrorKind::PermissionDenied);
        assert_eq!(kind(&folder.join("absent")), ErrorKind::InvalidConfig);
        assert_eq!(kind(&folder), ErrorKind::InvalidConfig);
        assert_eq!(kind(&program.join("below")), ErrorKind::InvalidConfig);
        assert_eq!(kind(Path::new("/dev/null")), ErrorKind::InvalidConfig);
    }

    #[test]
    fn what_others_can_change_is_refused_by_name() {
        let home = home();
        let folder = home.path().join("folder");
        std::fs::create_dir(&folder).expect("folder");
        let program = folder.join("program");
        std::fs::write(&program, "").expect("written");
        set_mode(&program, 0o755);
        // The control: trusted as it is.
        trusted(&program).expect("private");
        let outside = home.path().join("link");
        symlink(&program, &outside).expect("link");
        for (path, mode) in [(&program, 0o775), (&program, 0o757), (&folder, 0o1777)] {
            set_mode(path, mode);
            for way in [&program, &outside] {
                let error = trusted(way).expect_err("open to others");
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
                let named = path.canonicalize().expect("real");
                assert!(
                    error.message().starts_with(&*named.to_string_lossy()),
                    "{error}"
                );
            }
            set_mode(path, 0o755);
        }
        trusted(&program).expect("private again");
    }

    #[test]
    fn what_belongs_to_another_is_refused() {
        let home = home();
        let program = home.path().join("program");
        std::fs::write(&program, "").expect("written");
        set_mode(&program, 0o755);
        if std::os::unix::fs::chown(&program, Some(65534), None).is_err() {
            // Only root can give a file away.
            assert!(!rustix::process::geteuid().is_root());
            return;
        }
        let error = trusted(&program).expect_err("nobody's");
        assert!(error.message().contains("uid 65534"), "{error}");
    }
}
