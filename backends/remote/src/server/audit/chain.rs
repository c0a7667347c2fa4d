//! The chain: how a record's hash is made, and how a line is held against the one before it.

use aws_lc_rs::digest::{Context, SHA256};
use base16ct::lower::encode_string as hex;
use keyhaul_core::{Error, ErrorKind, Result};

use crate::protocol::AuditHead;

/// The hash before the first record.
pub(super) const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// How a line begins.
pub(super) const SEQUENCE: &str = "{\"sequence\":";
/// What follows the sequence.
pub(super) const TIME: &str = ",\"time\":\"";
/// What follows the time in a file's first record.
pub(super) const PREVIOUS: &str = "\",\"previous\":\"";
/// What stands between a line's content and its hash.
pub(super) const HASH: &str = ",\"hash\":\"";
/// How a line ends.
pub(super) const END: &str = "\"}";

/// The hash of the record after `previous`; `content` is its line up to where [`HASH`] begins.
pub(super) fn hash(previous: &str, content: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(previous.as_bytes());
    context.update(content);
    context.update(b"}");
    hex(context.finish().as_ref())
}

/// A line, taken apart.
pub(super) struct Line<'a> {
    pub sequence: u64,
    /// The hash before it, in the first record of a file.
    pub previous: Option<&'a str>,
    content: &'a [u8],
    pub hash: &'a str,
}

impl<'a> Line<'a> {
    /// Takes apart a line without its end; none where it is no record.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let digits = line.strip_prefix(SEQUENCE.as_bytes())?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        let sequence = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
        let time = digits[end..].strip_prefix(TIME.as_bytes())?;
        let after = &time[time.iter().position(|byte| *byte == b'"')?..];
        let previous = match after.strip_prefix(PREVIOUS.as_bytes()) {
            Some(rest) => Some(std::str::from_utf8(rest.get(..ORIGIN.len())?).ok()?),
            None => None,
        };
        let tail = line.len().checked_sub(ORIGIN.len() + END.len())?;
        let (content, hash) = line.split_at(tail);
        let hash = std::str::from_utf8(hash.strip_suffix(END.as_bytes())?).ok()?;
        Some(Self {
            sequence,
            previous,
            content: content.strip_suffix(HASH.as_bytes())?,
            hash,
        })
    }

    /// Whether its hash is that of its content, after `previous`.
    fn follows(&self, previous: &str) -> bool {
        hash(previous, self.content) == self.hash
    }
}

/// The chain up to some record.
#[derive(Debug)]
pub(super) struct Chain {
    head: Option<AuditHead>,
}

impl Chain {
    /// The chain from `head` on; with none, from wherever the first line says.
    pub fn from(head: Option<AuditHead>) -> Self {
        Self { head }
    }

    /// Where it ends by now; none where nothing was read yet.
    pub fn head(self) -> Option<AuditHead> {
        self.head
    }

    /// Takes the next line, the `first` of its file or not; the error says what is wrong with it.
    pub fn step(&mut self, line: &[u8], first: bool) -> Result<u64, String> {
        let record = Line::parse(line).ok_or("is no record of the audit")?;
        let before = match (&self.head, record.previous) {
            (Some(head), _) => head.clone(),
            (None, Some(previous)) => AuditHead {
                sequence: record.sequence.wrapping_sub(1),
                hash: previous.to_owned(),
            },
            (None, None) => {
                return Err("is not a file's first record: what stood before it is gone".into());
            }
        };
        let expected = before.sequence.wrapping_add(1);
        if record.sequence > expected {
            let last = record.sequence - 1;
            return Err(match last == expected {
                true => format!("comes after a record that is missing: {expected}"),
                false => format!("comes after records that are missing: {expected} to {last}"),
            });
        }
        if record.sequence < expected {
            let found = record.sequence;
            return Err(format!("holds record {found} where {expected} belongs"));
        }
        if first && record.previous.is_none() {
            return Err("is not a file's first record: what stood before it is gone".into());
        }
        let origin = record.sequence != 1 || before.hash == ORIGIN;
        let linked = record.previous.is_none_or(|hash| hash == before.hash);
        if !origin || !linked || !record.follows(&before.hash) {
            return Err(
                "was changed: its hash is not that of its content and of the record before it"
                    .into(),
            );
        }
        self.head = Some(AuditHead {
            sequence: record.sequence,
            hash: record.hash.to_owned(),
        });
        Ok(record.sequence)
    }
}

/// The error of a chain that does not hold.
pub(super) fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what.into())
}
