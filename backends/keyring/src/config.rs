//! From the policy's words to settings. No I/O.

use std::borrow::Cow;
use std::time::Duration;

use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};
use url::Url;

pub(crate) const SECRET_SERVICE: &str = "keyring+secret-service";
pub(crate) const KERNEL: &str = "keyring+kernel";

const OF_SERVICE: &[&str] = &["bus", "prompt", "service", "session"];
const OF_KERNEL: &[&str] = &["expire-after", "prefix"];

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "bus",
        kind: OptionKind::Text,
        default: "$DBUS_SESSION_BUS_ADDRESS, else $XDG_RUNTIME_DIR/bus",
        help: "The D-Bus session bus of a secret-service store, as unix:path=/run/user/1000/bus.",
    },
    OptionSpec {
        name: "expire-after",
        kind: OptionKind::Duration,
        default: "never",
        help: "How long a kernel store keeps a key that was written without an expiry of its own.",
    },
    OptionSpec {
        name: "prefix",
        kind: OptionKind::Text,
        default: "keyhaul",
        help: "What a kernel store's keys are described by: PREFIX:PATH.",
    },
    OptionSpec {
        name: "prompt",
        kind: OptionKind::Boolean,
        default: "false",
        help: "Have the desktop ask a person to unlock a locked collection, and wait for the answer.",
    },
    OptionSpec {
        name: "service",
        kind: OptionKind::Text,
        default: "keyhaul",
        help: "The attribute `service` of a secret-service store's items; the path is their attribute `username`.",
    },
    OptionSpec {
        name: "session",
        kind: OptionKind::Text,
        default: "dh",
        help: "How values cross the local D-Bus socket: dh (encrypted) or plain (not encrypted, and faster).",
    },
];

/// What a store is made of.
#[derive(Debug)]
pub(crate) enum Settings {
    Service(Service),
    Kernel(Kernel),
}

/// Settings of a secret-service store.
#[derive(Debug)]
pub(crate) struct Service {
    /// A collection's name or alias; none for the default one.
    pub(crate) collection: Option<String>,
    pub(crate) service: String,
    pub(crate) encrypted: bool,
    pub(crate) prompt: bool,
    pub(crate) bus: Option<String>,
}

/// Settings of a kernel store.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) keyring: Keyring,
    pub(crate) prefix: String,
    pub(crate) expire_after: Option<Duration>,
}

/// Which of the kernel's keyrings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyring {
    Persistent,
    Session,
    User,
}

impl Keyring {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Session => "session",
            Self::User => "user",
        }
    }
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        match config.url.scheme() {
            SECRET_SERVICE => {
                refuse_options(config, OF_KERNEL)?;
                Service::new(config).map(Self::Service)
            }
            KERNEL => {
                refuse_options(config, OF_SERVICE)?;
                Kernel::new(config).map(Self::Kernel)
            }
            other => Err(invalid(format!(
                "`{other}` is no keyring store; known are: {KERNEL}, {SECRET_SERVICE}"
            ))),
        }
    }
}

impl Service {
    fn new(config: &StoreConfig) -> Result<Self> {
        let collection = place(&config.url).ok_or_else(|| {
            invalid("a secret-service store's url is not of this form").with_advice(format!(
                "write {SECRET_SERVICE}: for the default collection, or {SECRET_SERVICE}:/COLLECTION"
            ))
        })?;
        let options = &config.options;
        let encrypted = match options.text("session") {
            None | Some("dh") => true,
            Some("plain") => false,
            Some(other) => {
                let rule = format!("`session` is dh or plain, not `{other}`");
                return Err(options.invalid("session", rule));
            }
        };
        let bus = options.text("bus").map(str::to_owned);
        if bus.as_deref().is_some_and(|bus| !bus.starts_with("unix:")) {
            return Err(options
                .invalid("bus", "`bus` is the address of a socket on this host")
                .with_advice(
                    "write unix:path=/run/user/1000/bus, or what $DBUS_SESSION_BUS_ADDRESS says",
                ));
        }
        Ok(Self {
            collection: Some(collection).filter(|name| !name.is_empty()),
            service: word(options, "service")?,
            encrypted,
            prompt: options.boolean("prompt").unwrap_or(false),
            bus,
        })
    }
}

