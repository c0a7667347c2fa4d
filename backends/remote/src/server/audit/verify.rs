//! Holding records against the chain.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result};
use rustix::fs::OFlags;

use super::chain::{Chain, Line, broken};
use super::lines::Lines;
use crate::protocol::AuditHead;

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The first record's number. Where it is not 1, older files were not given.
    pub first: u64,
    /// How many records there are.
    pub records: u64,
    /// Where the chain ends.
    pub head: AuditHead,
    /// Whether half a line follows: the service died in the middle of a write, or is writing now.
    pub torn: bool,
}

/// Verifies the chain through `files`, the oldest first, and that it holds the record of `head`.
/// Without a head from elsewhere, what was cut off at the end leaves no trace.
///
/// # Errors
/// `Corrupt` with file and line where a record was changed, removed, inserted or moved, or the
/// chain does not reach or not hold `head`; `NotFound` where there is no record at all; else the
/// kind that fits the I/O error.
pub fn verify(files: &[PathBuf], head: Option<&AuditHead>) -> Result<Verified> {
    let mut chain = Chain::from(None);
    let mut first = None;
    let mut records = 0;
    let mut torn = false;
    let mut held = head.is_none_or(|head| head.sequence == 0);
    for (index, path) in files.iter().enumerate() {
        let file = open(path)?;
        let end = length(path, &file)?;
        let last = index + 1 == files.len();
        torn = walk(path, &file, (0, end), &mut chain, last, |sequence, line| {
            first.get_or_insert(sequence);
            records += 1;
            if let Some(head) = head.filter(|head| head.sequence == sequence) {
                held = true;
                if Line::parse(line).is_none_or(|line| line.hash != head.hash) {
                    return Err("is not the record that the head names: all was made anew".into());
                }
            }
            Ok(())
        })?;
    }
    let (Some(first), Some(end)) = (first, chain.head()) else {
        return Err(Error::new(
            ErrorKind::NotFound,
            "there is no record of the audit",
        ));
    };
    match head {
        Some(head) if head.sequence < first => Err(broken(format!(
            "the chain begins with record {first}, after the head that was given, {}",
            head.sequence
        ))
        .with_advice("name the older files too, the oldest first")),
        Some(head) if !held => Err(broken(format!(
            "the chain ends with record {}: records up to {} were cut off",
            end.sequence, head.sequence
        ))),
        _ => Ok(Verified {
            first,
            records,
            head: end,
            torn,
        }),
    }
}

/// Steps through a part of a file; whether it ends in half a line, which only the last may.
pub(super) fn walk(
    path: &Path,
    file: &File,
    (start, end): (u64, u64),
    chain: &mut Chain,
    last: bool,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<bool> {
    let mut number = 0_u64;
    let mut lines = Lines::new(file, start, end);
    let subject = |error| Error::io(format!("{} cannot be read", path.display()), error);
    while let Some(found) = lines.next().map_err(subject)? {
        number += 1;
        if !found.whole && last && found.at + found.line.len() as u64 == end {
            return Ok(true);
        }
        let checked = match found.whole {
            true => chain.step(found.line, found.at == 0),
            false => Err("is no record of the audit".into()),
        };
        let checked = checked.and_then(|sequence| each(sequence, found.line));
        checked.map_err(|wrong| {
            // Who resumes in the middle of a file knows bytes, not lines.
            let place = match start {
                0 => format!("{}:{number}", path.display()),
                _ => format!("{} at byte {}", path.display(), found.at),
            };
            broken(format!("the audit does not hold: the line {wrong}")).with_place(place)
        })?;
    }
    Ok(false)
}

pub(super) fn open(path: &Path) -> Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let subject = || format!("the audit file {} cannot be opened", path.display());
    let file = opened.map_err(|error| Error::io(subject(), error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        _ => Err(Error::new(ErrorKind::InvalidConfig, subject())),
    }
}

pub(super) fn length(path: &Path, file: &File) -> Result<u64> {
    let metadata = file.metadata();
    let subject = |error| Error::io(format!("{} cannot be read", path.display()), error);
    Ok(metadata.map_err(subject)?.len())
}
