//! The server's configuration: one TOML file, every error with its place.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyhaul_core::registry::parse_duration;
use keyhaul_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use toml::Spanned;

use super::identity::{Roles, Rule};
use crate::protocol::Role;

/// The largest configuration that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// The longest window in which what is deleted can be restored.
const MAX_WINDOW: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The most connections that can be configured.
const MAX_CONNECTIONS: usize = 100_000;

/// What a server needs to know, beside the store it serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The policy behind it: whoever opens the store reads it.
    pub policy: Option<PathBuf>,
    /// The file of grants, tickets and what was fetched.
    pub state: PathBuf,
    /// The file of the audit.
    pub audit: PathBuf,
    /// Whether a state that is older than the audit is taken, for one start.
    pub accept_older_state: bool,
    /// For how long what is deleted can be brought back; zero: not at all.
    pub delete_window: Duration,
    /// Certificates.
    pub tls: TlsFiles,
    /// Who may do what.
    pub roles: Roles,
    /// How much, and how long.
    pub limits: Limits,
}

/// The files of TLS, all of them PEM.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The server's certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its key, which only its owner can read.
    pub key: PathBuf,
    /// The authorities whose certificates clients show.
    pub client_ca: PathBuf,
    /// What these authorities have revoked. Where there is such a file, every authority in a
    /// client's chain needs its list in it: a certificate of which nothing is known is refused.
    pub crl: Option<PathBuf>,
}

/// How much the server takes on, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections that have shown a certificate.
    pub connections: usize,
    /// How many of them show certificates with the same URI.
    pub connections_per_identity: usize,
    /// How long a connection may wait for its turn to shake hands.
    pub queue: Duration,
    /// How long a handshake may take, from its turn on; and how long nothing may come before it.
    pub handshake: Duration,
    /// How long a body may take to arrive.
    pub body: Duration,
    /// How long a connection may stay without a request; with HTTP/1.1, how long a head may take
    /// to arrive, too.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_identity: share(4096),
            queue: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// The same where there is room for so many connections: where that is less than configured, one
    /// identity has no larger share of it than if nobody had said.
    pub(super) fn within(self, room: usize) -> Self {
        if room >= self.connections {
            return self;
        }
        Self {
            connections: room,
            connections_per_identity: self.connections_per_identity.min(share(room)),
            ..self
        }
    }
}

/// How many of `connections` one identity may have where nobody says: a quarter, so that one that
/// goes wrong keeps nobody else out, and some processes of a host have one each in any case.
fn share(connections: usize) -> usize {
    (connections / 4).max(64).min(connections)
}

