//! Which backends there are, and how a store of the policy is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use url::Url;

use crate::credential::CredentialSource;
use crate::{Error, ErrorKind, Operation, Result, SecretStore};

/// Makes the stores of one backend.
pub trait StoreFactory: fmt::Debug + Send + Sync {
    /// The URL schemes it serves, as `["file", "file+plain"]`.
    fn schemes(&self) -> &[&'static str];

    /// What the backend is, in one line for `--help` and the docs.
    fn summary(&self) -> &'static str;

    /// The options it takes in the policy besides `url`. From these come `--help`, the docs' table
    /// and the unknown-key error.
    fn options(&self) -> &[OptionSpec];

    /// Whether its stores are key services, which authorise each read: no other store may be asked
    /// in their stead.
    fn is_key_service(&self) -> bool;

    /// Opens a store. Does no I/O: [`SecretStore::probe`] does.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>>;
}

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
    /// What it takes, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Credential => {
                "a credential's source (env:NAME, file:PATH, credential:NAME, fd:N)"
            }
            Self::Duration => "a duration like 500ms, 5s or 2m",
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
    pub fn duration(&self, name: &str) -> Result<Option<std::time::Duration>> {
        let Some(option) = self.0.get(name) else {
            return Ok(None);
        };
        let parsed = match &option.value {
            Value::Integer(seconds) => u64::try_from(*seconds)
                .ok()
                .map(std::time::Duration::from_secs),
            Value::Text(text) => parse_duration(text),
            _ => None,
        };
        parsed
            .map(Some)
            .ok_or_else(|| wrong_kind(name, OptionKind::Duration, &option.place))
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
            return Err(wrong_kind(name, OptionKind::Credential, &option.place));
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

    /// Holds every key and kind against `specs`.
    fn check(&self, specs: &[OptionSpec]) -> Result<()> {
        for (key, option) in &self.0 {
            let spec = specs.iter().find(|spec| spec.name == key).ok_or_else(|| {
                unknown("option", key, specs.iter().map(|spec| spec.name)).with_place(&option.place)
            })?;
            match (spec.kind, &option.value) {
                (OptionKind::Boolean, Value::Boolean(_))
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
                (kind, _) => return Err(wrong_kind(key, kind, &option.place)),
            }
        }
        Ok(())
    }
}

/// A store as the policy declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Its name.
    pub name: String,
    /// Where it is. Free of credentials.
    pub url: Url,
    /// The backend's options.
    pub options: Options,
    /// Where it is declared: `PATH:LINE:COLUMN`.
    pub place: String,
}

impl StoreConfig {
    /// A store at `url`.
    ///
    /// # Errors
    /// `InvalidConfig` where `url` is none, or carries a user or password.
    pub fn new(
        name: impl Into<String>,
        url: &str,
        options: Options,
        place: impl Into<String>,
    ) -> Result<Self> {
        let (name, place) = (name.into(), place.into());
        // The URL is not repeated: it may hold a credential.
        let refuse = |rule: String| Error::new(ErrorKind::InvalidConfig, rule).with_place(&place);
        let with_user = || {
            refuse(format!(
                "the url of store `{name}` holds a user or password"
            ))
            .with_advice(
                "name the credential by its source: env:NAME, file:PATH, credential:NAME or fd:N",
            )
        };
        // Before it is parsed: a `file` URL with a user is none, for a reason nobody would guess.
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(with_user());
        }
        let url = Url::parse(url)
            .map_err(|error| refuse(format!("the url of store `{name}` is not a URL: {error}")))?;
        if url.password().is_some() || !url.username().is_empty() {
            return Err(with_user());
        }
        Ok(Self {
            name,
            url,
            options,
            place,
        })
    }
}

/// The backends that a program knows. A value: no global, no registration before `main`.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    factories: Vec<Arc<dyn StoreFactory>>,
}

impl Registry {
    /// A registry that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend. A scheme that is known already stays with the backend that had it.
    #[must_use]
    pub fn with(mut self, factory: impl StoreFactory + 'static) -> Self {
        self.factories.push(Arc::new(factory));
        self
    }

    /// The backends, in the order they were added.
    pub fn factories(&self) -> impl Iterator<Item = &dyn StoreFactory> {
        self.factories.iter().map(AsRef::as_ref)
    }

    /// The backend of a store.
    ///
    /// # Errors
    /// `InvalidConfig` with the list of known schemes.
    pub fn factory(&self, config: &StoreConfig) -> Result<&dyn StoreFactory> {
        let scheme = config.url.scheme();
        self.factories()
            .find(|factory| factory.schemes().contains(&scheme))
            .ok_or_else(|| {
                let known = self
                    .factories()
                    .flat_map(|factory| factory.schemes().iter().copied());
                unknown("scheme", scheme, known)
                    .with_operation(Operation::Open)
                    .with_store(&config.name)
                    .with_place(&config.place)
            })
    }

    /// Holds a store's options against what its backend takes.
    ///
    /// # Errors
    /// `InvalidConfig` with the place and what is known.
    pub fn check(&self, config: &StoreConfig) -> Result<()> {
        let factory = self.factory(config)?;
        config
            .options
            .check(factory.options())
            .map_err(|error| error.with_store(&config.name))
    }

    /// Opens a store, bare: without layers, without I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the place and what is known.
    pub fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        self.check(config)?;
        self.factory(config)?.open(config).map_err(|error| {
            error
                .with_operation(Operation::Open)
                .with_store(&config.name)
                .with_place(&config.place)
        })
    }
}

/// The error for an unknown word: it lists what is known and points at the nearest.
pub(crate) fn unknown<'a>(
    what: &str,
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Error {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    let near = known.iter().copied().find(|word| is_near(word, found));
    let error = Error::new(
        ErrorKind::InvalidConfig,
        format!("unknown {what} `{found}`; known are: {}", known.join(", ")),
    );
    match near {
        Some(word) => error.with_advice(format!("did you mean `{word}`?")),
        None => error,
    }
}

fn wrong_kind(name: &str, kind: OptionKind, place: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("`{name}` takes {}", kind.words()),
    )
    .with_place(place)
}

/// Whether two words differ by at most two edits, or only in case and separators.
fn is_near(known: &str, found: &str) -> bool {
    let fold = |word: &str| word.to_ascii_lowercase().replace('_', "-");
    let (a, b) = (fold(known), fold(found));
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 2 || found.len() > 64 {
        return false;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()] <= 2.min(a.len().max(b.len()) / 2)
}

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
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
    Some(std::time::Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for text in ["", "5", "s", "5 s", "-5s", "5y", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn unknown_words_list_what_is_known_and_point_at_the_nearest() {
        let error = unknown("scheme", "fiel", ["vault+https", "file"]);
        assert_eq!(
            error.message(),
            "unknown scheme `fiel`; known are: file, vault+https"
        );
        assert_eq!(error.advice(), Some("did you mean `file`?"));
        assert_eq!(
            unknown("scheme", "s3", ["file", "vault+https"]).advice(),
            None
        );
    }

    #[test]
    fn a_url_with_a_credential_is_refused_and_not_repeated() {
        for url in [
            "vault+https://user:hunter2@vault/secret",
            "vault+https://hunter2@vault/secret",
        ] {
            let error = StoreConfig::new("site", url, Options::default(), "keyhaul.toml:1:1")
                .expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}{:?}", error.advice()).contains("hunter2"));
            assert!(
                error
                    .advice()
                    .is_some_and(|advice| advice.contains("file:PATH"))
            );
        }
    }
}
