//! A backend's options as data: what it takes, and what a policy gave it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::unknown;
use crate::credential::CredentialSource;
use crate::{Error, ErrorKind, Result};

/// One option of a backend, as data.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its key in the policy.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    /// What holds where it is left out, in words.
    pub default: &'static str,
    /// What it is for, as a sentence.
    pub help: &'static str,
}

/// What an option takes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum OptionKind {
    /// `true` or `false`.
    Boolean,
    /// A credential's source: `env:NAME`, `file:PATH`, `credential:NAME`, `fd:N`.
    Credential,
    /// A number of seconds or a text like `500ms`, `5s`, `2m`.
    Duration,
    /// A table whose keys only somebody else knows, as a plugin does. They are held against what
    /// that one declares when it is first asked; until then any will do.
    Free,
    /// A whole number, not negative.
    Integer,
    /// A table with options of its own.
    Table(&'static [OptionSpec]),
    /// A text.
    Text,
    /// A list of texts.
    Texts,
}

impl OptionKind {
    /// Its word, the same in what plugins declare and in what is printed of them.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Credential => "credential",
            Self::Duration => "duration",
            Self::Free | Self::Table(_) => "table",
            Self::Integer => "integer",
            Self::Text => "text",
            Self::Texts => "texts",
        }
    }

    /// The kind of this word; a table is one whose keys are not known.
    pub fn named(name: &str) -> Option<Self> {
        let kinds = [
            Self::Boolean,
            Self::Credential,
            Self::Duration,
            Self::Free,
            Self::Integer,
            Self::Text,
            Self::Texts,
        ];
        kinds.into_iter().find(|kind| kind.name() == name)
    }

    /// What it takes, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Credential => {
                "a credential's source (env:NAME, file:PATH, credential:NAME, fd:N)"
            }
            Self::Duration => "a duration like 500ms, 5s or 2m",
            Self::Free => "a table with keys of the plugin's own",
            Self::Integer => "a whole number",
            Self::Table(_) => "a table",
            Self::Text => "a text",
            Self::Texts => "a list of texts",
        }
    }
}

/// A value in the policy, with its place for errors.
#[derive(Clone, Debug)]
pub struct OptionValue {
    /// The value.
    pub value: Value,
    /// Where it stands: `PATH:LINE:COLUMN`.
    pub place: String,
}

/// What an option can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "TOML's own kinds of value")]
pub enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
    Texts(Vec<String>),
    Table(Options),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Self {
        Self::Texts(texts)
    }
}

impl From<Options> for Value {
    fn from(table: Options) -> Self {
        Self::Table(table)
    }
}

/// Options by their keys, read through their declared kinds.
#[derive(Clone, Debug, Default)]
pub struct Options(pub BTreeMap<String, OptionValue>);

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(a, b)| a.0 == b.0 && a.1.value == b.1.value)
    }
}

impl Eq for Options {}

impl Options {
    /// Options that all stand at one place, as those do that come from no file of a policy.
    pub fn at(
        place: &str,
        values: impl IntoIterator<Item = (impl Into<String>, impl Into<Value>)>,
    ) -> Self {
        let options = values.into_iter().map(|(name, value)| {
            let (value, place) = (value.into(), place.to_owned());
            (name.into(), OptionValue { value, place })
        });
        Self(options.collect())
    }

    /// Whether the option was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The text of an option, where it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.0.get(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts of an option; none where it was not given.
    pub fn texts(&self, name: &str) -> &[String] {
        match self.0.get(name).map(|option| &option.value) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// The truth of an option, where it was given.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match &self.0.get(name)?.value {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The number of an option, where it was given.
    pub fn integer(&self, name: &str) -> Option<u64> {
        match &self.0.get(name)?.value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The duration of an option, where it was given.
    ///
    /// # Errors
    /// `InvalidConfig` with the place, where it is none.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(option) = self.0.get(name) else {
            return Ok(None);
        };
        let parsed = match &option.value {
            Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Value::Text(text) => parse_duration(text),
            _ => None,
        };
        parsed
            .map(Some)
            .ok_or_else(|| self.wrong_kind(name, OptionKind::Duration))
    }

    /// The credential source of an option, where it was given.
    ///
    /// # Errors
    /// `InvalidConfig` with the place and the forms.
    pub fn credential(&self, name: &str) -> Result<Option<CredentialSource>> {
        let Some(option) = self.0.get(name) else {
            return Ok(None);
        };
        let Value::Text(text) = &option.value else {
            return Err(self.wrong_kind(name, OptionKind::Credential));
        };
        CredentialSource::parse(text)
            .map(Some)
            .map_err(|error| error.with_place(format!("{} (`{name}`)", option.place)))
    }

    /// The table of an option, where it was given.
    pub fn table(&self, name: &str) -> Option<&Options> {
        match &self.0.get(name)?.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Where an option stands, for errors of the backend's own.
    pub fn place(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|option| option.place.as_str())
    }

    /// The error with the option's place, where it was given: what is wrong with an option that was
    /// left out is nowhere in the policy.
    pub fn placed(&self, name: &str, error: Error) -> Error {
        match self.place(name) {
            Some(place) => error.with_place(place),
            None => error,
        }
    }

