//! The environment that Vault's and OpenBao's own clients read.
//!
//! Every `VAULT_X` has a `BAO_X`, which wins where it is set, even to nothing: an empty `BAO_ADDR`
//! hides `VAULT_ADDR` and is itself as if unset, as OpenBao's own client has it.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use keyhaul_core::registry::parse_duration;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, wipe};

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Where variables are looked up: the process's environment, or a test's.
pub(crate) struct Environment(Box<Lookup>);

/// A variable that is set, and not to nothing.
pub(crate) struct Variable {
    /// Its full name, as `BAO_ADDR`.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

impl Environment {
    /// The process's own.
    pub(crate) fn process() -> Self {
        Self::new(|name| std::env::var_os(name))
    }

    /// One that asks `lookup`.
    pub(crate) fn new(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self(Box::new(lookup))
    }

    /// One with these variables and no others.
    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let variables: std::collections::BTreeMap<String, OsString> = variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), OsString::from(text)))
            .collect();
        Self::new(move |name| variables.get(name).cloned())
    }

    /// `BAO_X` or else `VAULT_X`, for a `short` name like `ADDR`.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no text.
    pub(crate) fn vault(&self, short: &str) -> Result<Option<Variable>> {
        match self.source(short) {
            Some(name) => self.plain(&name),
            None => Ok(None),
        }
    }

    /// The full name of the variable that counts for a `short` name, where it is not empty.
    pub(crate) fn source(&self, short: &str) -> Option<String> {
        ["BAO", "VAULT"]
            .into_iter()
            .map(|prefix| format!("{prefix}_{short}"))
            .find_map(|name| (self.0)(&name).map(|text| (name, text)))
            .and_then(|(name, text)| {
                let filled = !text.is_empty();
                wipe(&mut text.into_vec());
                filled.then_some(name)
            })
    }

    /// A variable that holds a secret. The environment's own copy stays where it is.
    pub(crate) fn secret(&self, short: &str) -> Option<SecretBytes> {
        let text = (self.0)(&self.source(short)?)?;
        let value = SecretBytes::copy_from(text.as_bytes());
        wipe(&mut text.into_vec());
        Some(value)
    }

    /// A variable by its full name.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no text.
    pub(crate) fn plain(&self, name: &str) -> Result<Option<Variable>> {
        let Some(text) = (self.0)(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let text = text.into_string().map_err(|_| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("${name} is no UTF-8 text"),
            )
        })?;
        let name = name.to_owned();
        Ok(Some(Variable { name, text }))
    }
}

impl Variable {
    /// Its truth, as Go's clients read it.
    ///
    /// # Errors
    /// `InvalidConfig` with what it takes.
    pub(crate) fn boolean(&self) -> Result<bool> {
        match self.text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.refused("is true or false")),
        }
    }

    /// Its number.
    ///
    /// # Errors
    /// `InvalidConfig` with what it takes.
    pub(crate) fn integer(&self) -> Result<u32> {
        self.text
            .parse()
            .map_err(|_| self.refused("is a whole number"))
    }

    /// Its duration: `60`, `60s`, `500ms`, `2m`, `1m30s`.
    ///
    /// # Errors
    /// `InvalidConfig` with what it takes.
    pub(crate) fn duration(&self) -> Result<Duration> {
        if let Ok(seconds) = self.text.parse() {
            return Ok(Duration::from_secs(seconds));
        }
        added_up(&self.text).ok_or_else(|| {
            self.refused("is a number of seconds or a duration like 500ms, 60s or 1m30s")
        })
    }

    /// The error for a text that is none of what `rule` says. The text is not repeated.
    pub(crate) fn refused(&self, rule: &str) -> Error {
        Error::new(ErrorKind::InvalidConfig, format!("${} {rule}", self.name))
            .with_advice(format!("mend or unset {}", self.name))
    }
}

impl fmt::Debug for Variable {
    /// Its name: a proxy's address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variable({})", self.name)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// A duration as Go writes it, in parts: `1m30s`.
fn added_up(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    loop {
        let unit = text.find(|letter: char| !letter.is_ascii_digit())?;
        let length = text[unit..].find(|letter: char| letter.is_ascii_digit());
        let (part, rest) = text.split_at(length.map_or(text.len(), |length| unit + length));
        sum = sum.checked_add(parse_duration(part)?)?;
        if rest.is_empty() {
            return Some(sum);
        }
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(environment: &Environment, short: &str) -> Option<String> {
        let variable = environment.vault(short).expect("text");
        variable.map(|variable| format!("{}={}", variable.name, variable.text))
    }

    #[test]
    fn bao_wins_over_vault_even_when_it_is_empty() {
        let both = Environment::of(&[("BAO_ADDR", "b"), ("VAULT_ADDR", "v")]);
        assert_eq!(text(&both, "ADDR").as_deref(), Some("BAO_ADDR=b"));
        let hidden = Environment::of(&[("BAO_ADDR", ""), ("VAULT_ADDR", "v")]);
        assert_eq!(text(&hidden, "ADDR"), None);
        let alone = Environment::of(&[("VAULT_ADDR", "v")]);
        assert_eq!(text(&alone, "ADDR").as_deref(), Some("VAULT_ADDR=v"));
        assert_eq!(alone.source("TOKEN"), None);
        assert!(alone.secret("ADDR") == Some(SecretBytes::copy_from(b"v")));
    }

    #[test]
    fn what_is_no_truth_number_or_duration_is_refused_by_name_and_not_repeated() {
        let wrong = Variable {
            name: "VAULT_SKIP_VERIFY".into(),
            text: "hunter2".into(),
        };
        for error in [
            wrong.boolean().map(drop),
            wrong.integer().map(drop),
            wrong.duration().map(drop),
        ] {
            let error = error.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains("$VAULT_SKIP_VERIFY"), "{error}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
        let seconds = Variable {
            name: "VAULT_CLIENT_TIMEOUT".into(),
            text: "90".into(),
        };
        assert_eq!(seconds.duration().expect("read"), Duration::from_secs(90));
        for (text, expected) in [
            ("1m30s", Some(Duration::from_secs(90))),
            ("1h0m0s", Some(Duration::from_secs(3600))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1m30", None),
            ("m", None),
            ("1é2s", None),
            (
                "18446744073709551615ms18446744073709551615ms",
                Some(Duration::from_millis(u64::MAX) * 2),
            ),
        ] {
            assert_eq!(added_up(text), expected, "{text}");
        }
        assert!(!format!("{wrong:?}").contains("hunter2"));
    }
}
