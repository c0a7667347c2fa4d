//! A plugin's options: what it declares, and what a policy gave it.

use std::collections::BTreeSet;
use std::mem::offset_of;

use keyhaul_core::registry::{OptionKind, Options, Value, unknown};
use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_plugin_abi as abi;

use crate::credential::Credential;
use crate::lent;

/// More options than that no plugin has.
const MAX_OPTIONS: usize = 256;
/// What an option has in the first version of the interface, in bytes. Later ones append.
const LEAST: usize = offset_of!(abi::PluginOption, reserved) + size_of::<u32>();

/// An option that a plugin takes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Declared {
    /// Its key.
    pub name: String,
    /// What it takes. Never a table.
    pub kind: OptionKind,
    /// What holds where it is left out, in words.
    pub fallback: String,
    /// What it is for, as a sentence.
    pub help: String,
}

/// Reads what a plugin's table declares.
///
/// # Errors
/// `Unsupported` where the table is not what it says.
pub(crate) fn declared(table: &abi::Plugin) -> Result<Vec<Declared>> {
    let refuse = |rule: String| Error::new(ErrorKind::Unsupported, rule);
    if table.options_len > MAX_OPTIONS {
        return Err(refuse(format!(
            "the plugin says that it takes {} options; at most {MAX_OPTIONS} can be",
            table.options_len
        )));
    }
    let size = table.option_size;
    if table.options_len > 0
        && (size < LEAST || !size.is_multiple_of(align_of::<abi::PluginOption>()))
    {
        return Err(refuse(format!(
            "the plugin says that an option of its has {size} bytes, which none has"
        )));
    }
    let one = |index: usize| {
        let option = lent::element(table.options, index, size)
            .ok_or_else(|| refuse(format!("the plugin's option {index} is not in memory")))?;
        let kind = match option.kind {
            abi::OPTION_TEXT => OptionKind::Text,
            abi::OPTION_BOOLEAN => OptionKind::Boolean,
            abi::OPTION_CREDENTIAL => OptionKind::Credential,
            abi::OPTION_DURATION => OptionKind::Duration,
            abi::OPTION_INTEGER => OptionKind::Integer,
            abi::OPTION_TEXTS => OptionKind::Texts,
            other => {
                let rule = format!("the plugin's option {index} is of the unknown kind {other}");
                return Err(refuse(rule));
            }
        };
        Ok(Declared {
            name: lent::name("an option's name", option.name)?,
            kind,
            fallback: lent::lasting("an option's default", option.fallback)?,
            help: lent::lasting("an option's help", option.help)?,
        })
    };
    let options: Vec<Declared> = (0..table.options_len).map(one).collect::<Result<_>>()?;
    let names = options.iter().map(|option| option.name.as_str());
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(refuse(format!("the plugin has two options `{name}`")));
        }
    }
    Ok(options)
}

/// What a policy gave, held against what was declared.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Names and texts, as the interface has them.
    pub(crate) pairs: Vec<(String, String)>,
    /// Its credentials.
    pub(crate) credentials: Vec<Credential>,
}

impl Given {
    /// Reads `options`.
    ///
    /// # Errors
    /// `InvalidConfig` with the place, and with the list of what is known or the kind.
    pub(crate) fn new(declared: &[Declared], options: &Options) -> Result<Self> {
        let mut given = Self::default();
        for (key, option) in &options.0 {
            let names = declared.iter().map(|option| option.name.as_str());
            let spec = declared
                .iter()
                .find(|spec| spec.name == *key)
                .ok_or_else(|| options.placed(key, unknown("option", key, names)))?;
            given.add(spec, options, &option.value)?;
        }
        Ok(given)
    }

