//! What a plugin answers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64ct::{Base64, Encoding as _};
use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Lease, Metadata, Result, SecretBytes, Version, json};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::broken;

/// One line of a plugin, not yet looked into: the value stands where it came.
#[derive(Deserialize)]
pub(crate) struct Answer<'l> {
    pub(crate) id: u64,
    /// Which of many paths it is about.
    pub(crate) index: Option<usize>,
    #[serde(borrow)]
    value: Option<&'l RawValue>,
    #[serde(borrow)]
    base64: Option<&'l RawValue>,
    #[serde(borrow)]
    error: Option<Refusal<'l>>,
    metadata: Option<Known>,
    secrets: Option<Vec<String>>,
    folders: Option<Vec<String>>,
    next: Option<String>,
}

/// What a plugin answered, as far as it did.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) value: Option<SecretBytes>,
    pub(crate) metadata: Metadata,
    pub(crate) secrets: Vec<String>,
    pub(crate) folders: Vec<String>,
    pub(crate) next: Option<String>,
}

impl<'l> Answer<'l> {
    /// Reads a line.
    ///
    /// # Errors
    /// `Internal` where it is no answer. Never shows what was found.
    pub(crate) fn parse(line: &'l [u8]) -> Result<Self> {
        serde_json::from_slice(line).map_err(|error| {
            let column = error.column();
            broken(format!("a line is no answer, at column {column}"))
        })
    }

    /// What it says. The plugin's own words in an error go through `clean`.
    ///
    /// # Errors
    /// The plugin's own; `Corrupt` where a value or its metadata are not as they should be.
    pub(crate) fn reply(self, clean: impl Fn(&[u8]) -> String) -> Result<Reply> {
        if let Some(refusal) = self.error {
            return Err(refusal.error(clean)?);
        }
        let value = match (self.value, self.base64) {
            (Some(_), Some(_)) => return Err(corrupt("the answer has its value twice")),
            (Some(text), None) => Some(text_of(text)?),
            (None, Some(base64)) => Some(decoded(text_of(base64)?)?),
            (None, None) => None,
        };
        Ok(Reply {
            value,
            metadata: self
                .metadata
                .map_or(Ok(Metadata::default()), Known::metadata)?,
            secrets: self.secrets.unwrap_or_default(),
            folders: self.folders.unwrap_or_default(),
            next: self.next,
        })
    }
}

fn text_of(raw: &RawValue) -> Result<SecretBytes> {
    json::unescape(raw.get())?.ok_or_else(|| corrupt("the answer has something else for a text"))
}

fn decoded(text: SecretBytes) -> Result<SecretBytes> {
    let text = text.expose();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let len = (text.len() / 4 * 3).saturating_sub(padding);
    SecretBytes::try_init_with(len, |bytes| match Base64::decode(text, bytes) {
        Ok(all) if all.len() == len => Ok(()),
        _ => Err(corrupt("the answer's value is not base64")),
    })
}

/// The longest that a plugin can ask to be left alone, or a lease to last: who adds it to a time must
/// not come to the end of time.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const LONGEST_LEASE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A plugin's refusal. Its words can hold a value by mistake, and so are read like one.
#[derive(Deserialize)]
struct Refusal<'l> {
    kind: String,
    #[serde(borrow)]
    message: Option<&'l RawValue>,
    #[serde(borrow)]
    advice: Option<&'l RawValue>,
    /// Milliseconds.
    #[serde(default, rename = "retry-after-ms")]
    retry_after: Option<u64>,
}

