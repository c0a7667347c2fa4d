//! Paths in a store.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// Where a secret is in a store: `/`-separated segments, opaque and case-sensitive.
///
/// A path has no empty segment, no `.` or `..`, no leading or trailing `/`, no control character,
/// and at most 1024 bytes. The root, which only `list` takes, is the empty path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretPath(String);

impl SecretPath {
    /// The longest path, in bytes.
    pub const MAX: usize = 1024;

    /// Reads a path.
    ///
    /// # Errors
    /// `InvalidReference` with the rule.
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let refuse = |rule: &'static str| Err(Error::new(ErrorKind::InvalidReference, rule));
        if path.len() > Self::MAX {
            return refuse("a path has at most 1024 bytes");
        }
        if path.chars().any(char::is_control) {
            return refuse("a path has no control characters");
        }
        if path.split('/').any(str::is_empty) {
            return refuse("a path has no empty segments and does not start or end with `/`");
        }
        if path
            .split('/')
            .any(|segment| segment == "." || segment == "..")
        {
            return refuse("a path has no `.` or `..` segments");
        }
        Ok(Self(path))
    }

    /// The root of a store, for `list`.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// This path with one more segment.
    ///
    /// # Errors
    /// `InvalidReference` where `segment` cannot be one.
    pub fn join(&self, segment: &str) -> Result<Self> {
        if self.is_root() {
            Self::new(segment)
        } else {
            Self::new(format!("{}/{segment}", self.0))
        }
    }

    /// Whether this path lies below `prefix`, by whole segments. Everything lies below the root.
    pub fn is_below(&self, prefix: &SecretPath) -> bool {
        prefix.is_root()
            || self
                .0
                .strip_prefix(&prefix.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for SecretPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_escape_or_hide_is_refused() {
        for path in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "a/../b",
            "a\nb",
            "a\0b",
            &"a/".repeat(600),
        ] {
            let error = SecretPath::new(path).expect_err(path);
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
        }
        assert!(SecretPath::new("vms/web 01/röot~next").is_ok());
    }

    #[test]
    fn below_is_by_whole_segments() {
        let path = |text: &str| SecretPath::new(text).expect("valid");
        assert!(path("a/b").is_below(&path("a")));
        assert!(!path("ab/c").is_below(&path("a")));
        assert!(!path("a").is_below(&path("a")));
        assert!(path("a").is_below(&SecretPath::root()));
    }
}
