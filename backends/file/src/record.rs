//! The file of a secret: its versions, newest first.
//!
//! ```text
//! file    = "KHSEC\x00\x01\n" record+
//! record  = length:u32le metadata length:u32le nonce ciphertext tag
//! ```
//!
//! The second length is that of nonce, ciphertext and tag together. The metadata is JSON in clear
//! text. The tag covers the file's first bytes, the secret's path and the exact metadata, so that a
//! record is good only where it was written.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use keyhaul_core::{
    Error, ErrorKind, IdempotencyId, Metadata, Result, SecretBytes, SecretPath, Version,
};
use serde::{Deserialize, Serialize};

use crate::error::{corrupt, internal};
use crate::keys::{NONCE, StoreKey, TAG};
use crate::{MAX_VALUE, config};

const MAGIC: &[u8] = b"KHSEC\x00\x01\n";
/// The longest metadata: mostly labels.
const MAX_BLOB: usize = 64 * 1024;
/// The longest file this format makes.
pub(crate) const MAX_FILE: usize =
    MAGIC.len() + config::MAX_KEEP * (8 + MAX_BLOB + NONCE + MAX_VALUE + TAG);

/// The versions in the bytes of a file. Nothing of it is proven until a record is opened.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    records: Vec<Record<'a>>,
    path: &'a SecretPath,
    file: &'a Path,
}

/// One version, as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// All of it, lengths included.
    raw: &'a [u8],
    blob: &'a [u8],
    sealed: &'a [u8],
}

/// What is kept beside a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) version: u64,
    created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<String>,
}

impl<'a> Records<'a> {
    /// Takes a file apart. `path` is the secret's, `file` where its file is.
    ///
    /// # Errors
    /// `Corrupt` where the bytes do not add up.
    pub(crate) fn parse(bytes: &'a [u8], path: &'a SecretPath, file: &'a Path) -> Result<Self> {
        let damaged = || corrupt(file, "is cut short, damaged or no secret of keyhaul's");
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (record, after) = Record::parse(rest).ok_or_else(damaged)?;
            records.push(record);
            rest = after;
        }
        if records.is_empty() {
            return Err(damaged());
        }
        Ok(Self {
            records,
            path,
            file,
        })
    }

    /// The newest version's metadata, proven.
    pub(crate) fn newest(&self, key: &StoreKey) -> Result<Meta> {
        self.open(self.records[0], key).map(|(meta, _)| meta)
    }

    /// The version asked for, or the newest; none where it is not kept.
    pub(crate) fn find(
        &self,
        version: Option<&Version>,
        key: &StoreKey,
    ) -> Result<Option<(Meta, SecretBytes)>> {
        let Some(version) = version else {
            return self.open(self.records[0], key).map(Some);
        };
        for record in &self.records {
            if self.meta(record)?.version.to_string() == version.as_str() {
                return self.open(*record, key).map(Some);
            }
        }
        // Its metadata may have been edited: only proven records can prove that it is not here.
        for record in &self.records {
            self.open(*record, key)?;
        }
        Ok(None)
    }

    /// The metadata of the version that was written under `id`, proven.
    pub(crate) fn written_under(&self, id: IdempotencyId, key: &StoreKey) -> Result<Option<Meta>> {
        let id = id.to_string();
        for record in &self.records {
            if self.meta(record)?.idempotency.as_deref() == Some(id.as_str()) {
                return self.open(*record, key).map(|(meta, _)| Some(meta));
            }
        }
        Ok(None)
    }

    /// The bytes of the first `count` records, to be kept below a newer one.
    pub(crate) fn raw(&self, count: usize) -> impl Iterator<Item = &'a [u8]> {
        self.records.iter().take(count).map(|record| record.raw)
    }

    fn open(&self, record: Record<'a>, key: &StoreKey) -> Result<(Meta, SecretBytes)> {
        let damaged = || {
            corrupt(
                self.file,
                "is damaged, was written for another path, or belongs to another store",
            )
        };
        let (nonce, rest) = record.sealed.split_at_checked(NONCE).ok_or_else(damaged)?;
        let end = rest.len().checked_sub(TAG).ok_or_else(damaged)?;
        let (ciphertext, tag) = rest.split_at(end);
        let value = key
            .open(&bound(self.path, record.blob), nonce, ciphertext, tag)?
            .ok_or_else(damaged)?;
        Ok((self.meta(&record)?, value))
    }

    fn meta(&self, record: &Record<'a>) -> Result<Meta> {
        // The source is left out: it could quote what it found.
        serde_json::from_slice(record.blob)
            .map_err(|_| corrupt(self.file, "holds metadata that are damaged"))
    }
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (blob, rest) = field(bytes)?;
        let (sealed, rest) = field(rest)?;
        let raw = &bytes[..bytes.len() - rest.len()];
        (sealed.len() >= NONCE + TAG).then_some((Self { raw, blob, sealed }, rest))
    }
}

