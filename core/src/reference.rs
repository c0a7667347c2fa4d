//! References: how a VM's definition names a secret without saying where it lives.
//!
//! ```text
//! secret:SCOPE/NAME[/NAME…][?version=V][#FIELD]
//! ```
//!
//! Where only a reference can stand, `secret:` may be left out. Segments are made of
//! `[A-Za-z0-9._-]`, 1 to 128 of them, are not `.` or `..` and do not start with `-`; a scope may
//! start with `@`; there are 2 to 8 segments and 512 bytes in all. The last segment may end in
//! `~next`, the staged value of a rotation. Parsing and printing round-trip.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::words::{misleads, shown};
use crate::{Error, ErrorKind, Result};

/// The longest reference, in bytes, `secret:` included.
pub const MAX_REFERENCE: usize = 512;
const MAX_SEGMENT: usize = 128;
const MAX_SEGMENTS: usize = 8;
const PREFIX: &str = "secret:";
const STAGED: &str = "~next";

/// The namespace of references' UUIDs (RFC 9562, version 5). Never to be changed: libvirt domains
/// out there hold UUIDs made from it.
const NAMESPACE: Uuid = Uuid::from_u128(0x9c21_7d5e_3b0a_4f86_a1c4_5be7_20d3_96f1);

/// A parsed reference, held in its canonical text, `secret:` first.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    text: String,
    scope_end: usize,
    name_end: usize,
    version: Option<Version>,
    field: Option<Field>,
}

