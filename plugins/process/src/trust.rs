//! Whether a program may be run as a plugin: whoever can change it, or what runs it, can read what
//! passes through it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use keyhaul_core::trust::{self, Sticky};
use keyhaul_core::{Error, ErrorKind, Result};

use crate::confined;

/// As many scripts as the kernel takes one for the program of another.
const MOST_SCRIPTS: usize = 5;

/// As much of a script's first line as the kernel reads.
const FIRST_LINE: u64 = 256;

/// The file behind `path`, where it and every folder and link on the way to it can be changed by
/// root and the user only, and so with the program that its first line names.
///
/// # Errors
/// `InvalidConfig` where it is not there or no file, `PermissionDenied` with the rule where others
/// could change it.
pub(crate) fn trusted(path: &Path) -> Result<PathBuf> {
    let program = walked(path)?;
    let mut script = program.clone();
    for _ in 0..MOST_SCRIPTS {
        let Some(line) = first_line(&script)? else {
            return Ok(program);
        };
        let named = |error: Error| {
            let what = format!("{} is run by another program, and ", script.display());
            let refused = Error::new(error.kind(), what + error.message());
            match error.advice() {
                Some(advice) => refused.with_advice(advice.to_owned()),
                None => refused,
            }
        };
        let mut next = PathBuf::new();
        for name in interpreters(&line) {
            next = walked(&name).map_err(named)?;
        }
        script = next;
    }
    let rule = format!("{} is run by scripts without end", path.display());
    Err(Error::new(ErrorKind::InvalidConfig, rule))
}

/// What follows `#!`, where it is a script.
fn first_line(program: &Path) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = File::open(program).and_then(|file| file.take(FIRST_LINE).read_to_end(&mut line));
    match read {
        Ok(_) => {}
        // A program can be executed that cannot be read. A script cannot.
        Err(error) if ErrorKind::of_io(&error) == ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => {
            let what = format!("the plugin cannot be read: {}", program.display());
            return Err(Error::new(ErrorKind::of_io(&error), what).with_source(error));
        }
    }
    let Some(rest) = line.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let end = rest.iter().position(|byte| *byte == b'\n');
    Ok(Some(rest[..end.unwrap_or(rest.len())].to_vec()))
}

/// The program that such a line names, and where that is `env`, the one that it finds in turn.
fn interpreters(line: &[u8]) -> Vec<PathBuf> {
    let mut words = line
        .split(|byte| [b' ', b'\t', b'\r'].contains(byte))
        .filter(|word| !word.is_empty())
        .map(|word| Path::new(OsStr::from_bytes(word)));
    // A name without a folder is looked for in `/`, where programs are started.
    let mut named: Vec<_> = words
        .next()
        .map(|word| Path::new("/").join(word))
        .into_iter()
        .collect();
    if named
        .iter()
        .all(|name| name.file_name() != Some("env".as_ref()))
    {
        return named;
    }
    let is_option =
        |word: &OsStr| word.as_bytes().starts_with(b"-") || word.as_bytes().contains(&b'=');
    if let Some(word) = words.find(|word| !is_option(word.as_os_str())) {
        let folders = confined::PATH
            .split(':')
            .map(|folder| Path::new(folder).join(word));
        named.extend(folders.into_iter().find(|program| program.exists()));
    }
    named
}

/// The file behind `path`, by that rule.
fn walked(path: &Path) -> Result<PathBuf> {
    trust::file("the plugin", path, Sticky::Refused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
    fn what_runs_a_script_is_looked_at_as_the_script_is() {
        let home = home();
        let folder = home.path().canonicalize().expect("real");
        let (program, open) = (folder.join("program"), folder.join("open"));
        std::fs::create_dir(&open).expect("folder");
        let (inner, shell) = (folder.join("inner"), open.join("shell"));
        std::fs::write(&shell, "\x7fELF").expect("written");
        std::fs::write(&inner, format!("#! {} -x\n", shell.display())).expect("written");
        let (shell, inner) = (shell.display(), inner.display());
        for first in [
            format!("#!{shell}\n"),
            format!("#! \t{shell} -e\nrest"),
            format!("#!{shell}"),
            format!("#!/usr/bin/env {shell}\n"),
            format!("#!/usr/bin/env -S A=b {shell} -e\n"),
            format!("#!{inner}\n"),
        ] {
            std::fs::write(&program, &first).expect("written");
            set_mode(&program, 0o755);
            // The control: while nobody else can write there, it is run.
            set_mode(&open, 0o755);
            assert_eq!(trusted(&program).expect(&first), program);
            set_mode(&open, 0o777);
            let error = trusted(&program).expect_err(&first);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{first}");
            let named = format!(
                " is run by another program, and {} has mode",
                open.display()
            );
            assert!(error.message().contains(&named), "{error}");
            assert!(
                error
                    .advice()
                    .is_some_and(|advice| advice.starts_with("chmod"))
            );
        }
        std::fs::write(&program, format!("#!{}\n", program.display())).expect("written");
        assert_eq!(kind(&program), ErrorKind::InvalidConfig);
        std::fs::write(&program, "#!/no/such/shell\n").expect("written");
        assert_eq!(kind(&program), ErrorKind::InvalidConfig);
        // By its name alone it is looked for where programs of the system are.
        std::fs::write(&program, "#!/usr/bin/env sh\n").expect("written");
        assert_eq!(trusted(&program).expect("the system's"), program);
        assert_eq!(interpreters(b"/usr/bin/env sh").len(), 2);
    }
}
