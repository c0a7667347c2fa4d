//! From the policy's words to settings. No I/O.

use std::fmt;
use std::path::PathBuf;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};
use rustls::pki_types::ServerName;

use crate::message::Version;
use crate::register::Kind;

pub(crate) const SCHEME: &str = "kmip";
/// Where KMIP servers listen unless somebody says otherwise.
const PORT: u16 = 5696;
pub(crate) const DEFAULT_CONNECTIONS: u32 = 8;
const MAX_CONNECTIONS: u32 = 64;
/// The longest prefix and the longest group, in bytes.
const MAX_WORD: usize = 255;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "ca-cert",
        kind: OptionKind::Text,
        default: "none: it is needed",
        help: "A file with the certificate, in PEM, of the authority that signed the server's certificate. No other is believed.",
    },
    OptionSpec {
        name: "client-cert",
        kind: OptionKind::Text,
        default: "none: it is needed",
        help: "A file with this host's own certificate, in PEM, with the chain to its authority where there is one. The server takes from it who asks. Read again for each new connection.",
    },
    OptionSpec {
        name: "client-key",
        kind: OptionKind::Credential,
        default: "none: it is needed",
        help: "The key of `client-cert`, in PEM: file:PATH, credential:NAME or fd:N.",
    },
    OptionSpec {
        name: "connections",
        kind: OptionKind::Integer,
        default: "8",
        help: "How many connections the store uses at most: 1 to 64.",
    },
    OptionSpec {
        name: "group",
        kind: OptionKind::Text,
        default: "none",
        help: "The Object Group of the store's objects. What is in another group, or in none, is not the store's.",
    },
    OptionSpec {
        name: "prefix",
        kind: OptionKind::Text,
        default: "none",
        help: "What stands before the path in the Name of the store's objects, as `keyhaul/`.",
    },
    OptionSpec {
        name: "register",
        kind: OptionKind::Text,
        default: "secret-data",
        help: "What a value is registered as: secret-data, or symmetric-key for a server that takes no secret data.",
    },
    OptionSpec {
        name: "version",
        kind: OptionKind::Text,
        default: "1.2",
        help: "The version of KMIP that is spoken: 1.1, 1.2, 1.3 or 1.4.",
    },
];

/// What a store is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    /// Whom to believe.
    pub(crate) authority: PathBuf,
    /// Who we are.
    pub(crate) certificate: PathBuf,
    /// The key to it.
    pub(crate) key: CredentialSource,
    pub(crate) connections: u32,
    pub(crate) group: Option<String>,
    pub(crate) prefix: String,
    pub(crate) register: Kind,
    pub(crate) version: Version,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        let options = &config.options;
        let path = |name| match options.text(name) {
            None => Err(missing(name)),
            Some("") => Err(options.invalid(name, format!("`{name}` is the path of a file"))),
            Some(path) => Ok(PathBuf::from(path)),
        };
        Ok(Self {
            address: Address::of(config)?,
            authority: path("ca-cert")?,
            certificate: path("client-cert")?,
            key: key(options)?,
            connections: connections(options)?,
            group: word(options, "group")?,
            prefix: word(options, "prefix")?.unwrap_or_default(),
            register: register(options)?,
            version: version(options)?,
        })
    }
}

/// Where the server is.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// A name, or a number, an IPv6 one without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The same as the name that its certificate is held against.
    pub(crate) name: ServerName<'static>,
}

