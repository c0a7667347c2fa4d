//! From the policy's words to settings. No I/O.

use std::borrow::Cow;
use std::path::PathBuf;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

pub(crate) const SCHEME: &str = "pkcs11";
pub(crate) const DEFAULT_SESSIONS: u32 = 8;
const MAX_SESSIONS: u32 = 64;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "application",
        kind: OptionKind::Text,
        default: "keyhaul",
        help: "CKA_APPLICATION of the store's data objects; those of others are not the store's.",
    },
    OptionSpec {
        name: "module",
        kind: OptionKind::Text,
        default: "none: it is needed",
        help: "The token's PKCS#11 library, as /usr/lib/softhsm/libsofthsm2.so: an absolute path that only root or the user can write to.",
    },
    OptionSpec {
        name: "pin",
        kind: OptionKind::Credential,
        default: "none: it is needed",
        help: "The user PIN: file:PATH, credential:NAME, env:NAME or fd:N. One newline at its end is dropped. A PIN that the token refused is not tried again.",
    },
    OptionSpec {
        name: "serial",
        kind: OptionKind::Text,
        default: "any",
        help: "The token's serial number, where several have the same label.",
    },
    OptionSpec {
        name: "sessions",
        kind: OptionKind::Integer,
        default: "8",
        help: "How many sessions, and threads, the store uses at most: 1 to 64.",
    },
    OptionSpec {
        name: "token",
        kind: OptionKind::Text,
        default: "the only one there is",
        help: "The token's label.",
    },
];

/// What a store is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) application: String,
    pub(crate) module: PathBuf,
    pub(crate) pin: CredentialSource,
    pub(crate) serial: Option<String>,
    pub(crate) sessions: u32,
    pub(crate) token: Option<String>,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        // A plugin is given its scheme and the store's name, which says nothing of the token.
        let bare = |url: &str| {
            url.strip_prefix("pkcs11:")
                .is_some_and(|rest| rest.is_empty() || rest == config.name)
        };
        if config.url.scheme() == SCHEME && !bare(config.url.as_str()) {
            return Err(
                invalid("a pkcs11 store's url is `pkcs11:` and nothing more")
                    .with_advice("name the token by the options `module`, `token` and `serial`"),
            );
        }
        Ok(Self {
            application: application(config)?,
            module: module(config)?,
            pin: config.options.credential("pin")?.ok_or_else(|| {
                invalid("a pkcs11 store needs `pin`")
                    .with_advice("add pin = \"file:/etc/keyhaul/pin\" or pin = \"credential:NAME\"")
            })?,
            serial: name(config, "serial", 16)?,
            sessions: sessions(config)?,
            token: name(config, "token", 32)?,
        })
    }

    /// The token in words, for messages and the store's location.
    pub(crate) fn token_name(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.token.iter().map(|label| format!("token={label}")));
        parts.extend(self.serial.iter().map(|serial| format!("serial={serial}")));
        parts.join(";")
    }
}

fn application(config: &StoreConfig) -> Result<String> {
    let text = config.options.text("application").unwrap_or("keyhaul");
    if text.is_empty() || text.len() > 255 || text.contains(char::is_control) {
        return Err(at(
            config,
            "application",
            "`application` has 1 to 255 bytes and no control characters",
        ));
    }
    Ok(text.to_owned())
}

fn module(config: &StoreConfig) -> Result<PathBuf> {
    let module = config.options.text("module").ok_or_else(|| {
        invalid("a pkcs11 store needs `module`, the token's library")
            .with_advice("as module = \"/usr/lib/softhsm/libsofthsm2.so\"")
    })?;
    // A bare name would be searched for in folders that the environment names.
    if !module.starts_with('/') || module.contains('\0') {
        return Err(at(config, "module", "`module` is an absolute path"));
    }
    Ok(module.into())
}

/// A text of the token's own, which has that many bytes at most by the standard.
fn name(config: &StoreConfig, option: &str, most: usize) -> Result<Option<String>> {
    match config.options.text(option) {
        Some(text) if text.is_empty() || text.len() > most => Err(at(
            config,
            option,
            format!("`{option}` of a token has 1 to {most} bytes"),
        )),
        text => Ok(text.map(str::to_owned)),
    }
}

fn sessions(config: &StoreConfig) -> Result<u32> {
    let Some(number) = config.options.integer("sessions") else {
        return Ok(DEFAULT_SESSIONS);
    };
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_SESSIONS).contains(number))
        .ok_or_else(|| {
            at(
                config,
                "sessions",
                format!("`sessions` is 1 to {MAX_SESSIONS}"),
            )
        })
}

fn invalid(rule: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}

fn at(config: &StoreConfig, option: &str, rule: impl Into<Cow<'static, str>>) -> Error {
    match config.options.place(option) {
        Some(place) => invalid(rule).with_place(place),
        None => invalid(rule),
    }
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::{OptionValue, Options, Value};

    use super::*;

    #[test]
    fn the_book_has_every_option() {
        let page = include_str!("../../../docs/plugin-pkcs11.md");
        for option in OPTIONS {
            let row = format!("\n| `{}` |", option.name);
            assert!(page.contains(&row), "{} is not in the book", option.name);
        }
    }

    fn settings(url: &str, options: &[(&str, Value)]) -> Result<Settings> {
        let options = options.iter().map(|(name, value)| {
            let value = value.clone();
            let place = "keyhaul.toml:3:1".to_owned();
            ((*name).to_owned(), OptionValue { value, place })
        });
        let options = Options(options.collect());
        Settings::new(&StoreConfig::new("hsm", url, options, "keyhaul.toml:2:1")?)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_module_and_a_pin_are_enough() {
        let options = [("module", text("/lib/m.so")), ("pin", text("file:/pin"))];
        for url in ["pkcs11:", "pkcs11:hsm"] {
            let settings = settings(url, &options).expect(url);
            assert_eq!(settings.application, "keyhaul");
            assert_eq!(settings.sessions, 8);
            assert_eq!(settings.token_name(), "");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_rule_and_never_the_pin() {
        let whole = [("module", text("/lib/m.so")), ("pin", text("file:/pin"))];
        type Changed<'a> = &'a [(&'a str, Value)];
        let cases: [(&str, Changed<'_>, &str); 9] = [
            ("pkcs11:token=vms", &[], "nothing more"),
            ("pkcs11:", &[("module", text("m.so"))], "absolute"),
            ("pkcs11:", &[("pin", text("hunter2"))], "source"),
            ("pkcs11:", &[("sessions", Value::Integer(0))], "1 to 64"),
            ("pkcs11:", &[("sessions", Value::Integer(65))], "1 to 64"),
            ("pkcs11:", &[("token", text(""))], "1 to 32"),
            ("pkcs11:", &[("token", text(&"x".repeat(33)))], "1 to 32"),
            ("pkcs11:", &[("serial", text(&"x".repeat(17)))], "1 to 16"),
            ("pkcs11:", &[("application", text("a\nb"))], "control"),
        ];
        for (url, changed, rule) in cases {
            let error = settings(url, &[&whole, changed].concat()).expect_err(rule);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{rule}");
            assert!(error.to_string().contains(rule), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        for missing in ["module", "pin"] {
            let rest: Vec<_> = whole.iter().filter(|o| o.0 != missing).cloned().collect();
            let error = settings("pkcs11:", &rest).expect_err(missing);
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
