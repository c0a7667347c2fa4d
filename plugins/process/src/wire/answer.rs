//! What a plugin answers.

use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use keyhaul_core::{Error, ErrorKind, Metadata, Result, SecretBytes, json};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Wants;
use super::known::{self, corrupt, read};
use crate::error::broken;
use crate::law::fits;

/// The longest message or advice that is looked into, as it stands in the line.
const LONGEST_WORDS: usize = 16 * 1024;

/// One line of a plugin, not yet looked into: what it holds stands where it came. So whatever is
/// wrong with a part of it is wrong with that answer, and what was not asked for costs nothing.
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
    error: Option<&'l RawValue>,
    #[serde(borrow)]
    metadata: Option<&'l RawValue>,
    #[serde(borrow)]
    secrets: Option<&'l RawValue>,
    #[serde(borrow)]
    folders: Option<&'l RawValue>,
    #[serde(borrow)]
    next: Option<&'l RawValue>,
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

impl Reply {
    /// How many bytes it keeps, as far as the plugin decides that.
    pub(crate) fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, SecretBytes::len);
        value + self.metadata.size()
    }
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

    /// What it says of what the request `wants`. The plugin's own words in an error go through
    /// `clean`.
    ///
    /// # Errors
    /// The plugin's own; `Corrupt` where a part is not as it should be, by its key; `TooLarge` where
    /// the value has more than `max_value` bytes.
    pub(crate) fn reply(
        self,
        wants: Wants,
        max_value: usize,
        clean: impl Fn(&[u8]) -> String,
    ) -> Result<Reply> {
        let form = "an object with a `kind`, each key once";
        if let Some(refusal) = read::<Refusal<'_>>("error", form, self.error)? {
            return Err(refusal.error(clean)?);
        }
        let mut reply = Reply::default();
        match wants {
            Wants::Metadata => reply.metadata = self.metadata()?,
            Wants::Nothing => {}
            Wants::Page => {
                reply.secrets = known::paths("secrets", self.secrets)?;
                reply.folders = known::paths("folders", self.folders)?;
                reply.next = known::cursor(self.next)?;
            }
            Wants::Value => {
                reply.value = self.value(max_value)?;
                reply.metadata = self.metadata()?;
            }
        }
        Ok(reply)
    }

    fn metadata(&self) -> Result<Metadata> {
        known::metadata(self.metadata)
    }

    fn value(&self, max_value: usize) -> Result<Option<SecretBytes>> {
        let value = match (self.value, self.base64) {
            (Some(_), Some(_)) => return Err(corrupt("the answer has its value twice")),
            (Some(text), None) => text_of("value", text)?,
            (None, Some(base64)) => decoded(text_of("base64", base64)?)?,
            (None, None) => return Ok(None),
        };
        fits(value.len(), max_value)?;
        Ok(Some(value))
    }
}