impl Address {
    fn of(config: &StoreConfig) -> Result<Self> {
        let url = &config.url;
        let refuse = |rule: &'static str| {
            Error::new(ErrorKind::InvalidConfig, rule)
                .with_advice("as in kmip://kms.example.com:5696, as the plugin's option `url`")
        };
        if url.scheme() != SCHEME {
            return Err(refuse("a KMIP store's url begins with kmip://"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host =
            host.ok_or_else(|| refuse("a KMIP store needs a `url` that names the server"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(
                refuse("a KMIP store's url is a host and a port, and nothing more")
                    .with_advice("what stands before the names of objects is the option `prefix`"),
            );
        }
        let port = url.port().unwrap_or(PORT);
        if port == 0 {
            return Err(refuse("nobody listens at port 0"));
        }
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone())
            .map_err(|_| refuse("the host in a KMIP store's url is a name or a number"))?;
        Ok(Self { host, port, name })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn key(options: &Options) -> Result<CredentialSource> {
    let key = options.credential("client-key")?;
    let key = key.ok_or_else(|| missing("client-key"))?;
    if matches!(key, CredentialSource::Env(_)) {
        let rule = "a private key does not come from the environment, which other processes of the same user can read";
        return Err(options
            .invalid("client-key", rule)
            .with_advice("use file:PATH, credential:NAME or fd:N"));
    }
    Ok(key)
}

fn connections(options: &Options) -> Result<u32> {
    let Some(number) = options.integer("connections") else {
        return Ok(DEFAULT_CONNECTIONS);
    };
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_CONNECTIONS).contains(number))
        .ok_or_else(|| {
            let rule = format!("`connections` is 1 to {MAX_CONNECTIONS}, not {number}");
            options.invalid("connections", rule)
        })
}

fn word(options: &Options, option: &str) -> Result<Option<String>> {
    match options.text(option) {
        Some(text) if text.is_empty() || text.len() > MAX_WORD || !is_plain(text) => {
            let rule =
                format!("`{option}` has 1 to {MAX_WORD} letters, all of them printable ASCII");
            Err(options.invalid(option, rule))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// Not every server knows other letters: see `names.rs`.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn register(options: &Options) -> Result<Kind> {
    match options.text("register") {
        None => Ok(Kind::default()),
        Some(text) => Kind::parse(text).ok_or_else(|| {
            let rule = "`register` is \"secret-data\" or \"symmetric-key\"";
            options.invalid("register", rule)
        }),
    }
}

fn version(options: &Options) -> Result<Version> {
    match options.text("version") {
        None => Ok(Version::DEFAULT),
        Some(text) => Version::parse(text).ok_or_else(|| {
            options.invalid(
                "version",
                "`version` is \"1.1\", \"1.2\", \"1.3\" or \"1.4\"",
            )
        }),
    }
}

fn missing(option: &str) -> Error {
    let rule = format!("a KMIP store needs `{option}`");
    Error::new(ErrorKind::InvalidConfig, rule).with_advice(
        "it takes ca-cert = \"…\", client-cert = \"…\" and client-key = \"file:…\": KMIP knows who asks by a certificate",
    )
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::Value;

    use super::*;

    fn settings(url: &str, more: &[(&str, Value)]) -> Result<Settings> {
        let file = |name: &str| Value::Text(format!("/etc/keyhaul/{name}"));
        let given = [
            ("ca-cert", file("ca.crt")),
            ("client-cert", file("kmip.crt")),
            ("client-key", "file:/etc/keyhaul/kmip.key".into()),
        ];
        let options = Options::at("keyhaul.toml:7:3", given.iter().chain(more).cloned());
        Settings::new(&StoreConfig::new("kms", url, options, "keyhaul.toml:5:1")?)
    }

    #[test]
    fn the_url_names_the_server_alone() {
        for (url, address) in [
            ("kmip://kms.example.com", "kms.example.com:5696"),
            ("kmip://kms.example.com:5697/", "kms.example.com:5697"),
            ("kmip://127.0.0.1:1", "127.0.0.1:1"),
            ("kmip://[::1]:5696", "[::1]:5696"),
        ] {
            let settings = settings(url, &[]).expect(url);
            assert_eq!(settings.address.to_string(), address);
        }
        for url in [
            "kmip:kms",
            "kmip:///kms",
            "kmip://kms/a",
            "kmip://kms?a=b",
            "kmip://kms#a",
            "kmip://kms:0",
            "kmip://a..b",
            "file:///kms",
        ] {
            let error = settings(url, &[]).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused_at_their_place() {
        let text = |text: &str| Value::Text(text.into());
        for (option, value) in [
            ("ca-cert", text("")),
            ("client-key", text("env:KEY")),
            ("connections", Value::Integer(0)),
            ("connections", Value::Integer(65)),
            ("group", text("")),
            ("prefix", text("a\nb")),
            ("prefix", text("k\u{fc}che/")),
            ("register", text("opaque")),
            ("version", text("2.0")),
        ] {
            let error = settings("kmip://kms", &[(option, value)]).expect_err(option);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert_eq!(
                error.context().place.as_deref(),
                Some("keyhaul.toml:7:3"),
                "{option}"
            );
        }
        let settings = settings("kmip://kms", &[("version", text("1.4"))]).expect("valid");
        assert_eq!(settings.version.to_string(), "1.4");
    }

    #[test]
    fn the_guides_page_has_every_option_and_no_other() {
        let page = include_str!("../../../../docs/plugin-kmip.md");
        let (_, table) = page.split_once("\n| option |").expect("a table");
        let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
        let mut told: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        // The SDK adds where the store is.
        let mut known = vec!["url"];
        known.extend(OPTIONS.iter().map(|option| option.name));
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known);
    }
}