impl Reference {
    /// Reads a reference; `secret:` may be left out.
    ///
    /// # Errors
    /// `InvalidReference` with the column and the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let start = if text.starts_with(PREFIX) {
            PREFIX.len()
        } else {
            0
        };
        Parser { text, at: start }
            .reference()
            .map_err(|(column, rule)| {
                Error::new(
                    ErrorKind::InvalidReference,
                    format!("{rule}, at column {column} of `{}`", shown(text)),
                )
                .with_advice(
                    "a reference is SCOPE/NAME[/NAME…][?version=V][#FIELD], as in web01/root-disk",
                )
            })
    }

    /// The first segment: whose secret it is.
    pub fn scope(&self) -> &str {
        &self.text[PREFIX.len()..self.scope_end]
    }

    /// Everything between the scope and `?` or `#`, with a staged value's `~next`.
    pub fn name(&self) -> &str {
        &self.text[self.scope_end + 1..self.name_end]
    }

    /// Scope and name, what routes match: the reference without version and field.
    pub fn subject(&self) -> &str {
        &self.text[PREFIX.len()..self.name_end]
    }

    /// The version asked for, where one is pinned.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// The field of a value that is a map.
    pub fn field(&self) -> Option<&Field> {
        self.field.as_ref()
    }

    /// Whether this is the staged value of a rotation, not yet current.
    pub fn is_staged(&self) -> bool {
        self.name().ends_with(STAGED)
    }

    /// The canonical text without `secret:`, for messages to people.
    pub fn short(&self) -> &str {
        &self.text[PREFIX.len()..]
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The reference's fixed UUID, for consumers that know secrets by UUID, libvirt first.
    pub fn uuid(&self) -> Uuid {
        Uuid::new_v5(&NAMESPACE, self.text.as_bytes())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Declares a word of a fixed alphabet: a version or a field.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Reads one: `[A-Za-z0-9._-]`, 1 to 128 of them.
            ///
            /// # Errors
            /// `InvalidReference` with the rule.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                match word_end(&text) {
                    Ok(end) if end > 0 && end == text.len() => Ok(Self(text)),
                    _ => Err(Error::new(
                        ErrorKind::InvalidReference,
                        concat!("a ", $what, " is 1 to 128 of [A-Za-z0-9._-]"),
                    )),
                }
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

word! {
    /// A version of a secret, in the store's own words. It means nothing in another store.
    Version, "version"
}

word! {
    /// A field of a value that is a map, or [all](Self::all) of them.
    Field, "field"
}

impl Field {
    /// What a policy calls the whole map by. No reference can.
    pub const ALL: &'static str = "*";

    /// The whole map.
    pub fn all() -> Self {
        Self(Self::ALL.into())
    }

    /// Whether it is the whole map.
    pub fn is_all(&self) -> bool {
        self.as_str() == Self::ALL
    }
}

/// A refusal: the column, counted from 1 in characters, and the rule.
type Refusal = (usize, String);

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn reference(mut self) -> Result<Reference, Refusal> {
        let start = self.at;
        if self.text.len() - start + PREFIX.len() > MAX_REFERENCE {
            return Err((1, format!("a reference has at most {MAX_REFERENCE} bytes")));
        }
        let scope_end = self.scope()?;
        let mut segments = 1;
        let mut staged = false;
        while self.take('/') {
            if staged {
                return self.refuse(format!("only the last segment can end in {STAGED}"));
            }
            segments += 1;
            if segments > MAX_SEGMENTS {
                return self.refuse(format!("a reference has at most {MAX_SEGMENTS} segments"));
            }
            self.segment("a name")?;
            staged = self.staged()?;
        }
        if segments < 2 {
            return self.refuse("a scope is followed by `/` and a name".into());
        }
        let name_end = self.at;
        let version = if self.take('?') {
            Some(self.version()?)
        } else {
            None
        };
        let field = if self.take('#') {
            let field = self.word("a field")?;
            Some(Field(field.into()))
        } else {
            None
        };
        if let Some(found) = self.rest().chars().next() {
            return self.refuse(format!("unexpected {}", quoted(found)));
        }
        let shift = PREFIX.len() - start;
        Ok(Reference {
            text: format!("{PREFIX}{}", &self.text[start..]),
            scope_end: scope_end + shift,
            name_end: name_end + shift,
            version,
            field,
        })
    }

    fn scope(&mut self) -> Result<usize, Refusal> {
        self.take('@');
        self.segment("a scope")?;
        if self.rest().starts_with('~') {
            return self.refuse("`~` is reserved, and not part of a scope".into());
        }
        Ok(self.at)
    }

    fn segment(&mut self, what: &str) -> Result<(), Refusal> {
        let start = self.at;
        if self.rest().starts_with('-') {
            return self.refuse(format!("{what} does not start with `-`"));
        }
        let segment = self.word(what)?;
        if segment == "." || segment == ".." {
            self.at = start;
            return self.refuse(format!("{what} is not `.` or `..`"));
        }
        Ok(())
    }

    fn staged(&mut self) -> Result<bool, Refusal> {
        if !self.rest().starts_with('~') {
            return Ok(false);
        }
        let after = self.rest().strip_prefix(STAGED);
        if !after.is_some_and(|after| after.is_empty() || after.starts_with(['/', '?', '#'])) {
            return self.refuse(format!("`~` is reserved: only {STAGED} can follow a name"));
        }
        self.at += STAGED.len();
        Ok(true)
    }

    fn version(&mut self) -> Result<Version, Refusal> {
        const KEY: &str = "version=";
        if !self.rest().starts_with(KEY) {
            return self.refuse("`?` is followed by `version=`, and nothing else".into());
        }
        self.at += KEY.len();
        self.word("a version")
            .map(|version| Version(version.into()))
    }

    fn word(&mut self, what: &str) -> Result<&'a str, Refusal> {
        let rest = self.rest();
        match word_end(rest) {
            Ok(0) => {
                let rule = match rest.chars().next() {
                    Some(found) if !matches!(found, '/' | '?' | '#') => {
                        format!("{what} is made of [A-Za-z0-9._-], not {}", quoted(found))
                    }
                    _ => format!("{what} is missing"),
                };
                self.refuse(rule)
            }
            Ok(end) => {
                self.at += end;
                match self.rest().chars().next() {
                    None | Some('/' | '?' | '#' | '~') => Ok(&rest[..end]),
                    Some(found) => self.refuse(format!(
                        "{what} is made of [A-Za-z0-9._-], not {}",
                        quoted(found)
                    )),
                }
            }
            Err(()) => self.refuse(format!("{what} has at most {MAX_SEGMENT} characters")),
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += usize::from(found);
        found
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn refuse<T>(&self, rule: String) -> Result<T, Refusal> {
        Err((self.text[..self.at].chars().count() + 1, rule))
    }
}

/// How far the text's first word goes, or `Err` past its greatest length.
fn word_end(text: &str) -> Result<usize, ()> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let end = text
        .bytes()
        .position(|byte| !word(byte))
        .unwrap_or(text.len());
    if end > MAX_SEGMENT { Err(()) } else { Ok(end) }
}

