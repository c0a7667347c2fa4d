//! Whether others could change what a path leads to: a program that is given secrets, a folder that
//! they are read from.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::{Error, ErrorKind, Result, typed};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// What is thought of a sticky folder on the way, as `/tmp` is: others cannot replace what lies there
/// and is not theirs, but they can be first with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// It will do anywhere but directly around a file: what lies in it is looked at for itself, and
    /// a folder or link that another was first with belongs to another.
    Above,
    /// It will not do.
    Refused,
}

/// The file behind `path`, where it and every folder and link on the way to it can be changed by
/// root and the user only. Errors call it `what`, as in "the plugin".
///
/// # Errors
/// `InvalidConfig` where it is not there or no regular file, `PermissionDenied` with the rule where
/// others could change it.
pub fn file(what: &str, path: &Path, sticky: Sticky) -> Result<PathBuf> {
    let walk = Walk {
        what,
        path,
        sticky,
        folder: false,
    };
    walk.end()?.ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("{what} is not there: {}", path.display()),
        )
    })
}

/// The folder behind `path`, by the same rule, with sticky folders above it. None where there is none.
///
/// # Errors
/// `InvalidConfig` where it is no folder, `PermissionDenied` with the rule where others could change
/// it.
pub fn folder(what: &str, path: &Path) -> Result<Option<PathBuf>> {
    let walk = Walk {
        what,
        path,
        sticky: Sticky::Above,
        folder: true,
    };
    walk.end()
}

/// The way along a path, from the root.
struct Walk<'a> {
    what: &'a str,
    path: &'a Path,
    sticky: Sticky,
    /// Whether it is to end at a folder, and not at a file.
    folder: bool,
}

