//! A plugin's options: what it declares, and what a policy gave it.

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionValue, Options, Value, unknown};
use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_plugin_abi as abi;

use crate::lent;

/// More options than that no plugin has.
const MAX_OPTIONS: usize = 256;

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
    let one = |index: usize| {
        let option = lent::element(table.options, index, table.option_size)
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
            name: lent::lasting("an option's name", option.name)?,
            kind,
            fallback: lent::lasting("an option's default", option.fallback)?,
            help: lent::lasting("an option's help", option.help)?,
        })
    };
    (0..table.options_len).map(one).collect()
}

/// What a policy gave, held against what was declared.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Names and texts, as the interface has them.
    pub(crate) pairs: Vec<(String, String)>,
    /// Where credentials come from.
    pub(crate) credentials: Vec<(String, CredentialSource)>,
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
                .ok_or_else(|| unknown("option", key, names).with_place(&option.place))?;
            given.add(spec, options, option)?;
        }
        Ok(given)
    }

    fn add(&mut self, spec: &Declared, options: &Options, option: &OptionValue) -> Result<()> {
        let name = &spec.name;
        let mut pair = |text: String| self.pairs.push((name.clone(), text));
        match (spec.kind, &option.value) {
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
                self.credentials
                    .extend(source.map(|source| (name.clone(), source)));
            }
            (kind, _) => {
                let rule = format!("`{name}` takes {}", kind.words());
                return Err(Error::new(ErrorKind::InvalidConfig, rule).with_place(&option.place));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, Value)]) -> Options {
        let place = |key: &str| format!("keyhaul.toml:{key}");
        let option = |(key, value): &(&str, Value)| {
            let (place, value) = (place(key), value.clone());
            ((*key).to_owned(), OptionValue { value, place })
        };
        Options(given.iter().map(option).collect())
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

    #[test]
    fn each_kind_has_its_text_and_a_credential_stays_a_source() {
        let given = Given::new(
            &specs(),
            &options(&[
                ("size", Value::Integer(7)),
                ("hosts", Value::Texts(vec!["a".into(), "b".into()])),
                ("pin", Value::Text("env:PIN".into())),
                ("quick", Value::Boolean(true)),
                ("wait", Value::Text("2s".into())),
            ]),
        )
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
        assert_eq!(given.credentials, [("pin".to_owned(), source)]);
    }

    #[test]
    fn an_unknown_option_is_refused_at_its_place_with_what_is_known() {
        let error =
            Given::new(&specs(), &options(&[("siez", Value::Integer(7))])).expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(
            error
                .message()
                .contains("known are: hosts, pin, quick, size, wait"),
            "{error}"
        );
        assert_eq!(error.advice(), Some("did you mean `size`?"));
        assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:siez"));
    }

    #[test]
    fn a_value_of_another_kind_is_refused_and_not_repeated() {
        for (name, value) in [
            ("size", Value::Integer(-1)),
            ("size", Value::Text("hunter2".into())),
            ("pin", Value::Text("hunter2".into())),
            ("wait", Value::Text("hunter2".into())),
            ("quick", Value::Text("hunter2".into())),
        ] {
            let error = Given::new(&specs(), &options(&[(name, value)])).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
