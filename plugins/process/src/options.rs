//! The plugin's own options, held against what it declared.

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, Options, Value, unknown};
use keyhaul_core::{Error, ErrorKind, Result};

use crate::wire::Declared;

/// The credentials among the options, each with its source.
///
/// # Errors
/// `InvalidConfig` with the place: an option that the plugin does not know, one of another kind, or
/// one that is missing.
pub(crate) fn check(
    given: &Options,
    declared: &[Declared],
    place: &str,
) -> Result<Vec<(String, CredentialSource)>> {
    let mut credentials = Vec::new();
    for (name, option) in &given.0 {
        let spec = declared.iter().find(|spec| spec.name == *name);
        let spec = spec.ok_or_else(|| given.placed(name, unknown_option(name, declared)))?;
        // A later version's kinds are the program's to judge.
        let Some(kind) = OptionKind::named(&spec.kind) else {
            continue;
        };
        match (kind, &option.value) {
            (OptionKind::Duration, _) => {
                given.duration(name)?;
            }
            (OptionKind::Credential, _) => {
                let source = given.credential(name)?;
                credentials.extend(source.map(|source| (name.clone(), source)));
            }
            (OptionKind::Boolean, Value::Boolean(_))
            | (OptionKind::Integer, Value::Integer(_))
            | (OptionKind::Text, Value::Text(_))
            | (OptionKind::Texts, Value::Texts(_))
            | (OptionKind::Free, Value::Table(_)) => {}
            _ => return Err(given.invalid(name, format!("`{name}` takes {}", kind.words()))),
        }
    }
    let missing = declared
        .iter()
        .find(|spec| spec.required && !given.has(&spec.name));
    match missing {
        Some(spec) => {
            let rule = format!("the plugin needs the option `{}`", spec.name);
            Err(invalid(rule).with_place(place))
        }
        None => Ok(credentials),
    }
}

fn unknown_option(name: &str, declared: &[Declared]) -> Error {
    if declared.is_empty() {
        let rule = format!("the plugin takes no options, and so no `{name}`");
        return invalid(rule);
    }
    let known = declared.iter().map(|spec| spec.name.as_str());
    unknown("option", name, known)
}

fn invalid(rule: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(options: &[(&str, &str, bool)]) -> Vec<Declared> {
        let each = options.iter().map(|(name, kind, required)| Declared {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            required: *required,
            help: String::new(),
        });
        each.collect()
    }

    fn given(options: &[(&str, Value)]) -> Options {
        let one = |(name, value): &(&str, Value)| {
            Options::at(&format!("keyhaul.toml:{name}"), [(*name, value.clone())]).0
        };
        Options(options.iter().flat_map(one).collect())
    }

    #[test]
    fn options_are_held_against_what_the_plugin_declares() {
        let declared = declared(&[
            ("module", "text", true),
            ("pin", "credential", false),
            ("slots", "integer", false),
            ("wait", "duration", false),
            ("later", "of a later time", false),
        ]);
        let text = |text: &str| Value::Text(text.to_owned());
        let good = [
            ("module", text("/x.so")),
            ("pin", text("file:/etc/pin")),
            ("slots", Value::Integer(3)),
            ("wait", text("5s")),
            ("later", Value::Boolean(true)),
        ];
        let found = check(&given(&good), &declared, "here").expect("right");
        let source = CredentialSource::File("/etc/pin".into());
        assert_eq!(found, [("pin".to_owned(), source)]);
        for (name, value, rule) in [
            (
                "modul",
                text("x"),
                "known are: later, module, pin, slots, wait",
            ),
            ("module", Value::Integer(1), "`module` takes a text"),
            ("slots", text("3"), "`slots` takes a whole number"),
            ("wait", text("soon"), "`wait` takes a duration"),
            ("pin", text("hunter2"), "named by its source"),
        ] {
            let mut options = given(&good);
            options.0.extend(given(&[(name, value)]).0);
            let error = check(&options, &declared, "here").expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(rule), "{error}");
            let place = error.context().place.clone().expect("a place");
            assert!(
                place.starts_with(&format!("keyhaul.toml:{name}")),
                "{place}"
            );
            assert!(!error.to_string().contains("hunter2"));
        }
        let error = check(&Options::default(), &declared, "here").expect_err("missing");
        assert!(
            error.message().contains("needs the option `module`"),
            "{error}"
        );
        assert_eq!(error.context().place.as_deref(), Some("here"));
        assert!(
            check(&Options::default(), &[], "here")
                .expect("none")
                .is_empty()
        );
        let error = check(&given(&good), &[], "here").expect_err("unknown");
        assert!(error.message().contains("takes no options"), "{error}");
    }
}