impl Walk<'_> {
    /// What is at its end, that others cannot change.
    fn end(&self) -> Result<Option<PathBuf>> {
        if !self.path.is_absolute() {
            return Err(self.is_not(self.path, "is no absolute path"));
        }
        let mut left = parts(self.path);
        let mut at = PathBuf::from("/");
        let Some(mut metadata) = self.look(&at)? else {
            return Ok(None);
        };
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if !metadata.is_dir() {
                return Err(self.is_not(&at, "is no folder"));
            }
            let around = left.is_empty() && !self.folder;
            let sticky = self.sticky == Sticky::Above && !around;
            self.check(&at, &metadata, sticky)?;
            let next = match at.parent() {
                Some(above) if part == ".." => above.to_owned(),
                None if part == ".." => at.clone(),
                _ => at.join(&part),
            };
            let Some(found) = self.look(&next)? else {
                return Ok(None);
            };
            if !found.is_symlink() {
                (at, metadata) = (next, found);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(self.refused(self.path, "is behind too many links"));
            }
            self.check_owner(&next, &found)?;
            let target = std::fs::read_link(&next).map_err(|error| self.unseen(&next, error))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
                let Some(root) = self.look(&at)? else {
                    return Ok(None);
                };
                metadata = root;
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
        match self.folder {
            true if !metadata.is_dir() => return Err(self.is_not(&at, "is no folder")),
            false if !metadata.is_file() => return Err(self.is_not(&at, "is no regular file")),
            _ => self.check(&at, &metadata, false)?,
        }
        Ok(Some(at))
    }

    fn look(&self, at: &Path) -> Result<Option<Metadata>> {
        match std::fs::symlink_metadata(at) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unseen(at, error)),
        }
    }

    fn check(&self, at: &Path, metadata: &Metadata, sticky_will_do: bool) -> Result<()> {
        self.check_owner(at, metadata)?;
        let sticky = metadata.mode() & 0o1000 != 0;
        if metadata.mode() & 0o022 != 0 && !(sticky && sticky_will_do) {
            let mode = metadata.mode() & 0o7777;
            let rule = format!("has mode {mode:04o}, with which others can write");
            let advice = match sticky {
                // Open to all on purpose, as /tmp is.
                true => "keep it in a folder that only root can write to".to_owned(),
                false => format!("chmod go-w {}", typed(at)),
            };
            return Err(self.refused(at, &rule).with_advice(advice));
        }
        Ok(())
    }

    fn check_owner(&self, at: &Path, metadata: &Metadata) -> Result<()> {
        let us = rustix::process::geteuid().as_raw();
        let owner = metadata.uid();
        if [0, us].contains(&owner) {
            return Ok(());
        }
        let advice = format!("chown -h {us} {}", typed(at));
        let rule = format!("belongs to uid {owner}");
        Err(self.refused(at, &rule).with_advice(advice))
    }

    fn refused(&self, at: &Path, rule: &str) -> Error {
        Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "{} {rule}: {} and all folders above it belong to root or the user, and nobody else can write there",
                at.display(),
                self.what
            ),
        )
    }

    fn is_not(&self, at: &Path, what: &str) -> Error {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("{} cannot be used: {} {what}", self.what, at.display()),
        )
    }

    fn unseen(&self, at: &Path, error: io::Error) -> Error {
        // No path of a secret's: that something on the way is missing is never "no such secret".
        let kind = match ErrorKind::of_io(&error) {
            ErrorKind::NotFound => ErrorKind::InvalidConfig,
            kind => kind,
        };
        Error::new(
            kind,
            format!("{} cannot be reached at {}", self.what, at.display()),
        )
        .with_source(error)
    }
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

    fn trusted(path: &Path) -> Result<PathBuf> {
        file("the program", path, Sticky::Refused)
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

    #[test]
    fn a_sticky_folder_will_do_above_but_not_around_a_file() {
        let home = home();
        let (outer, inner) = (home.path().join("outer"), home.path().join("outer/inner"));
        std::fs::create_dir_all(&inner).expect("folders");
        let program = inner.join("program");
        std::fs::write(&program, "").expect("written");
        set_mode(&program, 0o755);
        set_mode(&inner, 0o755);
        let kind = |sticky| file("the program", &program, sticky).map_err(|error| error.kind());
        let denied = Err(ErrorKind::PermissionDenied);
        set_mode(&outer, 0o1777);
        assert_eq!(kind(Sticky::Refused), denied);
        let real = program.canonicalize().expect("real");
        assert_eq!(kind(Sticky::Above), Ok(real));
        // By whichever way its folder is reached.
        set_mode(&inner, 0o1777);
        std::fs::create_dir(inner.join("below")).expect("folder");
        let round = inner.join("below/../program");
        for way in [&program, &round] {
            let error = file("the program", way, Sticky::Above).expect_err("another's first");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
        set_mode(&inner, 0o755);
        file("the program", &round, Sticky::Above).expect("the control");
        // And not one that everybody can empty.
        set_mode(&outer, 0o777);
        assert_eq!(kind(Sticky::Above), denied);
    }

    #[test]
    fn a_folder_is_held_to_the_rule_with_all_above_it() {
        let home = home();
        let (outer, inner) = (home.path().join("outer"), home.path().join("outer/inner"));
        std::fs::create_dir_all(&inner).expect("folders");
        set_mode(&inner, 0o700);
        let real = inner.canonicalize().expect("real");
        let kind = || folder("the folder", &inner).map_err(|error| error.kind());
        for (mode, expected) in [
            (0o755, Ok(Some(real.clone()))),
            (0o1777, Ok(Some(real))),
            (0o775, Err(ErrorKind::PermissionDenied)),
        ] {
            set_mode(&outer, mode);
            assert_eq!(kind(), expected, "{mode:o}");
        }
        set_mode(&outer, 0o755);
        set_mode(&inner, 0o1777);
        assert_eq!(kind(), Err(ErrorKind::PermissionDenied));
        set_mode(&inner, 0o700);
        assert_eq!(
            folder("the folder", &inner.join("none")).expect("none"),
            None
        );
        std::fs::write(inner.join("file"), "").expect("written");
        for path in [inner.join("file"), inner.join("file/below"), "a/b".into()] {
            let error = folder("the folder", &path).expect_err("no folder");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{path:?}");
        }
    }

    #[test]
    fn a_link_of_anothers_in_a_sticky_folder_leads_nowhere() {
        let home = home();
        let open = home.path().join("open");
        std::fs::create_dir(&open).expect("folder");
        std::fs::create_dir(home.path().join("ours")).expect("folder");
        symlink(home.path().join("ours"), open.join("link")).expect("link");
        set_mode(&open, 0o1777);
        let real = home.path().join("ours").canonicalize().expect("real");
        let came = folder("the folder", &open.join("link"));
        assert_eq!(came.expect("ours"), Some(real));
        // Only root can give a link away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(open.join("link"), Some(65534), None).expect("given away");
            let error = folder("the folder", &open.join("link")).expect_err("another's");
            assert!(error.message().contains("uid 65534"), "{error}");
        }
    }
}
