//! What an authority has issued: JSON lines, the first about the authority itself.

use std::net::IpAddr;

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::files::Folder;

const FILE: &str = "index.jsonl";
/// The longest index: a hundred thousand certificates.
const LONGEST: usize = 64 * 1024 * 1024;

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// What its files are called; a renewed one has the same.
    pub stem: String,
    /// A client's URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// A server's names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// A server's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

impl Record {
    /// Whether it is neither revoked nor expired.
    pub fn is_live(&self) -> bool {
        self.revoked.is_none() && self.expires > Timestamp::now()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    authority: String,
    expires: Timestamp,
    crl: u64,
}

#[derive(Debug)]
pub(super) struct Index {
    head: Head,
    records: Vec<Record>,
}

impl Index {
    pub(super) fn new(name: &str, expires: Timestamp) -> Self {
        let head = Head {
            authority: name.to_owned(),
            expires,
            crl: 1,
        };
        Self {
            head,
            records: Vec::new(),
        }
    }

    pub(super) fn read(folder: &Folder) -> Result<Self> {
        let text = folder.read(FILE, LONGEST)?;
        let mut lines = text.lines().enumerate();
        let place = |line: usize| format!("{}:{}", folder.path(FILE).display(), line + 1);
        let (_, head) = lines.next().ok_or_else(|| {
            damaged("the authority's own line").with_place(folder.path(FILE).display())
        })?;
        let head = serde_json::from_str(head)
            .map_err(|error| damaged("a line").with_place(place(0)).with_source(error))?;
        let records = lines
            .map(|(number, line)| {
                serde_json::from_str(line).map_err(|error| {
                    let error = damaged("a line").with_source(error);
                    error.with_place(place(number))
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { head, records })
    }

    pub(super) fn write(&self, folder: &Folder) -> Result<()> {
        let unwritten = |error: serde_json::Error| {
            Error::new(ErrorKind::Internal, "the index cannot be written").with_source(error)
        };
        let mut text = serde_json::to_string(&self.head).map_err(unwritten)?;
        text.push('\n');
        for record in &self.records {
            text.push_str(&serde_json::to_string(record).map_err(unwritten)?);
            text.push('\n');
        }
        folder.write(FILE, text.as_bytes())
    }

    pub(super) fn name(&self) -> &str {
        &self.head.authority
    }

    pub(super) fn expires(&self) -> Timestamp {
        self.head.expires
    }

    pub(super) fn crl_number(&self) -> u64 {
        self.head.crl
    }

    /// The next list of what is revoked has the next number.
    pub(super) fn count_crl(&mut self) {
        self.head.crl += 1;
    }

    pub(super) fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// The valid ones of a stem.
    pub(super) fn live(&self, stem: &str) -> impl Iterator<Item = &Record> {
        let of_stem = self.records.iter().filter(move |r| r.stem == stem);
        of_stem.filter(|record| record.is_live())
    }

    pub(super) fn latest(&self, stem: &str) -> Option<&Record> {
        self.records.iter().rfind(|record| record.stem == stem)
    }

    pub(super) fn live_stems(&self) -> Vec<&str> {
        let live = self.records.iter().filter(|record| record.is_live());
        let mut stems: Vec<&str> = live.map(|record| record.stem.as_str()).collect();
        stems.sort_unstable();
        stems.dedup();
        stems
    }

    /// Revokes by serial number, or all that are valid of a stem; what is revoked by now.
    pub(super) fn revoke(&mut self, which: &str, now: Timestamp) -> Vec<Record> {
        let serial = which.to_ascii_lowercase().replace(':', "");
        let meant = self
            .records
            .iter_mut()
            .filter(|record| record.serial == serial || (record.stem == which && record.is_live()));
        meant
            .map(|record| {
                record.revoked.get_or_insert(now);
                record.clone()
            })
            .collect()
    }

    pub(super) fn revocations(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let revoked = |record: &'_ Record| record.revoked;
        self.records
            .iter()
            .filter_map(move |record| Some((record.serial.as_str(), revoked(record)?)))
    }
}

pub(super) fn damaged(what: &str) -> Error {
    let rule = format!("the authority's index is damaged: {what} is missing or cannot be read");
    Error::new(ErrorKind::Corrupt, rule).with_advice("restore it from a backup")
}
