//! What stands behind the `?`.

use std::collections::BTreeMap;

use keyhaul_core::Result;
use url::form_urlencoded;

use crate::protocol::{Paging, limit};
use crate::server::failure::invalid;

/// The parameters of a GET, each of them known and there once at most.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads them.
    ///
    /// # Errors
    /// `InvalidReference` with what is known.
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self> {
        let mut query = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&&*key) {
                let known = match known {
                    [] => "none".to_owned(),
                    known => known.join(", "),
                };
                return Err(invalid(format!(
                    "unknown parameter {key:?}; known are: {known}"
                )));
            }
            if query.insert(key.to_string(), value.into_owned()).is_some() {
                return Err(invalid(format!("the parameter `{key}` is there twice")));
            }
        }
        Ok(Self(query))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A parameter that has to be there.
    ///
    /// # Errors
    /// `InvalidReference` where it is not.
    pub(super) fn needed(&self, key: &str) -> Result<&str> {
        self.text(key)
            .ok_or_else(|| invalid(format!("the parameter `{key}` is missing")))
    }

    /// `true` or `false`; the latter where nobody says.
    ///
    /// # Errors
    /// `InvalidReference` for anything else.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        match self.text(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(format!("`{key}` is true or false"))),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// `InvalidReference` for anything else.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(invalid(format!("`{key}` is a whole number"))),
        }
    }

    /// How many entries the page may have: [`limit::PAGE`] where nobody says, and at most.
    ///
    /// # Errors
    /// `InvalidReference` for none at all.
    pub(super) fn limit(&self) -> Result<usize> {
        match self.number("limit")? {
            None => Ok(limit::PAGE),
            Some(0) => Err(invalid("`limit` is 1 at least")),
            Some(number) => Ok(usize::try_from(number).map_or(limit::PAGE, |n| n.min(limit::PAGE))),
        }
    }

    /// The page that is asked for.
    ///
    /// # Errors
    /// As [`limit`](Self::limit).
    pub(super) fn page(&self) -> Result<Paging> {
        Ok(Paging {
            limit: Some(self.limit()?),
            after: self.text("after").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        let known = &["scope", "limit"];
        let query = Query::parse("scope=%40site&limit=5", known).expect("sound");
        assert_eq!(query.text("scope"), Some("@site"));
        assert_eq!(query.limit().ok(), Some(5));
        for text in ["scop=a", "scope=a&scope=a", "=", "a"] {
            assert!(Query::parse(text, known).is_err(), "{text}");
        }
        for text in ["limit=0", "limit=-1", "limit=+1", "limit=", "limit=x"] {
            let query = Query::parse(text, known).expect(text);
            assert!(query.limit().is_err(), "{text}");
        }
        let query = Query::parse("limit=99999999", known).expect("much");
        assert_eq!(query.limit().ok(), Some(limit::PAGE));
    }
}
