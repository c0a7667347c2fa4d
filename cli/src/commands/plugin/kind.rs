//! Whether a path names a library or a program.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::ValueEnum;
use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_plugin_process::is_library;
use serde::{Deserialize, Serialize};

/// What a plugin is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A library, which is loaded: plugin://
    Library,
    /// A program, which is started: plugin+exec://
    Program,
}

impl Kind {
    /// What the file at `path` is: a shared object is a library, and anything else that can be
    /// executed a program.
    ///
    /// # Errors
    /// `InvalidConfig` where it cannot be read or is neither.
    pub fn of(path: &Path) -> Result<Self> {
        let unreadable = |error| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("{} cannot be read", path.display()),
            )
            .with_source(error)
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            let rule = format!("{} is no file", path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, rule));
        }
        match File::open(path) {
            Ok(file) if is_library(&file) => return Ok(Self::Library),
            Ok(_) => {}
            // A program can be executed that cannot be read.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(unreadable(error)),
        }
        if metadata.permissions().mode() & 0o111 != 0 {
            return Ok(Self::Program);
        }
        let rule = format!(
            "{} is no plugin: neither a shared library nor executable",
            path.display()
        );
        Err(Error::new(ErrorKind::InvalidConfig, rule).with_advice(
            "a program is made executable by chmod +x; --kind says what it is to be taken for",
        ))
    }

    /// How a policy's url begins.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Library => "plugin",
            Self::Program => "plugin+exec",
        }
    }

    /// What the end of keyhaul's process that looked at such a plugin comes of: a program is another
    /// process, and can at most have sent a signal.
    pub fn ended(self, how: &str) -> String {
        match self {
            Self::Library => format!("the plugin crashed keyhaul: {how}"),
            Self::Program => format!("keyhaul's process that tries the plugin has ended: {how}"),
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Program => "program",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_programs_are_told_apart() {
        let own = std::env::current_exe().expect("this program");
        assert_eq!(Kind::of(&own).expect("known"), Kind::Program);
        assert_eq!(
            Kind::of(Path::new("/bin/sh")).expect("known"),
            Kind::Program
        );
        // A library that every program here has loaded.
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let library = maps
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .find(|path| path.contains("/libgcc_s.so"))
            .expect("a library");
        assert_eq!(Kind::of(Path::new(library)).expect("known"), Kind::Library);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for path in ["/etc/passwd", "/etc", "/nowhere/at/all"] {
            let error = Kind::of(Path::new(path)).expect_err(path);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
    }
}
