//! Secrets named by where they are, for the few places that cannot have a route.
//!
//! ```text
//! ALIAS:MOUNT/PATH[?version=V][#FIELD]             vault:secret/web01/root#passphrase
//! ref+ALIAS://MOUNT/PATH[?version=V][#/FIELD]      ref+vault://secret/web01/root#/passphrase
//! ```
//!
//! The second form is that of [vals](https://github.com/helmfile/vals), so that a file written for
//! it can be read. In it, `%XX` stands for a byte of the path or the field; in the first form every
//! character stands for itself. A direct reference reads, and never writes. It is served only where
//! the policy says `direct = true` of the store.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::policy::{StoreEntry, Target};
use crate::reference::{Field, Version};
use crate::words::shown;
use crate::{Encoding, Error, ErrorKind, Policy, Reference, Registry, Result, SecretPath, percent};

/// What can be asked of a [`Resolver`](crate::Resolver): something that leads to a place in a store.
pub trait Named: Send + Sync {
    /// Its text, for messages to people.
    fn short(&self) -> &str;

    /// Where it leads by `policy`, whose backends `registry` knows.
    ///
    /// # Errors
    /// Where it leads nowhere, or is not allowed to.
    fn target(&self, policy: &Policy, registry: &Registry) -> Result<Target>;
}

/// A secret's place in a store, as a person wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Direct {
    text: String,
    alias: String,
    path: SecretPath,
    version: Option<Version>,
    field: Option<Field>,
}

/// What a reader can be asked for: a reference, or a place in a store where the policy allows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// By the policy's routes.
    Reference(Reference),
    /// Past them.
    Direct(Direct),
}

impl Direct {
    /// The longest, in bytes.
    pub const MAX: usize = 2048;

    /// Reads either form.
    ///
    /// # Errors
    /// `InvalidReference` with the rule.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text).map_err(|rule| {
            Error::new(
                ErrorKind::InvalidReference,
                format!("{rule}, in `{}`", shown(text)),
            )
            .with_advice(
                "a place in a store is ALIAS:MOUNT/PATH#FIELD or ref+ALIAS://MOUNT/PATH#/FIELD",
            )
        })
    }

    fn read(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.len() > Self::MAX {
            return Err(format!("at most {} bytes name a place", Self::MAX).into());
        }
        let (alias, rest, is_vals) = match text.strip_prefix(VALS) {
            Some(rest) => {
                let (alias, rest) = rest
                    .split_once("://")
                    .ok_or("`ref+` is followed by an alias and `://`")?;
                (alias, rest, true)
            }
            None => {
                let (alias, rest) = text
                    .split_once(':')
                    .ok_or("an alias is followed by a colon")?;
                (alias, rest, false)
            }
        };
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if alias.is_empty() || !plain(alias) {
            return Err("an alias is made of letters, digits and `-`".into());
        }
        let (rest, field) = match rest.split_once('#') {
            Some((rest, field)) => (rest, Some(field)),
            None => (rest, None),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let plain = |text: &str| match is_vals {
            true => decoded(text),
            false => Ok(text.to_owned()),
        };
        let rule = |error: Error| Cow::from(error.message().to_owned());
        let version = query.map(|query| {
            let version = query.strip_prefix("version=").ok_or(
                "`?` is followed by `version=` and nothing else: how a store is reached is the policy's",
            )?;
            Version::new(version).map_err(rule)
        });
        let field = field.map(|field| {
            let field = match is_vals {
                true => field
                    .strip_prefix('/')
                    .ok_or("`#` is followed by `/` and a field")?,
                false => field,
            };
            Field::new(plain(field)?).map_err(rule)
        });
        Ok(Self {
            text: text.to_owned(),
            alias: alias.to_owned(),
            path: SecretPath::new(plain(path)?).map_err(rule)?,
            version: version.transpose()?,
            field: field.transpose()?,
        })
    }

    /// The word for the backend.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// The path, the store's own first.
    pub fn path(&self) -> &SecretPath {
        &self.path
    }

    /// The field of a value that is a map.
    pub fn field(&self) -> Option<&Field> {
        self.field.as_ref()
    }

    /// What is left of the path below a store's own, where it is one of this store's.
    fn below(&self, entry: &StoreEntry, registry: &Registry) -> Option<SecretPath> {
        let factory = registry.factory(&entry.config).ok()?;
        if factory.alias() != Some(self.alias()) {
            return None;
        }
        // A url that names a socket has no room for the mount.
        let config = &entry.config;
        let own = config.options.text("mount").unwrap_or(config.url.path());
        let rest = match own.trim_matches('/') {
            "" => self.path.as_str(),
            own => self.path.as_str().strip_prefix(own)?.strip_prefix('/')?,
        };
        SecretPath::new(rest).ok()
    }

    fn refuse(&self, kind: ErrorKind, message: String) -> Error {
        Error::new(kind, message).with_reference(&self.text)
    }

    /// Why no store serves it that may.
    fn unserved(&self, policy: &Policy, registry: &Registry) -> Error {
        let known: Vec<&str> = registry.factories().filter_map(|f| f.alias()).collect();
        if !known.contains(&self.alias()) {
            let known = match known.as_slice() {
                [] => "none".to_owned(),
                known => known.join(", "),
            };
            let message = format!("unknown alias `{}`; known are: {known}", self.alias);
            return self
                .refuse(ErrorKind::InvalidReference, message)
                .with_advice("a reference is SCOPE/NAME, as in web01/root-disk");
        }
        let would = policy
            .stores
            .values()
            .find(|entry| self.below(entry, registry).is_some());
        match would {
            Some(entry) => {
                let config = &entry.config;
                let message = format!(
                    "the policy does not allow that secrets of store `{}` are named by their place",
                    config.name
                );
                let advice = format!(
                    "add a route and name the secret by a reference; or allow it by `direct = true` in \
                     [stores.{}], at {}",
                    config.name, config.place
                );
                self.refuse(ErrorKind::PermissionDenied, message)
                    .with_store(&config.name)
                    .with_advice(advice)
            }
            None => {
                let message = format!(
                    "no {} store of {} has a url whose path begins this one",
                    self.alias, policy.name
                );
                self.refuse(ErrorKind::NotFound, message)
                    .with_advice("`keyhaul check` lists the stores of the policy")
            }
        }
    }
}

