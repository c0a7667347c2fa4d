//! What the host writes.
//!
//! No string in such a line has a quote or a backslash in it, but `\u0022` and `\u005c`: a script
//! finds a string's end at the next quote, and needs no JSON parser. A value stands last.

use std::fmt::Write as _;
use std::time::SystemTime;

use base64ct::{Base64, Encoding as _};
use jiff::Timestamp;
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{Error, ErrorKind, Request, Result, SecretBytes};

use super::VERSION;

/// A line that is being written.
#[derive(Clone)]
pub(crate) struct Line {
    body: String,
    wants: Wants,
}

/// What the answer to a request may hold. What else is in it is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Metadata,
    Nothing,
    Page,
    /// With its metadata.
    Value,
}

impl Line {
    /// A request to do `what`. Its id is put in front when it is sent.
    pub(crate) fn new(what: &str) -> Self {
        let wants = match what {
            "get" | "get-many" => Wants::Value,
            "generate" | "put" | "stat" => Wants::Metadata,
            "list" => Wants::Page,
            _ => Wants::Nothing,
        };
        let body = format!(",\"do\":\"{what}\"");
        Self { body, wants }
    }

    /// What its answer may hold.
    pub(crate) fn wants(&self) -> Wants {
        self.wants
    }

    /// A text.
    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        quote(&mut self.body, value);
        self
    }

    /// A text, where there is one.
    pub(crate) fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Texts.
    pub(crate) fn texts<'t>(
        mut self,
        key: &str,
        values: impl IntoIterator<Item = &'t str>,
    ) -> Self {
        self.key(key);
        list(&mut self.body, values);
        self
    }

    /// Pairs of texts, where there are any.
    pub(crate) fn pairs<'t>(
        mut self,
        key: &str,
        pairs: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) -> Self {
        let mut pairs = pairs.into_iter().peekable();
        if pairs.peek().is_none() {
            return self;
        }
        self.key(key);
        object(&mut self.body, pairs, quote);
        self
    }

    /// A number.
    pub(crate) fn number(mut self, key: &str, value: u128) -> Self {
        self.key(key);
        self.body.push_str(&value.to_string());
        self
    }

    /// A number, where there is one.
    pub(crate) fn maybe_number(self, key: &str, value: Option<u128>) -> Self {
        match value {
            Some(value) => self.number(key, value),
            None => self,
        }
    }

    /// A truth, where it is one.
    pub(crate) fn flag(mut self, key: &str, value: bool) -> Self {
        if value {
            self.key(key);
            self.body.push_str("true");
        }
        self
    }

    /// A time, where there is one.
    pub(crate) fn time(self, key: &str, value: Option<SystemTime>) -> Self {
        let time = value.and_then(|time| Timestamp::try_from(time).ok());
        self.maybe(key, time.map(|time| time.to_string()).as_deref())
    }

    /// Who asks.
    pub(crate) fn asker(self, request: &Request) -> Self {
        self.maybe("request", request.id.as_deref())
            .maybe("actor", request.actor.as_deref())
    }

    /// The whole line, newline included, with `value` at its end.
    ///
    /// # Errors
    /// `Internal` where the value is too long to encode.
    pub(crate) fn finish(self, id: u64, value: Option<&SecretBytes>) -> Result<SecretBytes> {
        let head = format!("{{\"id\":{id}{}", self.body);
        let Some(value) = value else {
            return Ok(SecretBytes::copy_from(format!("{head}}}\n").as_bytes()));
        };
        let head = format!("{head},\"base64\":\"");
        let (value, tail) = (value.expose(), b"\"}\n");
        let encoded = Base64::encoded_len(value);
        let len = head.len() + encoded + tail.len();
        SecretBytes::try_init_with(len, |line| {
            let (front, rest) = line.split_at_mut(head.len());
            let (middle, back) = rest.split_at_mut(encoded);
            front.copy_from_slice(head.as_bytes());
            back.copy_from_slice(tail);
            match Base64::encode(value, middle) {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::new(
                    ErrorKind::Internal,
                    "the value is too long to encode",
                )),
            }
        })
    }

    fn key(&mut self, key: &str) {
        self.body.push(',');
        quote(&mut self.body, key);
        self.body.push(':');
    }
}

