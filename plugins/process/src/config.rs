//! From the policy's words to settings. No I/O.

use std::path::PathBuf;
use std::time::Duration;

use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig, percent};

use crate::fence::Fence;

pub(crate) const SCHEME: &str = "plugin+exec";

/// How long a plugin may say nothing where the policy does not say: less than the time limit of an
/// attempt, so that the next one finds a fresh process.
pub(crate) const STALL: Duration = Duration::from_secs(8);

const LONGEST_STALL: Duration = Duration::from_secs(24 * 3600);

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "args",
        kind: OptionKind::Texts,
        default: "none",
        help: "The program's arguments. They can be seen by every user of the host: no place for a secret.",
    },
    OptionSpec {
        name: "confine",
        kind: OptionKind::Table(CONFINE),
        default: "not confined",
        help: "What the program may reach: with it, nothing but the system's programs and what it names (Landlock, seccomp).",
    },
    OptionSpec {
        name: "options",
        kind: OptionKind::Free,
        default: "none",
        help: "The plugin's own options, which the plugin declares when it starts.",
    },
    OptionSpec {
        name: "stall",
        kind: OptionKind::Duration,
        default: "8s",
        help: "How long the program may say nothing while it is asked, before it is killed and started anew.",
    },
];

const CONFINE: &[OptionSpec] = &[
    OptionSpec {
        name: "network",
        kind: OptionKind::Boolean,
        default: "false",
        help: "Whether the program may use TCP and UDP.",
    },
    OptionSpec {
        name: "read",
        kind: OptionKind::Texts,
        default: "none",
        help: "Files and folders that the program may read and execute, with all below them.",
    },
    OptionSpec {
        name: "unix",
        kind: OptionKind::Boolean,
        default: "false",
        help: "Whether the program may use sockets that have a path: those of services, which act for whoever asks.",
    },
    OptionSpec {
        name: "write",
        kind: OptionKind::Texts,
        default: "none",
        help: "Files and folders that the program may also write, make and remove.",
    },
];

/// What a store is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The store's name.
    pub(crate) store: String,
    /// Where the policy declares it.
    pub(crate) place: String,
    /// The program, as the policy names it.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The plugin's own.
    pub(crate) options: Option<Options>,
    pub(crate) stall: Duration,
    /// What it may reach; everything where there is none.
    pub(crate) fence: Option<Fence>,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        let options = &config.options;
        let stall = options.duration("stall")?.unwrap_or(STALL);
        if stall.is_zero() || stall > LONGEST_STALL {
            let rule = "`stall` is longer than nothing and at most a day";
            return Err(options.invalid("stall", rule));
        }
        let arguments = options.texts("args");
        if arguments.iter().any(|argument| argument.contains('\0')) {
            return Err(options.invalid("args", "an argument holds no NUL"));
        }
        Ok(Self {
            store: config.name.clone(),
            place: config.place.clone(),
            program: program(config)?,
            arguments: arguments.to_vec(),
            options: options.table("options").cloned(),
            stall,
            fence: fence(config)?,
        })
    }
}

fn fence(config: &StoreConfig) -> Result<Option<Fence>> {
    let Some(table) = config.options.table("confine") else {
        return Ok(None);
    };
    let paths = |name: &str| -> Result<Vec<PathBuf>> {
        let paths = table.texts(name).iter().map(PathBuf::from);
        let paths: Vec<_> = paths.collect();
        if paths.iter().any(|path| !path.is_absolute()) {
            return Err(table.invalid(name, format!("`{name}` takes absolute paths")));
        }
        Ok(paths)
    };
    Ok(Some(Fence {
        read: paths("read")?,
        write: paths("write")?,
        network: table.boolean("network").unwrap_or(false),
        unix: table.boolean("unix").unwrap_or(false),
        place: config
            .options
            .place("confine")
            .unwrap_or(&config.place)
            .to_owned(),
    }))
}

fn program(config: &StoreConfig) -> Result<PathBuf> {
    let url = &config.url;
    let form = || {
        let rule = "a plugin's url names a program by its absolute path";
        Error::new(ErrorKind::InvalidConfig, rule)
            .with_advice(format!("write {SCHEME}:///usr/lib/keyhaul/NAME"))
    };
    if url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return Err(form());
    }
    let path = percent::decoded(url.path()).map_err(|_| form())?;
    if !path.starts_with('/') || path.ends_with('/') || path.contains(char::is_control) {
        return Err(form());
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::Value;

    use super::*;

    fn settings(url: &str, options: &[(&str, Value)]) -> Result<Settings> {
        let options = Options::at("keyhaul.toml:7:3", options.iter().cloned());
        Settings::new(&StoreConfig::new("odd", url, options, "keyhaul.toml:3:1")?)
    }

    #[test]
    fn a_program_is_named_by_its_absolute_path() {
        let made = settings("plugin+exec:///usr/lib/key%20haul/odd", &[]).expect("valid");
        assert_eq!(made.program, PathBuf::from("/usr/lib/key haul/odd"));
        assert_eq!((made.stall, made.options), (STALL, None));
        for url in [
            "plugin+exec:odd",
            "plugin+exec://host/odd",
            "plugin+exec:///",
            "plugin+exec:///usr/lib/",
            "plugin+exec:///odd?x=1",
            "plugin+exec:///odd%0a",
        ] {
            let error = settings(url, &[]).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(
                error
                    .advice()
                    .is_some_and(|advice| advice.contains("plugin+exec:///"))
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_place() {
        let url = "plugin+exec:///odd";
        let text = |text: &str| Value::Text(text.to_owned());
        let made = settings(
            url,
            &[
                ("stall", text("2m")),
                ("args", Value::Texts(vec!["a".into()])),
            ],
        );
        let made = made.expect("valid");
        assert_eq!(made.stall, Duration::from_secs(120));
        assert_eq!(made.arguments, ["a"]);
        for (name, value) in [
            ("stall", Value::Integer(0)),
            ("stall", Value::Integer(i64::MAX)),
            ("stall", text("soon")),
            ("args", Value::Texts(vec!["a\0".into()])),
        ] {
            let error = settings(url, &[(name, value)]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let place = error.context().place.as_deref();
            assert_eq!(place, Some("keyhaul.toml:7:3"), "{name}");
        }
    }
}
