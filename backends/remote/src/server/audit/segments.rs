//! The files that hold one chain: the one that is written, and those it was moved to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use keyhaul_core::{Error, Result};

use super::chain::{Chain, Line, ORIGIN, broken};
use super::lines::{Lines, seek, whole_length};
use super::verify::{length, open, walk};
use crate::protocol::AuditHead;

/// A file of the chain.
#[derive(Debug)]
pub(super) struct Segment {
    pub path: PathBuf,
    /// Its first record's number.
    pub first: u64,
    /// The hash before that.
    previous: String,
    /// Its last record.
    pub last: AuditHead,
}

/// How the search for a record ended.
enum Search {
    Found { segment: usize, after: u64 },
    Other,
    Missing,
}

/// Where the chain at `path` ends, verified from the anchor on, through the files that it was moved
/// to since.
pub(super) fn resume(path: &Path, anchor: Option<&AuditHead>) -> Result<AuditHead> {
    let Some(anchor) = anchor else {
        let file = open(path)?;
        let mut chain = Chain::from(None);
        let end = length(path, &file)?;
        walk(path, &file, (0, end), &mut chain, true, |_, _| Ok(()))?;
        return Ok(chain.head().unwrap_or_else(|| AuditHead {
            sequence: 0,
            hash: ORIGIN.into(),
        }));
    };
    let segments = beside(path)?;
    let tips = match segments.iter().position(|segment| segment.path == path) {
        Some(current) => vec![current],
        None if length(path, &open(path)?)? > 0 => {
            let wrong = "the audit does not hold: its first line is not a file's first record";
            return Err(broken(wrong)
                .with_place(format!("{}:1", path.display()))
                .with_advice("restore the file; `keyhaul audit verify` shows what was changed"));
        }
        None => (0..segments.len()).rev().collect(),
    };
    let mut other = false;
    for tip in tips {
        let lineage = ancestors(&segments, tip);
        match search(&lineage, anchor)? {
            Search::Found { segment, after } => {
                return proceed(&lineage[segment..], after, anchor);
            }
            Search::Other => other = true,
            Search::Missing => {}
        }
    }
    let (sequence, path) = (anchor.sequence, path.display());
    if other {
        let message =
            format!("record {sequence} of the audit {path} is not the one that the service wrote");
        let advice = "restore the file; `keyhaul audit verify` shows what was changed";
        return Err(broken(message).with_advice(advice));
    }
    let message = format!(
        "the audit {path} lacks record {sequence}, which the service wrote and remembers: it was cut off or replaced"
    );
    Err(broken(message).with_advice(format!(
        "put the file back, or what it was moved to beside it, as {path}.1; to begin a new audit on purpose, \
         move this one away and run `sqlite3 STATE 'DELETE FROM anchor'`"
    )))
}

/// The files of the chain that is written to `path` and ends with `head`, the oldest first.
pub(super) fn lineage(path: &Path, head: Option<&AuditHead>) -> Result<Vec<Segment>> {
    let segments = beside(path)?;
    let current = segments.iter().position(|segment| segment.path == path);
    let tip = current.or_else(|| {
        let ends = |segment: &Segment| Some(&segment.last) == head;
        segments.iter().position(ends)
    });
    let Some(tip) = tip else {
        return Ok(Vec::new());
    };
    let wanted: Vec<PathBuf> = ancestors(&segments, tip)
        .into_iter()
        .map(|segment| segment.path.clone())
        .collect();
    let mut lineage = segments;
    lineage.retain(|segment| wanted.contains(&segment.path));
    Ok(lineage)
}

/// What an audit says of changes that came after an epoch.
#[derive(Debug)]
pub(in super::super) struct Later {
    /// The greatest epoch.
    pub epoch: u64,
    /// What was changed, the first ten of it.
    pub what: Vec<String>,
}

/// The changes with greater epochs than `epoch`, in the records after number `after`.
pub(super) fn later(
    path: &Path,
    head: &AuditHead,
    after: u64,
    epoch: u64,
) -> Result<Option<Later>> {
    /// How many are named.
    const NAMED: usize = 10;
    #[derive(serde::Deserialize)]
    struct Record {
        operation: String,
        epoch: Option<u64>,
        subject: Option<String>,
        node: Option<String>,
    }
    let mut later: Option<Later> = None;
    for segment in lineage(path, Some(head))? {
        let path = &segment.path;
        if segment.last.sequence <= after {
            continue;
        }
        let file = open(path)?;
        let end = length(path, &file)?;
        let unreadable = |error| Error::io(format!("{} cannot be read", path.display()), error);
        let mut lines = Lines::new(&file, seek(&file, after, end).map_err(unreadable)?, end);
        while let Some(found) = lines.next().map_err(unreadable)? {
            let Ok(record) = serde_json::from_slice::<Record>(found.line) else {
                continue;
            };
            let Some(found) = record.epoch.filter(|found| *found > epoch) else {
                continue;
            };
            let later = later.get_or_insert_with(|| Later {
                epoch: found,
                what: Vec::new(),
            });
            later.epoch = later.epoch.max(found);
            let of = [record.subject, record.node.map(|node| format!("at {node}"))];
            let of: Vec<String> = of.into_iter().flatten().collect();
            let what = format!("{} {}", record.operation, of.join(" "));
            if later.what.len() < NAMED && !later.what.contains(&what) {
                later.what.push(what);
            }
        }
    }
    Ok(later)
}

