//! What the program says: data on standard output, words on standard error, colour only for a
//! person at a terminal.

mod report;
mod style;
mod table;
mod tame;

use std::fmt;
use std::io::{self, Write};

use keyhaul_core::{Error, ErrorKind, Result};
use serde::Serialize;

pub use keyhaul_core::shell_quoted;
pub use report::{failures, in_words, warning};
pub use style::Style;
pub use table::{Fields, Rows};
pub use tame::tame;

/// The version of every JSON document that the program prints. It changes when a key is removed or
/// changes its meaning, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON document, with a `schema_version`.
    Json,
}

/// A JSON document with its version.
#[derive(Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    data: &'a T,
}

/// Prints a JSON document on standard output.
pub fn json(data: &impl Serialize) -> Result<()> {
    let document = Document {
        schema_version: SCHEMA_VERSION,
        data,
    };
    let text = serde_json::to_string_pretty(&document).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "the output could not be written as JSON",
        )
        .with_source(error)
    })?;
    line(tame::tame_json(&text))
}

/// Prints bytes on standard output, exactly.
pub fn bytes(data: &[u8]) -> Result<()> {
    match deliver(data) {
        // Whoever reads has seen enough, as in `keyhaul list | head`.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

/// As [`bytes`], for what somebody must have read: a reader that has gone is an error.
pub fn deliver(mut data: &[u8]) -> Result<()> {
    // Not by the standard library's buffer, which would keep a copy of what may be a secret.
    while !data.is_empty() {
        let written =
            rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stdout(), data))
                .map_err(|error| Error::io("standard output", error.into()))?;
        if written == 0 {
            return Err(Error::io(
                "standard output",
                io::ErrorKind::WriteZero.into(),
            ));
        }
        data = &data[written..];
    }
    Ok(())
}

fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a line of data on standard output.
pub fn line(text: impl fmt::Display) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints a line of words on standard error. Nothing is left to do where even that fails.
pub fn words(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