    fn add(&mut self, spec: &Declared, options: &Options, value: &Value) -> Result<()> {
        let name = &spec.name;
        let mut pair = |text: String| self.pairs.push((name.clone(), text));
        match (spec.kind, value) {
            (OptionKind::Boolean, Value::Boolean(value)) => pair(value.to_string()),
            (OptionKind::Text, Value::Text(text)) => pair(text.clone()),
            (OptionKind::Texts, Value::Texts(texts)) => texts.iter().cloned().for_each(pair),
            (OptionKind::Integer, Value::Integer(number)) if *number >= 0 => {
                pair(number.to_string());
            }
            (OptionKind::Duration, _) => {
                let duration = options.duration(name)?.unwrap_or_default();
                pair(duration.as_millis().to_string());
            }
            (OptionKind::Credential, _) => {
                let source = options.credential(name)?;
                let place = options.place(name).unwrap_or_default();
                self.credentials.extend(source.map(|source| Credential {
                    name: name.clone(),
                    source,
                    place: place.to_owned(),
                }));
            }
            (kind, _) => {
                let rule = format!("`{name}` takes {}", kind.words());
                return Err(options.invalid(name, rule));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use keyhaul_core::credential::CredentialSource;

    use super::*;

    /// What comes of these options at one place.
    fn given<const N: usize>(options: [(&str, Value); N]) -> Result<Given> {
        Given::new(&specs(), &Options::at("keyhaul.toml:2:1", options))
    }

    fn specs() -> Vec<Declared> {
        let all = [
            ("size", OptionKind::Integer),
            ("hosts", OptionKind::Texts),
            ("pin", OptionKind::Credential),
            ("quick", OptionKind::Boolean),
            ("wait", OptionKind::Duration),
        ];
        let spec = |(name, kind): (&str, OptionKind)| Declared {
            name: name.into(),
            kind,
            fallback: String::new(),
            help: String::new(),
        };
        all.into_iter().map(spec).collect()
    }

    fn declared_option(name: &'static str) -> abi::PluginOption {
        abi::PluginOption {
            name: abi::Str::new(name),
            fallback: abi::Str::ABSENT,
            help: abi::Str::new("What it is for."),
            kind: abi::OPTION_INTEGER,
            reserved: 0,
        }
    }

    /// A table with these options, each of which has `size` bytes for the plugin.
    fn table<T>(options: &[T], size: usize) -> abi::Plugin {
        abi::Plugin {
            options: options.as_ptr().cast(),
            options_len: options.len(),
            option_size: size,
            ..crate::testing::empty_table()
        }
    }

    fn names(table: &abi::Plugin) -> Vec<String> {
        let declared = declared(table).expect("read");
        declared.into_iter().map(|option| option.name).collect()
    }

    #[test]
    fn options_of_this_version_and_of_a_newer_one_are_read() {
        assert_eq!(LEAST, 56, "the first version never changes");
        let of_ours = ["slots", "hosts"].map(declared_option);
        assert_eq!(names(&table(&of_ours, 56)), ["slots", "hosts"]);
        #[repr(C)]
        struct Newer(abi::PluginOption, [u64; 3]);
        let newer = ["slots", "hosts", "pin"].map(|name| Newer(declared_option(name), [!0; 3]));
        assert_eq!(names(&table(&newer, 80)), ["slots", "hosts", "pin"]);
        // Where there are none, nobody needs to know how long they are.
        assert_eq!(names(&table::<Newer>(&[], 0)), Vec::<String>::new());
    }

    #[test]
    fn options_that_nobody_could_name_are_refused() {
        let told = |options: &[abi::PluginOption], size: usize| {
            let error = declared(&table(options, size)).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            error.message().to_owned()
        };
        let two = ["slots", "hosts"].map(declared_option);
        for size in [0, 1, 48, 55, 57, usize::MAX] {
            let message = told(&two, size);
            assert!(message.contains(&format!("has {size} bytes")), "{message}");
        }
        let message = told(&["slots", ""].map(declared_option), 56);
        assert!(message.contains("name is empty"), "{message}");
        let message = told(&["slots", "hosts", "slots"].map(declared_option), 56);
        assert!(message.contains("two options `slots`"), "{message}");
    }

    #[test]
    fn each_kind_has_its_text_and_a_credential_stays_a_source() {
        let given = given([
            ("size", Value::Integer(7)),
            ("hosts", Value::Texts(vec!["a".into(), "b".into()])),
            ("pin", "env:PIN".into()),
            ("quick", true.into()),
            ("wait", "2s".into()),
        ])
        .expect("all known");
        let pairs: Vec<(&str, &str)> = given
            .pairs
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let expected = [
            ("hosts", "a"),
            ("hosts", "b"),
            ("quick", "true"),
            ("size", "7"),
            ("wait", "2000"),
        ];
        assert_eq!(pairs, expected);
        let source = CredentialSource::Env("PIN".into());
        let pin = Credential {
            name: "pin".to_owned(),
            source,
            place: "keyhaul.toml:2:1".to_owned(),
        };
        assert_eq!(given.credentials, [pin]);
    }

    #[test]
    fn an_unknown_option_is_refused_at_its_place_with_what_is_known() {
        let error = given([("siez", Value::Integer(7))]).expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(
            error
                .message()
                .contains("known are: hosts, pin, quick, size, wait"),
            "{error}"
        );
        assert_eq!(error.advice(), Some("did you mean `size`?"));
        assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:2:1"));
    }

    #[test]
    fn a_value_of_another_kind_is_refused_and_not_repeated() {
        for (name, value) in [
            ("size", Value::Integer(-1)),
            ("size", "hunter2".into()),
            ("pin", "hunter2".into()),
            ("wait", "hunter2".into()),
            ("quick", "hunter2".into()),
        ] {
            let error = given([(name, value)]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
