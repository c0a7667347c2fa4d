//! Key-value engines, versions 1 and 2.

mod change;
mod content;
mod current;
mod delete;
mod fields;
mod list;
mod mount;
mod paths;
mod read;
mod write;

use keyhaul_core::{
    Capabilities, Capability, Encoding, Error, ErrorKind, Field, Request, Result, SecretPath,
    Version,
};

use crate::auth::Probed;
use crate::config::Config;
use crate::http::{Answer, Call};
use crate::wire::Wire;
use mount::Mounted;

pub(crate) use fields::Fields;
pub(crate) use mount::ask as ask_mount;
pub(crate) use paths::{KvVersion, Mount};

/// The longest value, in bytes. As base64 it leaves room within the 1 MiB that the servers' own
/// storage takes for an entry.
pub(crate) const MAX_VALUE: usize = 512 * 1024;
/// The longest value of a store that keeps all of them as hexadecimal digits.
const MAX_HEX: usize = MAX_VALUE / 4 * 3;

/// What KV version 1 can do: it keeps one version, and compares nothing.
const ONE: Capability = Capability::READ
    .union(Capability::WRITE)
    .union(Capability::DELETE)
    .union(Capability::LIST)
    .union(Capability::GENERATE)
    .union(Capability::FIELDS);

/// What KV version 2 can do.
const TWO: Capability = ONE
    .union(Capability::CREATE)
    .union(Capability::UPDATE)
    .union(Capability::VERSIONS)
    .union(Capability::LABELS);

/// A key-value engine at a server.
#[derive(Debug)]
pub(crate) struct Kv {
    wire: Wire,
    mounted: Mounted,
    /// The field that is meant where none is named.
    field: Field,
    encoding: Option<Encoding>,
    soft_delete: bool,
    /// Whether a patch was denied before: then fields are written by reading and comparing.
    patch_denied: std::sync::atomic::AtomicBool,
    /// Version 1 compares nothing: writers of this process at least wait for each other.
    one_writer: tokio::sync::Mutex<()>,
}

impl Kv {
    pub(crate) fn new(wire: Wire, config: &Config) -> Self {
        Self {
            wire,
            mounted: Mounted::new(config.mount.clone(), config.kv_version),
            field: config.field.clone(),
            encoding: config.encoding,
            soft_delete: config.soft_delete,
            patch_denied: false.into(),
            one_writer: tokio::sync::Mutex::default(),
        }
    }

    /// After a probe that left a login unspent, and where no version is declared: what every
    /// version can do, since asking would spend it.
    pub(crate) async fn capabilities(&self, request: &Request) -> Result<Capabilities> {
        if self.wire.is_unspent() && !self.mounted.is_known().await {
            return Ok(Capabilities::new(ONE, self.max_value()));
        }
        let mount = self.mounted.get(&self.wire, request).await?;
        Ok(self.capabilities_of(&mount))
    }

    fn capabilities_of(&self, mount: &Mount) -> Capabilities {
        let can = match mount.version {
            KvVersion::One => ONE,
            KvVersion::Two => TWO,
        };
        Capabilities::new(can, self.max_value())
    }

    fn max_value(&self) -> usize {
        match self.encoding {
            Some(Encoding::Hex) => MAX_HEX,
            _ => MAX_VALUE,
        }
    }

    /// Reaches the server, logs in, and sees that the engine is there.
    pub(crate) async fn probe(&self) -> Result<()> {
        if self.wire.probe().await? == Probed::Unspent {
            return Ok(());
        }
        self.mounted.probe(&self.wire, &Request::default()).await
    }

    /// The law of capabilities.
    fn need(&self, mount: &Mount, wanted: Capability) -> Result<()> {
        let missing = wanted - self.capabilities_of(mount).can;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "KV version {} lacks the capability {}",
                mount.version.name(),
                missing.names().join(", ")
            ),
        ))
    }

    /// The encoding that is declared, which is that of the store's own field: others, and maps, are as
    /// they are.
    fn encoding_of(&self, field: &Field) -> Option<Encoding> {
        self.encoding.filter(|_| *field == self.field)
    }

    /// The field that a request means.
    fn meant<'f>(&'f self, named: Option<&'f Field>) -> &'f Field {
        named.unwrap_or(&self.field)
    }

    async fn send(&self, request: &Request, call: Call<'_>, capability: &str) -> Result<Answer> {
        self.wire.send(request, call, capability).await
    }
}

/// The root is a place to list, not a secret.
pub(crate) fn not_root(path: &SecretPath) -> Result<()> {
    if path.is_root() {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "the root of a store is no secret",
        ));
    }
    Ok(())
}

/// The server's number of a version; none where it can be none: 0 means "the current one" to it.
fn number_of(version: &Version) -> Option<u64> {
    let text = version.as_str();
    let number: u64 = text.parse().ok()?;
    // Text that the server would read as the same number is not the same version.
    (number > 0 && number <= u64::from(u32::MAX) && number.to_string() == text).then_some(number)
}

/// A success, or the error that the status stands for.
fn succeeded(answer: Answer) -> Result<Answer> {
    if answer.is_success() {
        Ok(answer)
    } else {
        Err(answer.refusal())
    }
}

/// The error for a reading that was refused. A 400 to one is not about the request, where the path is
/// of letters that every server takes: the engine answers so while it prepares its storage, as each
/// node of a cluster does after a new leader came.
fn unread(answer: &Answer, path: &SecretPath) -> Error {
    let refusal = answer.refusal();
    if answer.status == 400 && answer.listed().is_some() && path.as_str().is_ascii() {
        Error::new(ErrorKind::Unavailable, "the engine is not ready").with_source(refusal)
    } else {
        refusal
    }
}

fn no_secret() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}

fn no_version() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "no such version of the secret, or no such secret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_spelling_of_a_number_is_a_version() {
        let number = |text: &str| number_of(&Version::new(text).expect("a version"));
        assert_eq!(number("7"), Some(7));
        for text in ["0", "07", "-1", "1.0", "x", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
