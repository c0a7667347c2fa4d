//! From the policy's words to settings. No I/O.

use std::path::PathBuf;

use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

use crate::Digest;

pub(crate) const SCHEME: &str = "plugin";

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "sha256",
        kind: OptionKind::Text,
        default: "none: any digest will do",
        help: "The SHA-256 that the library must have, as sha256sum prints it.",
    },
    OptionSpec {
        name: "options",
        kind: OptionKind::Free,
        default: "none",
        help: "The plugin's own options. Unknown ones are refused when it is first asked.",
    },
];

/// What a store is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) pin: Option<Digest>,
    pub(crate) options: Options,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        let options = &config.options;
        let pin = options.text("sha256").map(str::parse).transpose();
        Ok(Self {
            path: path(config)?,
            pin: pin.map_err(|error: Error| options.placed("sha256", error))?,
            options: options.table("options").cloned().unwrap_or_default(),
        })
    }
}

fn path(config: &StoreConfig) -> Result<PathBuf> {
    let refuse = |rule: &str| {
        let error = Error::new(ErrorKind::InvalidConfig, rule.to_owned());
        Err(error.with_advice("a plugin's url is plugin:///ABSOLUTE/PATH/lib….so"))
    };
    let url = &config.url;
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("a plugin's url has no query or fragment");
    }
    if url.has_host() && url.host_str().is_some_and(|host| !host.is_empty()) {
        return refuse("a plugin's url names a file on this host");
    }
    if !url.path().starts_with('/') || url.path() == "/" {
        return refuse("a plugin's url names a file by its absolute path");
    }
    match keyhaul_core::percent::decoded(url.path()) {
        Ok(path) if !path.contains('\0') => Ok(path.into()),
        Ok(_) => refuse("a plugin's url has no zero byte"),
        Err(rule) => refuse(rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        Settings::new(&StoreConfig::new(
            "odd",
            url,
            Options::default(),
            "keyhaul.toml:1:1",
        )?)
    }

    #[test]
    fn a_url_names_a_file_by_its_absolute_path() {
        let path = settings("plugin:///usr/lib/keyhaul/a%20b.so")
            .expect("valid")
            .path;
        assert_eq!(path, PathBuf::from("/usr/lib/keyhaul/a b.so"));
        for url in [
            "plugin://host/usr/lib/x.so",
            "plugin:usr/lib/x.so",
            "plugin:///",
            "plugin:///x.so?a=b",
            "plugin:///x.so#a",
            "plugin:///x%00.so",
            "plugin:///x%zz.so",
        ] {
            let error = settings(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(
                error
                    .advice()
                    .is_some_and(|advice| advice.contains("plugin:///"))
            );
        }
    }
}