impl Settings {
    /// Reads a configuration file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// `InvalidConfig` with the place and what is known there.
    pub fn load(path: &Path) -> Result<Self> {
        let what = || format!("the configuration {}", path.display());
        let unreadable = |error| {
            Error::new(ErrorKind::InvalidConfig, what() + " cannot be read").with_source(error)
        };
        let size = std::fs::metadata(path).map_err(unreadable)?;
        if !size.is_file() || size.len() > MAX_FILE {
            let rule = what() + " is not a file of at most 1 MiB";
            return Err(Error::new(ErrorKind::InvalidConfig, rule));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut settings = Self::parse(&path.display().to_string(), &text)?;
        if let Some(folder) = path.parent() {
            settings.below(folder);
        }
        Ok(settings)
    }

    /// Reads a configuration from its text; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let document = Document { name, text };
        let written: Written = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            document.refuse(at, error.message().replace('\n', ", "))
        })?;
        document.settings(written)
    }

    fn below(&mut self, folder: &Path) {
        let tls = &mut self.tls;
        let paths = [&mut self.state, &mut self.audit].into_iter();
        let paths = paths.chain(&mut self.policy).chain(&mut tls.crl);
        for path in paths.chain([&mut tls.certificate, &mut tls.key, &mut tls.client_ca]) {
            *path = folder.join(&*path);
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    version: Spanned<i64>,
    listen: Spanned<Vec<Spanned<String>>>,
    policy: Option<PathBuf>,
    state: PathBuf,
    audit: PathBuf,
    #[serde(default)]
    accept_older_state: bool,
    delete_window: Option<Spanned<String>>,
    tls: WrittenTls,
    #[serde(default)]
    roles: Vec<Spanned<WrittenRole>>,
    #[serde(default)]
    limits: WrittenLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenTls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
    crl: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenRole {
    uri: Spanned<String>,
    role: Role,
    scopes: Option<Vec<Spanned<String>>>,
    name: Option<Spanned<String>>,
    shared: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenLimits {
    connections: Option<Spanned<i64>>,
    connections_per_identity: Option<Spanned<i64>>,
    queue: Option<Spanned<String>>,
    handshake: Option<Spanned<String>>,
    body: Option<Spanned<String>>,
    idle: Option<Spanned<String>>,
}

#[derive(Clone, Copy)]
struct Document<'a> {
    name: &'a str,
    text: &'a str,
}

impl Document<'_> {
    fn settings(self, written: Written) -> Result<Settings> {
        if *written.version.get_ref() != 1 {
            let rule = format!(
                "configuration version {} is not known; known is: 1",
                written.version.get_ref()
            );
            return Err(self.refuse(written.version.span().start, rule));
        }
        let tls = written.tls;
        Ok(Settings {
            listen: self.listen(&written.listen)?,
            policy: written.policy,
            state: written.state,
            audit: written.audit,
            accept_older_state: written.accept_older_state,
            delete_window: match &written.delete_window {
                None => Duration::from_secs(7 * 24 * 3600),
                Some(text) => self.duration(text, Duration::ZERO, MAX_WINDOW)?,
            },
            tls: TlsFiles {
                certificate: tls.certificate,
                key: tls.key,
                client_ca: tls.client_ca,
                crl: tls.crl,
            },
            roles: self.roles(&written.roles)?,
            limits: self.limits(&written.limits)?,
        })
    }

    fn listen(self, listen: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<SocketAddr>> {
        if listen.get_ref().is_empty() {
            let rule = "`listen` names one address at least";
            return Err(self.refuse(listen.span().start, rule));
        }
        let mut seen = HashSet::new();
        let mut addresses = Vec::new();
        for text in listen.get_ref() {
            let address: SocketAddr = text.get_ref().parse().map_err(|_| {
                let rule = "an address is IP:PORT, as 127.0.0.1:8443 or [::]:8443";
                self.refuse(text.span().start, rule)
            })?;
            if !seen.insert(address) && address.port() != 0 {
                return Err(self.refuse(text.span().start, format!("{address} is named twice")));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn roles(self, written: &[Spanned<WrittenRole>]) -> Result<Roles> {
        let mut roles = Roles::default();
        for role in written {
            let place = self.place(role.span().start);
            let role = role.get_ref();
            let at = |text: &Spanned<String>, rule: String| self.refuse(text.span().start, rule);
            let mut rule = Rule::new(role.uri.get_ref(), role.role, place)
                .map_err(|rule| at(&role.uri, rule))?;
            if let Some(name) = &role.name {
                rule = rule.named(name.get_ref()).map_err(|rule| at(name, rule))?;
            }
            if let Some(scopes) = &role.scopes {
                let mut patterns = Vec::new();
                for scope in scopes {
                    patterns.push(
                        super::identity::ScopePattern::parse(scope.get_ref())
                            .map_err(|rule| at(scope, rule))?,
                    );
                }
                rule = rule.scoped(patterns).map_err(|rule| at(&role.uri, rule))?;
            }
            if role.shared == Some(true) {
                rule = rule.shared().map_err(|rule| at(&role.uri, rule))?;
            }
            roles.add(rule).map_err(|rule| at(&role.uri, rule))?;
        }
        Ok(roles)
    }

    fn limits(self, written: &WrittenLimits) -> Result<Limits> {
        let mut limits = Limits::default();
        if let Some(number) = &written.connections {
            limits.connections = self.number(number, "connections", MAX_CONNECTIONS)?;
        }
        limits.connections_per_identity = match &written.connections_per_identity {
            None => share(limits.connections),
            Some(number) => self.number(number, "connections-per-identity", limits.connections)?,
        };
        for (text, limit) in [
            (&written.queue, &mut limits.queue),
            (&written.handshake, &mut limits.handshake),
            (&written.body, &mut limits.body),
            (&written.idle, &mut limits.idle),
        ] {
            if let Some(text) = text {
                *limit = self.duration(
                    text,
                    Duration::from_millis(100),
                    Duration::from_secs(24 * 3600),
                )?;
            }
        }
        Ok(limits)
    }

    fn number(self, number: &Spanned<i64>, name: &str, most: usize) -> Result<usize> {
        usize::try_from(*number.get_ref())
            .ok()
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| {
                let rule = format!("`{name}` is 1 to {most}");
                self.refuse(number.span().start, rule)
            })
    }

    fn duration(self, text: &Spanned<String>, least: Duration, most: Duration) -> Result<Duration> {
        let duration = parse_duration(text.get_ref());
        duration
            .filter(|duration| (least..=most).contains(duration))
            .ok_or_else(|| {
                let rule = format!(
                    "a duration here is a number with ms, s, m, h or d, from {least:?} to {most:?}"
                );
                self.refuse(text.span().start, rule)
            })
    }

    fn refuse(self, at: usize, rule: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidConfig, rule.into()).with_place(self.place(at))
    }

    /// `NAME:LINE:COLUMN` of a byte of the text, both counted from 1.
    fn place(self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        format!("{}:{line}:{column}", self.name)
    }
}

#[cfg(test)]
mod tests;