    /// The error with the place of the option that its words name first, as `` `pin` ``: for errors of
    /// whoever does not know where its options stand.
    pub fn placed_by_words(&self, error: Error) -> Error {
        let named = |name: &String| error.message().find(&format!("`{name}`"));
        let named = self.0.keys().filter_map(|name| Some((named(name)?, name)));
        match named.min() {
            Some((_, name)) => self.placed(name, error),
            None => error,
        }
    }

    /// `InvalidConfig` with the rule that an option broke, and with its place as by
    /// [`placed`](Self::placed).
    pub fn invalid(&self, name: &str, rule: impl Into<Cow<'static, str>>) -> Error {
        self.placed(name, Error::new(ErrorKind::InvalidConfig, rule))
    }

    fn wrong_kind(&self, name: &str, kind: OptionKind) -> Error {
        self.invalid(name, format!("`{name}` takes {}", kind.words()))
    }

    /// Holds every key against those that are known.
    pub(crate) fn check_keys<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<()> {
        for key in self.0.keys() {
            if !known.clone().any(|name| name == key) {
                return Err(self.placed(key, unknown("option", key, known)));
            }
        }
        Ok(())
    }

    /// Holds every key and kind against `specs`.
    pub(crate) fn check(&self, specs: &[OptionSpec]) -> Result<()> {
        for (key, option) in &self.0 {
            let spec = specs.iter().find(|spec| spec.name == key).ok_or_else(|| {
                let known = specs.iter().map(|spec| spec.name);
                let error = self.placed(key, unknown("option", key, known));
                match specs
                    .iter()
                    .find(|spec| matches!(spec.kind, OptionKind::Free))
                {
                    Some(free) => error.with_advice(format!(
                        "the plugin's own stand in a table: {} = {{ {key} = … }}",
                        free.name
                    )),
                    None => error,
                }
            })?;
            match (spec.kind, &option.value) {
                (OptionKind::Boolean, Value::Boolean(_))
                | (OptionKind::Free, Value::Table(_))
                | (OptionKind::Text, Value::Text(_))
                | (OptionKind::Texts, Value::Texts(_)) => {}
                (OptionKind::Integer, Value::Integer(number)) if *number >= 0 => {}
                (OptionKind::Duration, _) => {
                    self.duration(key)?;
                }
                (OptionKind::Credential, _) => {
                    self.credential(key)?;
                }
                (OptionKind::Table(specs), Value::Table(table)) => table.check(specs)?,
                (kind, _) => return Err(self.wrong_kind(key, kind)),
            }
        }
        Ok(())
    }
}

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    let millis = match &text[end..] {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        "d" => number.checked_mul(86_400_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_table_takes_any_key_and_nothing_but_a_table() {
        let spec = OptionSpec {
            name: "options",
            kind: OptionKind::Free,
            default: "none",
            help: "",
        };
        let given = |value: Value| Options::at("keyhaul.toml:3:11", [("options", value)]);
        let inner = Options::at("keyhaul.toml:3:21", [("odd", "x")]);
        given(inner.into()).check(&[spec]).expect("any key");
        let error = given("x".into()).check(&[spec]).expect_err("no table");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("a table with keys"), "{error}");
    }

    #[test]
    fn an_error_has_the_place_of_the_option_that_its_words_name_first() {
        let mut options = Options::at("one:1:1", [("module", "/m.so")]);
        options.0.extend(Options::at("two:2:2", [("pin", "x")]).0);
        for (words, place) in [
            ("`pin` needs `module`", Some("two:2:2")),
            ("`module` needs `pin`", Some("one:1:1")),
            ("no pin, no `pins`", None),
        ] {
            let error = Error::new(ErrorKind::InvalidConfig, words);
            let error = options.placed_by_words(error);
            assert_eq!(error.context().place.as_deref(), place, "{words}");
        }
    }

    #[test]
    fn an_error_has_the_place_of_its_option_alone() {
        let mut options = Options::at("one:1:1", [("key", "host"), ("folder", "/a")]);
        options
            .0
            .extend(Options::at("two:2:2", [("create", true)]).0);
        let names: Vec<_> = options.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["create", "folder", "key"]);
        assert_eq!(options.text("folder"), Some("/a"));
        assert_eq!(options.boolean("create"), Some(true));
        for (name, place) in [
            ("create", Some("two:2:2")),
            ("folder", Some("one:1:1")),
            ("key", Some("one:1:1")),
            ("keys", None),
        ] {
            let error = options.invalid(name, format!("no {name}"));
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert_eq!(error.message(), format!("no {name}"));
            assert_eq!(error.context().place.as_deref(), place, "{name}");
            // Whoever knew the place before knew it better, and the rest stays as it was.
            let error = || Error::new(ErrorKind::NotFound, "gone").with_advice("look");
            let placed = options.placed(name, error());
            assert_eq!(placed.context().place.as_deref(), place, "{name}");
            assert_eq!(placed.kind(), ErrorKind::NotFound);
            assert_eq!((placed.message(), placed.advice()), ("gone", Some("look")));
            let placed = options.placed(name, error().with_place("three:3:3"));
            assert_eq!(placed.context().place.as_deref(), Some("three:3:3"));
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for text in ["", "5", "s", "5 s", "-5s", "5y", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
