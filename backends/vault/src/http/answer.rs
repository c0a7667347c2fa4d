//! What came back.

use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use serde::Deserialize;
use url::Url;

use crate::error;

/// An answer, whatever its status. Its body is in locked memory and wiped when dropped.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// How long the server asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// The body. Never printed.
    pub(crate) body: SecretBytes,
    /// Whether the server is sealed, where a 503 made us ask.
    pub(crate) sealed: Option<bool>,
    /// Whether a token was sent.
    pub(crate) authenticated: bool,
    /// Where to go instead.
    pub(super) location: Option<String>,
    /// Who answered: a url without query.
    pub(super) from: Url,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Option<Vec<String>>,
}

/// Of an answer of `sys/health`.
#[derive(Deserialize)]
struct Health {
    standby: bool,
}

impl Answer {
    /// Whether the status is one of success.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the server says is wrong, each in a line that can be printed. Empty where it says
    /// nothing, and for success.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.listed().unwrap_or_default()
    }

    /// As [`errors`](Self::errors); none where the body has no such list and is perhaps not the server's.
    pub(crate) fn listed(&self) -> Option<Vec<String>> {
        if self.is_success() {
            return None;
        }
        let body: Errors = serde_json::from_slice(self.body.expose()).ok()?;
        let lines = body.errors?;
        Some(lines.iter().map(|line| error::printable(line)).collect())
    }

    /// Whether a body of `sys/health` says that the server is a standby. A rate limit has the same status.
    pub(crate) fn is_standby(&self) -> bool {
        let health: Option<Health> = serde_json::from_slice(self.body.expose()).ok();
        health.is_some_and(|health| health.standby)
    }

    /// The error that the status and the errors body stand for, where the caller knows no better.
    pub(crate) fn refusal(&self) -> Error {
        error::refusal(self)
    }

    /// The body read as `T`, which can borrow from it.
    ///
    /// # Errors
    /// `Unavailable` where it is none: who answered may not be a Vault. Nothing of it is repeated.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(self.body.expose()).map_err(|_| self.garbage())
    }

    /// The error for a body that is not what it must be. It does not hold the parser's words, which
    /// can repeat the body.
    pub(crate) fn garbage(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("{} answered {} with what is no answer of a Vault", self.server(), self.status),
        )
        .with_advice("see whether a Vault or OpenBao is at the address, or something in between answers for it")
    }

    /// Who answered.
    pub(crate) fn server(&self) -> String {
        self.from.origin().ascii_serialization()
    }
}
