//! What a plugin says of itself, first.

use keyhaul_core::{Capabilities, Capability, Result, misleads};
use serde::Deserialize;

use super::{DEFAULT_MAX_VALUE, MAX_VALUE, VERSION};
use crate::error::no_plugin;

/// What a plugin said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// Its name and version, for the log.
    pub(crate) name: String,
    pub(crate) version: String,
    /// What it can do. What it does not name is made up for by the host where that can be.
    pub(crate) capabilities: Capabilities,
    /// How many paths it takes in a `get-many`; none where it has none.
    pub(crate) batch: Option<usize>,
    /// The options it takes.
    pub(crate) options: Vec<Declared>,
}

/// An option that a plugin takes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Declared {
    pub(crate) name: String,
    /// `credential`, `boolean`, `integer`, `duration`, `text`, `texts`, `table`; what is unknown is
    /// the plugin's to check.
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) required: bool,
    /// What it is for, for people.
    #[serde(default)]
    pub(crate) help: String,
}

impl Hello {
    /// The longest name or version.
    const MAX_NAME: usize = 64;

    /// Reads a plugin's first line.
    ///
    /// # Errors
    /// `InvalidConfig` where it is none, or of another version of the protocol.
    pub(crate) fn parse(line: &[u8]) -> Result<Self> {
        let spoken: Spoken = serde_json::from_slice(line)
            .map_err(|_| no_plugin("the program's first line is no hello of a keyhaul plugin"))?;
        if spoken.keyhaul != VERSION {
            return Err(no_plugin(format!(
                "the plugin speaks version {} of the protocol, and this keyhaul version {VERSION}",
                spoken.keyhaul
            )));
        }
        let wire: Wire = serde_json::from_slice(line).map_err(|error| {
            no_plugin(format!(
                "the plugin's hello is not of the right form, at column {}",
                error.column()
            ))
        })?;
        for (what, text) in [("name", &wire.name), ("version", &wire.version)] {
            if text.is_empty() || text.len() > Self::MAX_NAME || text.contains(misleads) {
                return Err(no_plugin(format!(
                    "the plugin's {what} has 1 to {} bytes, and none that control a terminal or turn a text",
                    Self::MAX_NAME
                )));
            }
        }
        // They are shown to people, in the error for an unknown one too.
        let named = |option: &Declared| (1..=Self::MAX_NAME).contains(&option.name.len());
        let tame = |option: &Declared| {
            let texts = [&option.name, &option.kind, &option.help];
            named(option) && !texts.iter().any(|text| text.contains(misleads))
        };
        if !wire.options.iter().all(tame) {
            return Err(no_plugin(format!(
                "the name of a plugin's option has 1 to {} bytes, and no text of it control characters, of a text's direction neither",
                Self::MAX_NAME
            )));
        }
        let max_value = wire.max_value.unwrap_or(DEFAULT_MAX_VALUE);
        Ok(Self {
            name: wire.name,
            version: wire.version,
            capabilities: Capabilities::new(
                capabilities(&wire.capabilities),
                max_value.min(MAX_VALUE),
            ),
            batch: wire.batch.filter(|paths| *paths > 0),
            options: wire.options,
        })
    }
}

/// The version alone: what else a hello of another version holds is not known.
#[derive(Deserialize)]
struct Spoken {
    keyhaul: u64,
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    version: String,
    capabilities: Vec<String>,
    #[serde(default, rename = "max-value")]
    max_value: Option<usize>,
    #[serde(default)]
    batch: Option<usize>,
    #[serde(default)]
    options: Vec<Declared>,
}

/// The capabilities of these names. A name that is unknown is of a later time, and not used.
fn capabilities(names: &[String]) -> Capability {
    let known = Capability::all().iter();
    known
        .filter(|one| {
            let name = one.names().concat().replace('_', "-");
            names.contains(&name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use keyhaul_core::ErrorKind;

    use super::*;

    #[test]
    fn a_hello_is_read_and_what_is_unknown_in_it_is_left_alone() {
        let hello = Hello::parse(
            br#"{"keyhaul":1,"name":"odd","version":"2.0","capabilities":["read","generates-remotely","flies"],
                "max-value":10,"batch":64,"options":[{"name":"pin","kind":"credential","required":true,"help":"x"}],"new":{}}"#,
        )
        .expect("a hello");
        let can = Capability::READ | Capability::GENERATES_REMOTELY;
        assert_eq!(hello.capabilities, Capabilities::new(can, 10));
        assert_eq!((hello.name.as_str(), hello.batch), ("odd", Some(64)));
        assert!(hello.options[0].required && hello.options[0].kind == "credential");
    }

    #[test]
    fn what_is_no_hello_is_refused_by_the_rule_and_not_repeated() {
        let refused = [
            ("", "is no hello"),
            ("hunter2", "is no hello"),
            (r#"{"keyhaul":"hunter2"}"#, "is no hello"),
            (
                r#"{"keyhaul":2,"name":"hunter2"}"#,
                "version 2 of the protocol",
            ),
            (r#"{"keyhaul":1,"name":"hunter2"}"#, "right form"),
            (
                r#"{"keyhaul":1,"name":"","version":"1","capabilities":[]}"#,
                "the plugin's name",
            ),
            (
                r#"{"keyhaul":1,"name":"x","version":"hunter2\n","capabilities":[]}"#,
                "plugin's version",
            ),
            (
                r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"options":[{"name":"hunter2\u001b[2J"}]}"#,
                "plugin's option",
            ),
            (
                r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"options":[{"name":"x","help":"hunter2\n"}]}"#,
                "plugin's option",
            ),
            (
                r#"{"keyhaul":1,"name":"x\u202ehunter2","version":"1","capabilities":[]}"#,
                "the plugin's name",
            ),
            (
                r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"options":[{"name":"x","help":"hunter2\u2067"}]}"#,
                "plugin's option",
            ),
            (
                r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"options":[{"name":""}]}"#,
                "plugin's option",
            ),
        ];
        for (line, rule) in refused {
            let error = Hello::parse(line.as_bytes()).expect_err(line);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(rule), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
