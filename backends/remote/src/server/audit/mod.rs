//! The audit: JSON lines in a hash chain, durable before the answer.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyhaul_core::{Error, ErrorKind, Result};

use crate::protocol::{AuditAnswer, AuditHead, Role};

/// The log, appended to by one process.
#[derive(Debug)]
pub struct AuditLog {}

/// What is recorded of one decision. Sequence, time and hash are the log's own; a value or its
/// length is never in it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The request's id.
    pub request: Arc<str>,
    /// Who asked: the URI in the certificate.
    pub actor: Arc<str>,
    /// The actor's role, where it is known.
    pub role: Option<Role>,
    /// From where: the address of the connection.
    pub peer: Arc<str>,
    /// What was asked.
    pub operation: &'static str,
    /// About what: `SCOPE/NAME`, or a scope.
    pub subject: Option<String>,
    /// For or about which node.
    pub node: Option<Arc<str>>,
    /// `ok`, `begin`, or the name of an error's kind.
    pub outcome: &'static str,
    /// Why, where the outcome alone does not say.
    pub reason: Option<Cow<'static, str>>,
    /// The version that was read or written.
    pub version: Option<String>,
    /// The grant's epoch.
    pub epoch: Option<u64>,
    /// The migration that it belongs to.
    pub migration: Option<String>,
}

impl Entry {
    /// The operation of a read, which the fetch index is made of where its outcome is [`Self::OK`].
    pub const READ: &'static str = "read";
    /// The outcome of what worked.
    pub const OK: &'static str = "ok";
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The first record's number.
    pub first: u64,
    /// How many records there are.
    pub records: u64,
    /// Where the chain ends.
    pub head: AuditHead,
    /// Whether half a line follows: the service died in the middle of a write, or is writing now.
    pub torn: bool,
}

impl AuditLog {
    /// Opens or makes the log at `path`; `anchor` is a head that it must reach.
    pub fn open(_path: &Path, _anchor: Option<AuditHead>) -> Result<Self> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
    /// Records `entries`, durably before it returns the first one's number.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton that others build against"
    )]
    pub async fn append(&self, _entries: Vec<Entry>) -> Result<u64> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
    /// Where the chain ends.
    pub fn head(&self) -> AuditHead {
        AuditHead {
            sequence: 0,
            hash: "0".repeat(64),
        }
    }
    /// Up to `limit` records after number `after` whose subject `keep` wants, as they stand in the file. Blocks.
    pub fn read(
        &self,
        _after: u64,
        _limit: usize,
        _keep: &dyn Fn(Option<&str>) -> bool,
    ) -> Result<AuditAnswer> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
    /// Goes on in a new file at the same path, where the old one was moved away.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton that others build against"
    )]
    pub async fn reopen(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
}

/// Verifies the chain through `files`, the oldest first, and that it holds `head`.
pub fn verify(_files: &[PathBuf], _head: Option<&AuditHead>) -> Result<Verified> {
    Err(Error::new(ErrorKind::Unsupported, "not yet"))
}
