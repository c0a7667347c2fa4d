//! From the policy's words to settings. No I/O.

use std::borrow::Cow;
use std::path::PathBuf;

use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

use crate::credstore;

pub(crate) const SCHEME: &str = "systemd-creds";
const PROGRAM: &str = "/usr/bin/systemd-creds";

/// Never the key that is none, whatever systemd calls it.
const KEYS: &[&str] = &["auto", "host", "host+tpm2", "tpm2"];

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "create",
        kind: OptionKind::Boolean,
        default: "false",
        help: "Make the folder with the first write.",
    },
    OptionSpec {
        name: "folder",
        kind: OptionKind::Text,
        default: "none: it is needed",
        help: "Where the credentials lie, an absolute path, as /var/lib/keyhaul/credentials. Only root or the user may be able to write to it or above it, and systemd takes none of its own from there.",
    },
    OptionSpec {
        name: "key",
        kind: OptionKind::Text,
        default: "auto",
        help: "What new credentials are sealed to: host, tpm2, host+tpm2, or auto, which is the host's key, and its TPM2 where there is one.",
    },
    OptionSpec {
        name: "program",
        kind: OptionKind::Text,
        default: "/usr/bin/systemd-creds",
        help: "The program, an absolute path.",
    },
    OptionSpec {
        name: "tpm2-device",
        kind: OptionKind::Text,
        default: "the machine's",
        help: "Which TPM2, as /dev/tpmrm0.",
    },
    OptionSpec {
        name: "tpm2-pcrs",
        kind: OptionKind::Text,
        default: "systemd's choice",
        help: "Which PCRs of the TPM2 new credentials are bound to, as 7 or 0+7; empty for none.",
    },
];

/// What a store is made of.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) create: bool,
    pub(crate) folder: PathBuf,
    pub(crate) key: String,
    pub(crate) program: PathBuf,
    pub(crate) tpm2_device: Option<String>,
    pub(crate) tpm2_pcrs: Option<String>,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        // A plugin is given its scheme and the store's name, which says nothing of the folder.
        let bare = |url: &str| {
            url.strip_prefix("systemd-creds:")
                .is_some_and(|rest| rest.is_empty() || rest == config.name)
        };
        if config.url.scheme() == SCHEME && !bare(config.url.as_str()) {
            return Err(invalid(
                "a systemd-creds store's url is `systemd-creds:` and nothing more",
            )
            .with_advice("name the folder by the option `folder`"));
        }
        let options = &config.options;
        let folder = absolute(options, "folder")?.ok_or_else(|| {
            invalid("a systemd-creds store needs `folder`")
                .with_advice("as folder = \"/var/lib/keyhaul/credentials\"")
        })?;
        if folder.parent().is_none() {
            return Err(options.invalid("folder", "`folder` is not `/`"));
        }
        credstore::refuse_named(&folder).map_err(|error| options.placed("folder", error))?;
        let key = options.text("key").unwrap_or("auto");
        if !KEYS.contains(&key) {
            return Err(options.invalid("key", format!("`key` is one of: {}", KEYS.join(", "))));
        }
        Ok(Self {
            create: options.boolean("create").unwrap_or(false),
            folder,
            key: key.to_owned(),
            program: absolute(options, "program")?.unwrap_or_else(|| PROGRAM.into()),
            tpm2_device: device(options)?,
            tpm2_pcrs: pcrs(options)?,
        })
    }
}

/// A path, or what a library of the TPM software stack takes, as `swtpm:port=2321`.
fn device(options: &Options) -> Result<Option<String>> {
    match options.text("tpm2-device") {
        Some(text) if text.is_empty() || text.contains(char::is_control) => {
            Err(options.invalid("tpm2-device", "`tpm2-device` is a path, as /dev/tpmrm0"))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

fn pcrs(options: &Options) -> Result<Option<String>> {
    let is_pcr = |text: &str| text.parse().is_ok_and(|number: u8| number < 24);
    match options.text("tpm2-pcrs") {
        Some(text) if !text.is_empty() && !text.split('+').all(is_pcr) => Err(options.invalid(
            "tpm2-pcrs",
            "`tpm2-pcrs` has numbers below 24 with + between them",
        )),
        text => Ok(text.map(str::to_owned)),
    }
}

fn absolute(options: &Options, option: &str) -> Result<Option<PathBuf>> {
    match options.text(option) {
        Some(text) if !text.starts_with('/') || text.contains('\0') => {
            Err(options.invalid(option, format!("`{option}` is an absolute path")))
        }
        text => Ok(text.map(PathBuf::from)),
    }
}

fn invalid(rule: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_has_every_option() {
        let page = include_str!("../../../docs/plugin-systemd-creds.md");
        for option in OPTIONS {
            let row = format!("\n| `{}` |", option.name);
            assert!(page.contains(&row), "{} is not in the book", option.name);
        }
    }

    fn settings(url: &str, options: &[(&str, &str)]) -> Result<Settings> {
        let options = Options::at("keyhaul.toml:3:1", options.iter().copied());
        Settings::new(&StoreConfig::new(
            "creds",
            url,
            options,
            "keyhaul.toml:2:1",
        )?)
    }

    #[test]
    fn a_folder_is_enough() {
        for url in ["systemd-creds:", "systemd-creds:creds"] {
            let settings = settings(url, &[("folder", "/var/lib/creds")]).expect(url);
            assert_eq!(settings.key, "auto");
            assert_eq!(settings.program, PathBuf::from("/usr/bin/systemd-creds"));
            assert!(!settings.create);
        }
    }

    #[test]
    fn what_means_nothing_or_protects_nothing_is_refused() {
        type Options<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Options<'_>, &str); 10] = [
            ("systemd-creds:", &[], "needs `folder`"),
            ("systemd-creds:///a", &[("folder", "/a")], "nothing more"),
            ("systemd-creds:", &[("folder", "a")], "absolute"),
            ("systemd-creds:", &[("folder", "/")], "not `/`"),
            (
                "systemd-creds:",
                &[("folder", "/etc/credstore.encrypted")],
                "systemd takes",
            ),
            (
                "systemd-creds:",
                &[("folder", "/a"), ("key", "null")],
                "one of",
            ),
            (
                "systemd-creds:",
                &[("folder", "/a"), ("key", "tpm2-absent")],
                "one of",
            ),
            (
                "systemd-creds:",
                &[("folder", "/a"), ("program", "x")],
                "absolute",
            ),
            (
                "systemd-creds:",
                &[("folder", "/a"), ("tpm2-pcrs", "7+24")],
                "below 24",
            ),
            (
                "systemd-creds:",
                &[("folder", "/a"), ("tpm2-device", "")],
                "is a path",
            ),
        ];
        for (url, options, rule) in cases {
            let error = settings(url, options).expect_err(rule);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{rule}");
            assert!(error.to_string().contains(rule), "{error}");
        }
    }
}