impl Named for Direct {
    fn short(&self) -> &str {
        &self.text
    }

    fn target(&self, policy: &Policy, registry: &Registry) -> Result<Target> {
        let mut serving = policy
            .stores
            .values()
            .filter(|entry| entry.direct)
            .filter_map(|entry| Some((entry, self.below(entry, registry)?)));
        let Some((entry, path)) = serving.next() else {
            return Err(self.unserved(policy, registry));
        };
        let others: Vec<&str> = serving.map(|(e, _)| e.config.name.as_str()).collect();
        if !others.is_empty() {
            let message = format!(
                "it could be of any of the stores {}, {}",
                entry.config.name,
                others.join(", ")
            );
            return Err(self
                .refuse(ErrorKind::InvalidReference, message)
                .with_advice("leave `direct = true` with one of them, or name it by a reference"));
        }
        Ok(Target {
            stores: vec![entry.config.name.clone()],
            path,
            version: self.version.clone(),
            field: self.field.clone(),
            encoding: Encoding::default(),
            pattern: None,
            route: entry.config.place.clone(),
        })
    }
}

impl Named for Reference {
    fn short(&self) -> &str {
        Reference::short(self)
    }

    fn target(&self, policy: &Policy, _: &Registry) -> Result<Target> {
        policy.target(self)
    }
}

impl Wanted {
    /// Reads a reference, or a place: what has a colon before any slash, and is not `secret:`.
    ///
    /// # Errors
    /// `InvalidReference` with the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let first = text.split('/').next().unwrap_or_default();
        let is_place = first
            .split_once(':')
            .is_some_and(|(word, _)| word != "secret");
        if is_place {
            Direct::parse(text).map(Self::Direct)
        } else {
            Reference::parse(text).map(Self::Reference)
        }
    }

    /// The reference, where it is one.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            Self::Direct(_) => None,
        }
    }

    /// Its text, for messages to people.
    pub fn short(&self) -> &str {
        match self {
            Self::Reference(reference) => reference.short(),
            Self::Direct(direct) => &direct.text,
        }
    }
}