impl Kernel {
    fn new(config: &StoreConfig) -> Result<Self> {
        let keyring = match place(&config.url).as_deref() {
            Some("" | "user") => Keyring::User,
            Some("session") => Keyring::Session,
            Some("persistent") => Keyring::Persistent,
            _ => {
                return Err(
                    invalid("a kernel store's url names one of the kernel's keyrings").with_advice(
                        format!("write {KERNEL}:user, {KERNEL}:session or {KERNEL}:persistent"),
                    ),
                );
            }
        };
        let options = &config.options;
        let prefix = word(options, "prefix")?;
        if prefix.ends_with(".note") {
            return Err(options.invalid(
                "prefix",
                "`prefix` does not end in `.note`, which keyhaul's own notes do",
            ));
        }
        let expire_after = options.duration("expire-after")?;
        if expire_after.is_some_and(|time| time.is_zero()) {
            return Err(options
                .invalid("expire-after", "`expire-after` is longer than nothing")
                .with_advice("leave it out for keys that do not expire"));
        }
        Ok(Self {
            keyring,
            prefix,
            expire_after,
        })
    }
}

/// What stands behind the scheme; none where the url has parts that mean nothing here.
fn place(url: &Url) -> Option<String> {
    if url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let path = url.path();
    let name = keyhaul_core::percent::decoded(path.strip_prefix('/').unwrap_or(path)).ok()?;
    (!name.contains('/') && !name.contains(char::is_control)).then_some(name)
}

/// An option that stands in every item: a word of its own, `keyhaul` by default.
fn word(options: &Options, option: &str) -> Result<String> {
    let word = options.text(option).unwrap_or("keyhaul");
    if word.is_empty() || word.len() > 255 || word.contains(char::is_control) {
        return Err(options.invalid(
            option,
            format!("`{option}` has 1 to 255 bytes and no control characters"),
        ));
    }
    Ok(word.to_owned())
}

fn refuse_options(config: &StoreConfig, names: &[&str]) -> Result<()> {
    let options = &config.options;
    for name in names {
        if options.has(name) {
            let scheme = config.url.scheme();
            let rule = format!("`{name}` has no meaning for a {scheme} store");
            return Err(options.invalid(name, rule).with_advice("leave it out"));
        }
    }
    Ok(())
}

fn invalid(rule: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::Value;

    use super::*;

    fn settings(url: &str, options: &[(&str, Value)]) -> Result<Settings> {
        let options = Options::at("keyhaul.toml:3:1", options.iter().cloned());
        Settings::new(&StoreConfig::new("ring", url, options, "keyhaul.toml:2:1")?)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn urls_name_a_collection_or_a_keyring() {
        let collection = |url| match settings(url, &[]) {
            Ok(Settings::Service(service)) => service.collection,
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(collection("keyring+secret-service:"), None);
        assert_eq!(
            collection("keyring+secret-service:/login").as_deref(),
            Some("login")
        );
        assert_eq!(
            collection("keyring+secret-service:/My%20Keys").as_deref(),
            Some("My Keys")
        );
        let keyring = |url| match settings(url, &[]) {
            Ok(Settings::Kernel(kernel)) => kernel.keyring,
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(keyring("keyring+kernel:"), Keyring::User);
        assert_eq!(keyring("keyring+kernel:session"), Keyring::Session);
        assert_eq!(keyring("keyring+kernel:persistent"), Keyring::Persistent);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let cases: [(&str, &[(&str, Value)]); 10] = [
            ("keyring+secret-service://host/login", &[]),
            ("keyring+secret-service:/a/b", &[]),
            ("keyring+secret-service:?x=y", &[]),
            ("keyring+secret-service:", &[("session", text("none"))]),
            (
                "keyring+secret-service:",
                &[("bus", text("unixexec:path=/bin/sh"))],
            ),
            ("keyring+secret-service:", &[("prefix", text("x"))]),
            ("keyring+kernel:thread", &[]),
            ("keyring+kernel:user", &[("prefix", text(""))]),
            ("keyring+kernel:user", &[("prefix", text("a.note"))]),
            ("keyring+kernel:user", &[("session", text("plain"))]),
        ];
        for (url, options) in cases {
            let error = settings(url, options).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        }
    }
}