fn text_of(key: &str, raw: &RawValue) -> Result<SecretBytes> {
    json::unescape(raw.get())?.ok_or_else(|| known::wrong(key, "a text"))
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

/// The longest that a plugin can ask to be left alone: who adds it to a time must not come to the end
/// of time.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A plugin's refusal. Its words can hold a value by mistake, and so are read like one.
#[derive(Deserialize)]
struct Refusal<'l> {
    kind: String,
    #[serde(borrow)]
    message: Option<&'l RawValue>,
    #[serde(borrow)]
    advice: Option<&'l RawValue>,
    /// Milliseconds.
    #[serde(rename = "retry-after-ms")]
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
        let words = |key: &str, raw: Option<&RawValue>| -> Result<Option<String>> {
            let Some(raw) = raw else {
                return Ok(None);
            };
            if raw.get().len() > LONGEST_WORDS {
                return Ok(Some(format!(
                    "the plugin's {key} is too long to be looked into"
                )));
            }
            let text = text_of(key, raw)?;
            Ok((!text.is_empty()).then(|| clean(text.expose())))
        };
        let message = words("message", self.message)?;
        let message = message.unwrap_or_else(|| "the plugin gives no reason".to_owned());
        let mut error = Error::new(kind.unwrap_or(ErrorKind::Internal), message);
        if let Some(advice) = words("advice", self.advice)? {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MAX_VALUE;
    use super::*;

    fn shown(words: &[u8]) -> String {
        String::from_utf8_lossy(words).into_owned()
    }

    fn reply(line: &str) -> Result<Reply> {
        reply_to(Wants::Value, line)
    }

    fn reply_to(wants: Wants, line: &str) -> Result<Reply> {
        Answer::parse(line.as_bytes())?.reply(wants, MAX_VALUE, shown)
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
            r#"{"id":1,"error":"hunter2"}"#,
            r#"{"id":1,"error":{"message":"hunter2"}}"#,
            r#"{"id":1,"error":{"kind":"not-found","message":["hunter2"]}}"#,
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

    #[test]
    fn a_refusal_with_endless_words_keeps_its_kind() {
        for (len, shown) in [(LONGEST_WORDS - 2, true), (LONGEST_WORDS - 1, false)] {
            let words = "x".repeat(len);
            let line = format!(
                r#"{{"id":1,"error":{{"kind":"not-found","message":"{words}","advice":"see"}}}}"#
            );
            let error = reply(&line).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert_eq!(error.message() == words, shown, "{len}");
            assert_eq!(error.advice(), Some("see"));
        }
    }

    #[test]
    fn a_value_has_as_many_bytes_as_the_plugin_said_and_no_more() {
        for line in [
            r#"{"id":1,"value":"\u00e9\u00e9"}"#,
            r#"{"id":1,"base64":"AAAAAA=="}"#,
        ] {
            let answer = |most| {
                let answer = Answer::parse(line.as_bytes()).expect(line);
                answer.reply(Wants::Value, most, shown)
            };
            assert_eq!(answer(4).expect(line).value.expect(line).len(), 4);
            assert_eq!(
                answer(3).expect_err(line).kind(),
                ErrorKind::TooLarge,
                "{line}"
            );
        }
    }

    /// Not even looked into: each of these is corrupt where it was asked for.
    #[test]
    fn what_was_not_asked_for_is_left_alone() {
        let all = r#"{"id":1,"value":7,"metadata":7,"secrets":7,"folders":7,"next":7}"#;
        reply_to(Wants::Nothing, all).expect("nothing was asked for");
        for (wants, keys) in [
            (Wants::Metadata, &["metadata"][..]),
            (Wants::Page, &["secrets", "folders", "next"]),
            (Wants::Value, &["value", "metadata"]),
        ] {
            for key in ["value", "metadata", "secrets", "folders", "next"] {
                let answer = reply_to(wants, &format!(r#"{{"id":1,"{key}":7}}"#));
                match keys.contains(&key) {
                    false => drop(answer.expect(key)),
                    true => {
                        let error = answer.expect_err(key);
                        assert_eq!(error.kind(), ErrorKind::Corrupt);
                        assert!(error.message().contains(&format!("`{key}`")), "{error}");
                    }
                }
            }
        }
        let page = r#"{"id":1,"value":"x","secrets":["a"],"folders":["b"],"next":"c"}"#;
        let reply = reply_to(Wants::Page, page).expect("a page");
        assert!(reply.value.is_none());
        assert_eq!(
            (&reply.secrets[..], &reply.folders[..]),
            (&["a".to_owned()][..], &["b".to_owned()][..])
        );
        assert_eq!(reply.next.as_deref(), Some("c"));
        assert!(
            reply_to(Wants::Value, page)
                .expect("a value")
                .secrets
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_line_makes_the_host_panic(line: Vec<u8>, text in "\\PC*") {
            for value in [&line[..], text.as_bytes()] {
                for wants in [Wants::Metadata, Wants::Nothing, Wants::Page, Wants::Value] {
                    if let Ok(answer) = Answer::parse(value) {
                        let _ = answer.reply(wants, 10, shown);
                    }
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