impl Named for Wanted {
    fn short(&self) -> &str {
        Wanted::short(self)
    }

    fn target(&self, policy: &Policy, registry: &Registry) -> Result<Target> {
        match self {
            Self::Reference(reference) => reference.target(policy, registry),
            Self::Direct(direct) => direct.target(policy, registry),
        }
    }
}

impl From<Reference> for Wanted {
    fn from(reference: Reference) -> Self {
        Self::Reference(reference)
    }
}

impl fmt::Display for Wanted {
    /// The canonical text of a reference, the text of a place as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(f),
            Self::Direct(direct) => f.write_str(&direct.text),
        }
    }
}

impl Serialize for Wanted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a reference of vals begins.
const VALS: &str = "ref+";

/// The text with each `%XX` as the byte it stands for.
fn decoded(text: &str) -> Result<String, Cow<'static, str>> {
    percent::decoded(text).map_err(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, Option<String>, Option<String>) {
        let direct = Direct::parse(text).expect(text);
        (
            direct.alias().to_owned(),
            direct.path().to_string(),
            direct.version.map(|version| version.to_string()),
            direct.field.map(|field| field.to_string()),
        )
    }

    fn words(words: [&str; 4]) -> (String, String, Option<String>, Option<String>) {
        let [alias, path, version, field] = words.map(str::to_owned);
        let some = |word: String| Some(word).filter(|word| !word.is_empty());
        (alias, path, some(version), some(field))
    }

    #[test]
    fn both_forms_come_apart() {
        for (text, expected) in [
            (
                "vault:secret/web01/root#passphrase",
                ["vault", "secret/web01/root", "", "passphrase"],
            ),
            ("vault:secret/a?version=3", ["vault", "secret/a", "3", ""]),
            (
                "ref+vault://secret/web01/root#/passphrase",
                ["vault", "secret/web01/root", "", "passphrase"],
            ),
            (
                "ref+vault://secret/r%C3%B6ot%2Fx%20y?version=3#/pass%2Dphrase",
                ["vault", "secret/r\u{f6}ot/x y", "3", "pass-phrase"],
            ),
            // In the short form every character stands for itself.
            ("vault:secret/100%25", ["vault", "secret/100%25", "", ""]),
        ] {
            assert_eq!(parts(text), words(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_by_its_rule() {
        for (text, rule) in [
            ("vault:", "empty segments"),
            ("vault:/secret/a", "empty segments"),
            ("vault:secret/../a", "`..` segments"),
            (":secret/a", "an alias is made of"),
            ("va ult:secret/a", "an alias is made of"),
            ("vault:secret/a#", "a field is 1 to 128"),
            ("vault:secret/a#*", "a field is 1 to 128"),
            (
                "vault:secret/a?address=http://evil",
                "`version=` and nothing else",
            ),
            ("ref+vault:secret/a", "an alias and `://`"),
            ("ref+vault://secret/a#field", "followed by `/`"),
            ("ref+vault://secret/a#/b/c", "a field is 1 to 128"),
            ("ref+vault://secret/%", "two hexadecimal digits"),
            ("ref+vault://secret/%+1", "two hexadecimal digits"),
            ("ref+vault://secret/%\u{f6}", "two hexadecimal digits"),
            ("ref+vault://secret/%ff", "no UTF-8"),
            ("ref+vault://secret/%2e%2e/a", "`..` segments"),
            ("ref+vault://secret/a%00", "control characters"),
        ] {
            let error = Wanted::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
            assert!(error.message().contains(rule), "{text}: {error}");
        }
        let long = format!("vault:{}", "a/".repeat(2000));
        assert!(Wanted::parse(&long).is_err());
    }

    #[test]
    fn references_stay_what_they_were() {
        for text in ["web01/root", "secret:web01/root?version=1#x", "@site/a"] {
            let wanted = Wanted::parse(text).expect(text);
            let reference = Reference::parse(text).expect(text);
            assert_eq!(wanted.short(), reference.short());
            assert_eq!(wanted.to_string(), reference.to_string());
            assert_eq!(wanted, reference.into());
        }
        // The error of what is neither is that of a reference.
        let error = Wanted::parse("web01/a:b").expect_err("no reference");
        assert!(error.message().contains("not `:`"), "{error}");
    }
}
