//! Whether a path names a library or a program.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::ValueEnum;
use keyhaul_core::{Error, ErrorKind, Result};
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

/// As much of a file as tells what it is.
const LOOKED_AT: u64 = 4096;

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
        let mut begin = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LOOKED_AT).read_to_end(&mut begin))
            .map_err(unreadable)?;
        if is_shared_object(&begin) {
            return Ok(Self::Library);
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

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Program => "program",
        }
    }
}

/// Whether this is how an ELF shared object begins that asks for no interpreter: one that does is a
/// program that can be loaded anywhere.
fn is_shared_object(file: &[u8]) -> bool {
    const DYNAMIC: u16 = 3;
    const INTERPRETER: u32 = 3;
    let half = |at: usize| {
        let bytes = file.get(at..at + 2)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    };
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if !file.starts_with(b"\x7fELF") || half(16) != Some(DYNAMIC) {
        return false;
    }
    // Of 64 bits and little-endian, as every machine that keyhaul runs on; what is not one of
    // these, the loader will say.
    if file.get(4..6) != Some(&[2, 1]) {
        return true;
    }
    let (Some(begin), Some(size), Some(count)) = (word(32), half(54), half(56)) else {
        return true;
    };
    let kind = |number: u16| {
        let offset = usize::from(number).checked_mul(size.into())?;
        word((begin as usize).checked_add(offset)?)
    };
    !(0..count).any(|number| kind(number) == Some(INTERPRETER))
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

    #[test]
    fn a_broken_header_does_no_harm() {
        let mut header = vec![0xff; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[16..18].copy_from_slice(&[3, 0]);
        for length in 0..=header.len() {
            is_shared_object(&header[..length]);
        }
        assert!(is_shared_object(&header));
    }
}