impl Meta {
    /// Metadata of a version written now.
    ///
    /// # Errors
    /// `InvalidConfig` for an expiry that no calendar has.
    pub(crate) fn new(
        version: u64,
        labels: &BTreeMap<String, String>,
        expires: Option<SystemTime>,
        idempotency: Option<IdempotencyId>,
    ) -> Result<Self> {
        let expires = expires.map(Timestamp::try_from).transpose();
        Ok(Self {
            version,
            created: Timestamp::now(),
            expires: expires.map_err(|_| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "the expiry is out of range: the year is -9999 to 9999",
                )
            })?,
            labels: labels.clone(),
            idempotency: idempotency.map(|id| id.to_string()),
        })
    }

    /// The file of a secret: this version with `value`, then `older` ones.
    ///
    /// # Errors
    /// `TooLarge` where there are too many labels.
    pub(crate) fn file<'o>(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        older: impl Iterator<Item = &'o [u8]>,
        key: &StoreKey,
    ) -> Result<Vec<u8>> {
        let blob = serde_json::to_vec(self)
            .map_err(|_| internal("metadata could not be written as JSON"))?;
        if blob.len() > MAX_BLOB {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the labels are over {MAX_BLOB} bytes together"),
            ));
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length(blob.len())?);
        bytes.extend_from_slice(&blob);
        bytes.extend_from_slice(&length(NONCE + value.len() + TAG)?);
        key.seal(&bound(path, &blob), value, &mut bytes)?;
        for record in older {
            bytes.extend_from_slice(record);
        }
        Ok(bytes)
    }

    /// As the contract's words.
    pub(crate) fn public(&self) -> Result<Metadata> {
        let mut metadata = Metadata::new(Some(Version::new(self.version.to_string())?));
        metadata.created = Some(self.created.into());
        metadata.expires = self.expires.map(SystemTime::from);
        metadata.labels.clone_from(&self.labels);
        Ok(metadata)
    }

    /// The error for reading an expired version; none while it is good.
    pub(crate) fn expired(&self) -> Option<Error> {
        let expires = self
            .expires
            .filter(|expires| *expires <= Timestamp::now())?;
        Some(
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "version {} expired at {}",
                    self.version,
                    expires.strftime("%Y-%m-%dT%H:%M:%SZ")
                ),
            )
            .with_advice("read it anyway with --expired, or set it again with a later expiry"),
        )
    }
}

/// What the tag covers besides the value.
fn bound(path: &SecretPath, blob: &[u8]) -> Vec<u8> {
    let path = path.as_str().as_bytes();
    let mut bound = Vec::with_capacity(MAGIC.len() + 8 + path.len() + blob.len());
    bound.extend_from_slice(MAGIC);
    bound.extend_from_slice(&(path.len() as u64).to_le_bytes());
    bound.extend_from_slice(path);
    bound.extend_from_slice(blob);
    bound
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn length(length: usize) -> Result<[u8; 4]> {
    u32::try_from(length)
        .map(u32::to_le_bytes)
        .map_err(|_| Error::new(ErrorKind::TooLarge, "more than 4 GiB"))
}
