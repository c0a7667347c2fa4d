//! Which backends there are, and how a store of the policy is opened.

mod options;

use std::fmt;
use std::sync::Arc;

use url::Url;

pub use options::{OptionKind, OptionSpec, OptionValue, Options, Value, parse_duration};

use crate::policy::store_keys;
use crate::{Error, ErrorKind, Operation, Result, SecretStore};

/// Makes the stores of one backend.
pub trait StoreFactory: fmt::Debug + Send + Sync {
    /// The URL schemes it serves, as `["file", "file+plain"]`.
    fn schemes(&self) -> &[&'static str];

    /// What the backend is, in one line for `keyhaul help backends`.
    fn summary(&self) -> &'static str;

    /// The options it takes in the policy besides `url`. From these come `keyhaul help
    /// backends` and the unknown-key error; the docs' tables are held to them.
    fn options(&self) -> &[OptionSpec];

    /// Whether its stores are key services, which authorise each read: no other store may be asked
    /// in their stead.
    fn is_key_service(&self) -> bool;

    /// How much its stores are asked at once where the policy does not say; none where nothing is
    /// to be limited, as for a store in this very machine, or one that answers many paths in one
    /// request.
    fn limits(&self) -> Option<Limits>;

    /// The word before the colon by which a path of its stores can be named without a route, as
    /// `vault` in `vault:MOUNT/PATH`, where the policy allows that.
    fn alias(&self) -> Option<&'static str>;

    /// Opens a store. Does no I/O: [`SecretStore::probe`] does.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>>;
}

/// How much a store is asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Requests that may be under way at the same time.
    pub concurrency: u32,
    /// Requests that may begin in a second, on average. None for no limit.
    pub rate: Option<u32>,
}

impl Limits {
    /// Limits.
    pub const fn new(concurrency: u32, rate: Option<u32>) -> Self {
        Self { concurrency, rate }
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
        let specs = self.factory(config)?.options();
        // Who mistypes a key may have meant one that every store has.
        let known = specs.iter().map(|spec| spec.name).chain(store_keys());
        let options = &config.options;
        options
            .check_keys(known)
            .and_then(|()| options.check(specs))
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
pub fn unknown<'a>(what: &str, found: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;

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