fn quoted(found: char) -> String {
    if misleads(found) {
        format!("U+{:04X}", found as u32)
    } else {
        format!("`{found}`")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_come_apart() {
        let reference = Reference::parse("web01/luks/root?version=3.a#pass").expect("valid");
        assert_eq!(reference.scope(), "web01");
        assert_eq!(reference.name(), "luks/root");
        assert_eq!(reference.subject(), "web01/luks/root");
        assert_eq!(reference.version().map(Version::as_str), Some("3.a"));
        assert_eq!(reference.field().map(Field::as_str), Some("pass"));
        assert_eq!(
            reference.to_string(),
            "secret:web01/luks/root?version=3.a#pass"
        );
        assert_eq!(
            reference,
            Reference::parse(reference.as_str()).expect("canonical")
        );
    }

    #[test]
    fn a_version_or_field_is_never_empty() {
        assert!(Version::new("").is_err() && Field::new("").is_err());
        assert!(Version::new("1").is_ok() && Field::new("a").is_ok());
    }

    #[test]
    fn staged_values_and_shared_scopes_parse() {
        assert!(
            Reference::parse("web01/root~next")
                .expect("staged")
                .is_staged()
        );
        assert_eq!(
            Reference::parse("@site/tls").expect("shared").scope(),
            "@site"
        );
    }

    #[test]
    fn refusals_name_column_and_rule() {
        for (text, column, rule) in [
            ("", 1, "scope is missing"),
            ("web01", 6, "followed by `/`"),
            ("web01/", 7, "name is missing"),
            ("web 01/root", 4, "not ` `"),
            ("web01//root", 7, "name is missing"),
            ("web01/../root", 7, "not `.` or `..`"),
            ("secret:-web/root", 8, "does not start with `-`"),
            ("web01/@root", 7, "not `@`"),
            ("web01/root~old", 11, "reserved"),
            ("we~next/root", 3, "reserved"),
            ("web01/a~next/b", 14, "only the last segment"),
            ("web01/root?v=1", 12, "version="),
            ("web01/root#", 12, "field is missing"),
            ("web01/root#a#b", 13, "unexpected `#`"),
            ("web01/r\u{f6}ot", 8, "not `\u{f6}`"),
            ("a/b/c/d/e/f/g/h/i", 17, "at most 8 segments"),
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
            assert!(error.message().contains(rule), "{text}: {error}");
            assert!(
                error.message().contains(&format!("column {column} ")),
                "{text}: {error}"
            );
        }
        assert!(Reference::parse(&format!("a/{}", "b".repeat(128))).is_ok());
        assert!(Reference::parse(&format!("a/{}", "b".repeat(129))).is_err());
        let long = vec!["b".repeat(100); 6].join("/");
        assert!(
            Reference::parse(&long)
                .expect_err("long")
                .message()
                .contains("512 bytes")
        );
    }

    /// The UUIDs are a promise to libvirt domains; these values must never change.
    #[test]
    fn uuids_are_fixed_and_of_version_5() {
        let uuid = Reference::parse("web01/root-disk").expect("valid").uuid();
        // Made with Python: uuid.uuid5(NAMESPACE, "secret:web01/root-disk").
        assert_eq!(uuid.to_string(), "cdda8ef1-3617-5d78-b351-9e582c60e06f");
        assert_eq!(
            uuid,
            Reference::parse("secret:web01/root-disk")
                .expect("valid")
                .uuid()
        );
        assert_ne!(
            uuid,
            Reference::parse("web01/root-disk#a").expect("valid").uuid()
        );
    }

    proptest! {
        #[test]
        fn printing_and_parsing_round_trip(
            text in "(secret:)?@?[A-Za-z0-9._][A-Za-z0-9._-]{0,20}(/[A-Za-z0-9._][A-Za-z0-9._-]{0,20}){1,7}(~next)?(\\?version=[A-Za-z0-9._-]{1,20})?(#[A-Za-z0-9._-]{1,20})?"
        ) {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(reference.as_str()).expect("canonical"), &reference);
                prop_assert_eq!(reference.short(), text.strip_prefix("secret:").unwrap_or(&text));
            } else {
                prop_assert!(text.split(['/', ':', '?', '#', '~']).any(|s| s == "." || s == ".." || s == "@." || s == "@.."));
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = Reference::parse(&text);
        }
    }
}
