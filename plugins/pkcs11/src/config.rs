//! From the policy's words to settings. No I/O.

use std::borrow::Cow;
use std::path::PathBuf;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

use crate::uri;

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
    pub(crate) manufacturer: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) module: PathBuf,
    pub(crate) pin: CredentialSource,
    pub(crate) serial: Option<String>,
    pub(crate) sessions: u32,
    pub(crate) token: Option<String>,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        let options = &uri::options(config)?;
        Ok(Self {
            application: application(options)?,
            module: module(options)?,
            pin: options.credential("pin")?.ok_or_else(|| {
                invalid("a pkcs11 store needs `pin`")
                    .with_advice("add pin = \"file:/etc/keyhaul/pin\" or pin = \"credential:NAME\"")
            })?,
            manufacturer: name(options, "manufacturer", 32)?,
            model: name(options, "model", 16)?,
            serial: name(options, "serial", 16)?,
            sessions: sessions(options)?,
            token: name(options, "token", 32)?,
        })
    }

    /// The token as a URI, for messages and as the store's location.
    pub(crate) fn location(&self) -> String {
        let attributes = [
            ("token", &self.token),
            ("serial", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
        ];
        let said = attributes.into_iter();
        uri::of_token(said.filter_map(|(name, value)| Some((name, value.as_deref()?))))
    }
}

fn application(options: &Options) -> Result<String> {
    let text = options.text("application").unwrap_or("keyhaul");
    if text.is_empty() || text.len() > 255 || text.contains(char::is_control) {
        return Err(options.invalid(
            "application",
            "`application` has 1 to 255 bytes and no control characters",
        ));
    }
    Ok(text.to_owned())
}

fn module(options: &Options) -> Result<PathBuf> {
    let module = options.text("module").ok_or_else(|| {
        invalid("a pkcs11 store needs `module`, the token's library")
            .with_advice("as module = \"/usr/lib/softhsm/libsofthsm2.so\"")
    })?;
    // A bare name would be searched for in folders that the environment names.
    if !module.starts_with('/') || module.contains('\0') {
        return Err(options.invalid("module", "`module` is an absolute path"));
    }
    Ok(module.into())
}

/// A text of the token's own, which has that many bytes at most by the standard.
fn name(options: &Options, option: &str, most: usize) -> Result<Option<String>> {
    match options.text(option) {
        Some(text) if text.is_empty() || text.len() > most => Err(options.invalid(
            option,
            format!("`{option}` of a token has 1 to {most} bytes"),
        )),
        text => Ok(text.map(str::to_owned)),
    }
}

fn sessions(options: &Options) -> Result<u32> {
    let Some(number) = options.integer("sessions") else {
        return Ok(DEFAULT_SESSIONS);
    };
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_SESSIONS).contains(number))
        .ok_or_else(|| options.invalid("sessions", format!("`sessions` is 1 to {MAX_SESSIONS}")))
}

fn invalid(rule: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::Value;

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
        let options = Options::at("keyhaul.toml:3:1", options.iter().cloned());
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
            assert_eq!(settings.location(), "pkcs11:");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_rule_and_never_the_pin() {
        let whole = [("module", text("/lib/m.so")), ("pin", text("file:/pin"))];
        type Changed<'a> = &'a [(&'a str, Value)];
        let cases: [(&str, Changed<'_>, &str); 11] = [
            ("pkcs11:vms", &[], "NAME=VALUE"),
            ("pkcs11:?module-path=m.so", &[], "do not say the same"),
            ("pkcs11:model=12345678901234567", &[], "1 to 16"),
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
