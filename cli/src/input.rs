//! Secrets that a command takes in: from a file, from standard input, or from a person.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use keyhaul_core::{Error, ErrorKind, SecretBytes, SecretWriter};

use crate::failure::Outcome;
use crate::global::Global;

/// Where a secret came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, or standard input that is no terminal.
    Bytes,
    /// A prompt.
    Person,
}

/// The secret in the file `from`, where `-` is standard input. Where no file is named, a person is
/// asked at a terminal, and standard input is read where there is none.
pub fn secret(
    global: &Global,
    from: Option<&Path>,
    limit: usize,
    ask: impl FnOnce() -> Outcome<SecretBytes>,
) -> Outcome<(SecretBytes, Origin)> {
    let stdin = io::stdin();
    let mut writer = SecretWriter::with_limit(limit);
    match from {
        Some(path) if path.as_os_str() != "-" => {
            let mut file = File::open(path).map_err(|error| {
                let kind = match ErrorKind::of_io(&error) {
                    ErrorKind::NotFound => ErrorKind::InvalidConfig,
                    kind => kind,
                };
                Error::new(kind, format!("the file {} cannot be read", path.display()))
                    .with_source(error)
            })?;
            writer
                .read_all(&mut file)
                .map_err(|error| error.with_place(path.display()))?;
        }
        None if stdin.is_terminal() => {
            if global.non_interactive {
                let rule = "no value: standard input is a terminal, and nothing may be asked";
                let error = Error::new(ErrorKind::InvalidConfig, rule)
                    .with_advice("name a file by --from, or pipe the value in");
                return Err(error.into());
            }
            return Ok((ask()?, Origin::Person));
        }
        // Not by the standard library's buffer, which would keep a copy of the value.
        _ => {
            let input = stdin.as_fd().try_clone_to_owned();
            let input = input.map_err(|error| Error::io("standard input", error))?;
            writer.read_all(&mut File::from(input))?;
        }
    }
    Ok((writer.finish(), Origin::Bytes))
}