/// Every file whose name begins with that of `path` and which begins with a record, by its first
/// record's number. Other chains may be among them.
fn beside(path: &Path) -> Result<Vec<Segment>> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let unreadable = |error| {
        let subject = format!("the audit's folder {} cannot be read", folder.display());
        Error::io(subject, error)
    };
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let found = entry.map_err(unreadable)?.file_name();
        let found_name = found.as_encoded_bytes();
        if !found_name.starts_with(name) {
            continue;
        }
        let found = match found_name.len() == name.len() {
            true => path.to_owned(),
            false => folder.join(found),
        };
        // What cannot be read, or is something else, is no part of the chain.
        let segment = open(&found).ok().and_then(|file| segment(found, &file));
        segments.extend(segment);
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

fn segment(path: PathBuf, file: &File) -> Option<Segment> {
    /// More than the longest record.
    const TAIL: u64 = 256 * 1024;
    let end = whole_length(file).ok()?;
    let mut lines = Lines::new(file, 0, end);
    let found = lines.next().ok()??;
    let line = Line::parse(found.line)?;
    let (first, previous) = (line.sequence, line.previous?.to_owned());
    let mut lines = Lines::new(file, end.saturating_sub(TAIL), end);
    let mut last = None;
    while let Some(found) = lines.next().ok()? {
        if let Some(line) = Line::parse(found.line) {
            last = Some(AuditHead {
                sequence: line.sequence,
                hash: line.hash.to_owned(),
            });
        }
    }
    Some(Segment {
        path,
        first,
        previous,
        last: last?,
    })
}

/// The segment at `tip` and those before it, the oldest first.
fn ancestors(segments: &[Segment], tip: usize) -> Vec<&Segment> {
    let mut lineage = vec![&segments[tip]];
    loop {
        let oldest = lineage[lineage.len() - 1];
        let before = segments.iter().find(|segment| {
            segment.last.hash == oldest.previous
                && segment.last.sequence.checked_add(1) == Some(oldest.first)
                && segment.first < oldest.first
        });
        match before {
            Some(before) => lineage.push(before),
            None => break,
        }
    }
    lineage.reverse();
    lineage
}

/// Looks for the record that `anchor` names.
fn search(lineage: &[&Segment], anchor: &AuditHead) -> Result<Search> {
    let number = anchor.sequence;
    let holds = |segment: &&Segment| (segment.first..=segment.last.sequence).contains(&number);
    let Some(index) = lineage.iter().position(holds) else {
        return Ok(Search::Missing);
    };
    let path = &lineage[index].path;
    let file = open(path)?;
    let end = length(path, &file)?;
    let unreadable = |error| Error::io(format!("{} cannot be read", path.display()), error);
    let at = seek(&file, number - 1, end).map_err(unreadable)?;
    let mut lines = Lines::new(&file, at, end);
    let found = lines.next().map_err(unreadable)?;
    let record = found
        .as_ref()
        .and_then(|found| Some((found, Line::parse(found.line)?)));
    Ok(match record {
        Some((found, line)) if line.sequence == number && line.hash == anchor.hash => {
            Search::Found {
                segment: index,
                after: at + found.line.len() as u64 + 1,
            }
        }
        Some((_, line)) if line.sequence == number => Search::Other,
        _ => Search::Missing,
    })
}

/// Verifies what follows the anchor, which ends at byte `after` of the first file.
fn proceed(lineage: &[&Segment], after: u64, anchor: &AuditHead) -> Result<AuditHead> {
    let mut chain = Chain::from(Some(anchor.clone()));
    for (index, segment) in lineage.iter().enumerate() {
        let file = open(&segment.path)?;
        let start = if index == 0 { after } else { 0 };
        let end = length(&segment.path, &file)?;
        let last = index + 1 == lineage.len();
        walk(
            &segment.path,
            &file,
            (start, end),
            &mut chain,
            last,
            |_, _| Ok(()),
        )?;
    }
    Ok(chain.head().unwrap_or_else(|| anchor.clone()))
}
