//! Which scopes a manager or an operator reaches.

use std::fmt;

use keyhaul_core::policy::matches_segment;

/// A pattern of scopes, with `*` for any run of characters.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScopePattern(Box<str>);

impl ScopePattern {
    /// Of every scope.
    pub(super) fn all() -> Self {
        Self("*".into())
    }

    /// Reads one; the error is the rule it breaks.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-*@".contains(c);
        if let Some(found) = text.chars().find(|c| !legal(*c)) {
            return Err(format!(
                "a pattern of scopes has {found:?}, which no scope holds"
            ));
        }
        if text.is_empty() || text.len() > 256 {
            return Err("a pattern of scopes has 1 to 256 characters".into());
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_all(&self) -> bool {
        &*self.0 == "*"
    }

    pub(super) fn matches(&self, scope: &str) -> bool {
        matches_segment(&self.0, scope)
    }
}

impl fmt::Debug for ScopePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