/// The host's first line. Credentials among the options are by their sources.
pub(crate) fn hello(store: &str, options: Option<&Options>) -> SecretBytes {
    let mut line = format!("{{\"keyhaul\":{VERSION},\"store\":");
    quote(&mut line, store);
    line.push_str(",\"options\":");
    table(&mut line, options.unwrap_or(&Options::default()));
    line.push_str("}\n");
    SecretBytes::copy_from(line.as_bytes())
}

/// That nobody waits any more for the answer to a request.
pub(crate) fn cancel(id: u64) -> SecretBytes {
    SecretBytes::copy_from(format!("{{\"cancel\":{id}}}\n").as_bytes())
}

fn table(out: &mut String, options: &Options) {
    let pairs = options.0.iter().map(|(name, o)| (name.as_str(), &o.value));
    object(out, pairs, |out, value| match value {
        Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Integer(value) => out.push_str(&value.to_string()),
        Value::Text(value) => quote(out, value),
        Value::Texts(values) => list(out, values.iter().map(String::as_str)),
        Value::Table(options) => table(out, options),
        // A kind of TOML that core learns later.
        _ => out.push_str("null"),
    });
}

fn object<'t, T>(
    out: &mut String,
    pairs: impl IntoIterator<Item = (&'t str, T)>,
    each: impl Fn(&mut String, T),
) {
    out.push('{');
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        quote(out, key);
        out.push(':');
        each(out, value);
    }
    out.push('}');
}

fn list<'t>(out: &mut String, values: impl IntoIterator<Item = &'t str>) {
    out.push('[');
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        quote(out, value);
    }
    out.push(']');
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' | '\0'..='\x1f' | '\x7f' => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    fn read(line: &SecretBytes) -> Json {
        let text = line.expose().strip_suffix(b"\n").expect("a newline");
        assert!(!text.contains(&b'\n'), "one line");
        serde_json::from_slice(text).expect("JSON")
    }

    #[test]
    fn a_value_stands_last_and_as_base64() {
        let value = SecretBytes::copy_from(b"\0hunter2\xff");
        let line = Line::new("put").text("path", "a/b").finish(7, Some(&value));
        assert_eq!(
            line.expect("encodes").expose(),
            b"{\"id\":7,\"do\":\"put\",\"path\":\"a/b\",\"base64\":\"AGh1bnRlcjL/\"}\n"
        );
    }

    #[test]
    fn options_travel_as_they_are_in_the_policy() {
        let options = [
            ("list", Value::Texts(vec!["a".into(), "b".into()])),
            ("number", Value::Integer(-3)),
            ("table", Options::at("", [("deep", true)]).into()),
            ("text", "file:/x".into()),
        ];
        let options = Options::at("", options);
        assert_eq!(
            read(&hello("odd", Some(&options))),
            serde_json::json!({"keyhaul": 1, "store": "odd", "options":
                {"list": ["a", "b"], "number": -3, "table": {"deep": true}, "text": "file:/x"}})
        );
        assert_eq!(read(&hello("odd", None))["options"], serde_json::json!({}));
    }

    proptest! {
        /// Held against serde_json's reading. What a script relies on: the next quote is the end.
        #[test]
        fn any_text_travels_and_ends_at_the_next_quote(text: String) {
            let line = Line::new("get").text("path", &text).finish(1, None).expect("no value");
            let json = read(&line);
            prop_assert_eq!(json["path"].as_str(), Some(text.as_str()));
            let line = String::from_utf8(line.expose().to_vec()).expect("text");
            let (_, rest) = line.split_once("\"path\":\"").expect("there");
            let token = rest.split('"').next().expect("a token");
            let again: String = serde_json::from_str(&format!("\"{token}\"")).expect("a string");
            prop_assert_eq!(again, text);
        }
    }
}