impl Refusal<'_> {
    /// What it refuses with.
    ///
    /// # Errors
    /// `Corrupt` where its words are no text.
    fn error(self, clean: impl Fn(&[u8]) -> String) -> Result<Error> {
        let words: Vec<_> = self.kind.split('-').map(capital).collect();
        let kind = ErrorKind::from_name(&words.concat());
        let words = |raw: Option<&RawValue>| -> Result<Option<String>> {
            let text = raw.map(text_of).transpose()?;
            Ok(text
                .filter(|text| !text.is_empty())
                .map(|text| clean(text.expose())))
        };
        let message = words(self.message)?;
        let message = message.unwrap_or_else(|| "the plugin gives no reason".to_owned());
        let mut error = Error::new(kind.unwrap_or(ErrorKind::Internal), message);
        if let Some(advice) = words(self.advice)? {
            error = error.with_advice(advice);
        }
        Ok(match self.retry_after {
            Some(wait) => error.with_retry_after(Duration::from_millis(wait).min(LONGEST_WAIT)),
            None => error,
        })
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Metadata as it travels.
#[derive(Deserialize)]
struct Known {
    version: Option<String>,
    created: Option<Timestamp>,
    expires: Option<Timestamp>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    lease: Option<Lent>,
}

#[derive(Deserialize)]
struct Lent {
    id: String,
    seconds: u64,
    #[serde(default)]
    renewable: bool,
}

impl Known {
    fn metadata(self) -> Result<Metadata> {
        let version = self.version.map(Version::new).transpose();
        let version = version.map_err(|_| corrupt("the answer holds a version that is none"))?;
        let mut metadata = Metadata::new(version);
        metadata.created = self.created.map(SystemTime::from);
        metadata.expires = self.expires.map(SystemTime::from);
        metadata.labels = self.labels;
        metadata.lease = self.lease.map(|lent| {
            let lasts = Duration::from_secs(lent.seconds).min(LONGEST_LEASE);
            Lease::new(lent.id, lasts, lent.renewable)
        });
        Ok(metadata)
    }
}

fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what).with_advice("tell the plugin's author")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(words: &[u8]) -> String {
        String::from_utf8_lossy(words).into_owned()
    }

    fn reply(line: &str) -> Result<Reply> {
        Answer::parse(line.as_bytes())?.reply(shown)
    }

    fn value(line: &str) -> Vec<u8> {
        let value = reply(line).expect(line).value.expect(line);
        value.expose().to_vec()
    }

    #[test]
    fn values_come_as_text_or_as_base64() {
        assert_eq!(
            value(r#"{"id":1,"value":"a\"\u00e9\n"}"#),
            "a\"é\n".as_bytes()
        );
        assert_eq!(
            value(r#"{"id":1,"base64":"AGh1bnRlcjL/"}"#),
            b"\0hunter2\xff"
        );
        // As some libraries write it.
        assert_eq!(
            value(r#"{"id":1,"base64":"AGh1bnRlcjL\/"}"#),
            b"\0hunter2\xff"
        );
        assert_eq!(value(r#"{"id":1,"base64":"AP8="}"#), [0, 255]);
        assert_eq!(value(r#"{"id":1,"base64":"AA=="}"#), [0]);
        assert_eq!(value(r#"{"id":1,"value":""}"#), b"");
        assert_eq!(value(r#"{"id":1,"base64":""}"#), b"");
        assert!(
            reply(r#"{"id":1,"value":null}"#)
                .expect("one")
                .value
                .is_none()
        );
    }

    #[test]
    fn a_value_that_is_none_is_corrupt_and_not_shown() {
        for line in [
            r#"{"id":1,"value":"hunter2","base64":"aHVudGVyMg=="}"#,
            r#"{"id":1,"value":["hunter2"]}"#,
            r#"{"id":1,"value":"hunter2\ud800"}"#,
            r#"{"id":1,"base64":"hunter2"}"#,
            r#"{"id":1,"base64":"hunter2="}"#,
            r#"{"id":1,"base64":"===="}"#,
            r#"{"id":1,"base64":"="}"#,
            r#"{"id":1,"value":"x","metadata":{"version":"hunter2 \u0000"}}"#,
        ] {
            let error = reply(line).expect_err(line);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{line}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_is_no_answer_breaks_the_protocol_and_is_not_shown() {
        for line in [
            "",
            "hunter2",
            "[1]",
            "{}",
            r#"{"id":-1}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"id":1,"value":"hunter2","value":"hunter2"}"#,
            r#"{"id":1,"value":"hunter2"#,
            r#"{"id":1,"value":"hunter2"} {}"#,
            r#"{"id":1,"error":"hunter2"}"#,
        ] {
            let error = Answer::parse(line.as_bytes()).err().expect(line);
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        assert!(Answer::parse(b"{\"id\":1,\"value\":\"\xff\"}").is_err());
    }

    #[test]
    fn refusals_have_the_kinds_of_every_store() {
        for kind in ErrorKind::ALL {
            let words = kind.name().chars().flat_map(|letter| {
                let dash = letter.is_ascii_uppercase().then_some('-');
                dash.into_iter().chain([letter.to_ascii_lowercase()])
            });
            let word: String = words.skip(1).collect();
            let line = format!(r#"{{"id":1,"error":{{"kind":"{word}","message":"why"}}}}"#);
            assert_eq!(reply(&line).expect_err("refused").kind(), *kind, "{word}");
        }
        let line = r#"{"id":1,"error":{"kind":"odd","advice":"a","retry-after-ms":1500}}"#;
        let error = reply(line).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.advice(), Some("a"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        let line = r#"{"id":1,"error":{"kind":"odd","retry-after-ms":18446744073709551615}}"#;
        let error = reply(line).expect_err("refused");
        assert_eq!(error.retry_after(), Some(LONGEST_WAIT));
    }

    proptest! {
        #[test]
        fn no_line_makes_the_host_panic(line: Vec<u8>, text in "\\PC*") {
            for value in [&line[..], text.as_bytes()] {
                if let Ok(answer) = Answer::parse(value) {
                    let _ = answer.reply(shown);
                }
            }
        }

        /// Held against serde_json's writing.
        #[test]
        fn any_text_comes_back(text: String, bytes: Vec<u8>) {
            let line = serde_json::json!({"id": 1, "value": text}).to_string();
            prop_assert_eq!(value(&line), text.as_bytes());
            let base64 = Base64::encode_string(&bytes);
            let line = serde_json::json!({"id": 1, "base64": base64}).to_string();
            prop_assert_eq!(value(&line), bytes);
        }
    }
}
