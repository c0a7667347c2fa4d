//! QEMU's `key=value,…` syntax, and its other spelling as JSON.
//!
//! Two parsers of QEMU share it: `keyval` (`-object`, `-blockdev`), where a key may have dots, and
//! `QemuOpts` (`-drive`, `-vnc`, `-spice`, `-iscsi`, `--image-opts`), where a key without `=` is a
//! flag. In both, the first value may lack its key, a comma in a value is doubled, and the last of
//! several equal keys wins.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde_json::Value;

/// One `key=value` of an option, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key; the implied one for a first value without.
    pub key: &'a [u8],
    /// The value, its commas single again; `None` for a flag.
    pub value: Option<Cow<'a, [u8]>>,
    /// Its bytes in the option, without the comma behind.
    pub range: Range<usize>,
}

/// Takes an option apart, as QEMU does. Every text is an option; what is wrong with it is QEMU's
/// to say.
pub fn pairs<'a>(text: &'a [u8], implied: Option<&'a str>) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let key_end = rest
            .iter()
            .position(|byte| matches!(byte, b'=' | b','))
            .unwrap_or(rest.len());
        let implied = implied.filter(|_| pairs.is_empty());
        let has_value = rest.get(key_end) == Some(&b'=');
        let (key, value_start) = match implied {
            _ if has_value => (&rest[..key_end], Some(key_end + 1)),
            Some(key) => (key.as_bytes(), Some(0)),
            None => (&rest[..key_end], None),
        };
        let (value, end) = match value_start {
            Some(start) => {
                let (value, len) = value(&rest[start..]);
                (Some(value), start + len)
            }
            None => (None, key_end),
        };
        pairs.push(Pair {
            key,
            value,
            range: at..at + end,
        });
        at += end + 1;
    }
    pairs
}

/// A value with its commas doubled.
pub fn escape(value: &str) -> Cow<'_, str> {
    if value.contains(',') {
        Cow::Owned(value.replace(',', ",,"))
    } else {
        Cow::Borrowed(value)
    }
}

/// The value that `text` begins with, and how many bytes it takes.
fn value(text: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let mut end = 0;
    let mut doubled = false;
    while end < text.len() {
        if text[end] == b',' {
            if text.get(end + 1) != Some(&b',') {
                break;
            }
            doubled = true;
            end += 1;
        }
        end += 1;
    }
    if !doubled {
        return (Cow::Borrowed(&text[..end]), end);
    }
    let mut value = Vec::with_capacity(end);
    let mut bytes = text[..end].iter();
    while let Some(byte) = bytes.next() {
        value.push(*byte);
        if *byte == b',' {
            bytes.next();
        }
    }
    (Cow::Owned(value), end)
}

/// An option's keys and values, with dots for nesting: what `key=value` and JSON have in common.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(String, String)>);

impl Options {
    /// The options of a `key=value` text. Flags are `on`; what is not UTF-8 is left out, since no
    /// key or id that keyhaul looks for is.
    pub fn of_pairs(text: &[u8], implied: Option<&str>) -> Self {
        let pairs = pairs(text, implied).into_iter();
        Self(
            pairs
                .filter_map(|pair| {
                    let key = std::str::from_utf8(pair.key).ok()?.to_owned();
                    let value = match pair.value {
                        Some(value) => String::from_utf8(value.into_owned()).ok()?,
                        None => "on".to_owned(),
                    };
                    Some((key, value))
                })
                .collect(),
        )
    }

    /// The options of a JSON object, or `None` where it is none. QEMU's JSON also has strings in
    /// single quotes, which are not read here.
    pub fn of_json(text: &[u8]) -> Option<Self> {
        let Ok(value @ Value::Object(_)) = serde_json::from_slice(text) else {
            return None;
        };
        let mut options = Self::default();
        options.flatten("", &value);
        Some(options)
    }

    /// Adds what `key` means below `prefix`, as the text of an option that holds JSON.
    pub fn flatten(&mut self, prefix: &str, value: &Value) {
        let inside = |key: &str| match prefix {
            "" => key.to_owned(),
            _ => format!("{prefix}.{key}"),
        };
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    self.flatten(&inside(key), value);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.flatten(&inside(&index.to_string()), value);
                }
            }
            Value::String(text) => self.push(prefix, text),
            Value::Bool(true) => self.push(prefix, "on"),
            Value::Bool(false) => self.push(prefix, "off"),
            Value::Number(number) => self.push(prefix, &number.to_string()),
            Value::Null => {}
        }
    }

    /// Adds one.
    pub fn push(&mut self, key: &str, value: &str) {
        self.0.push((key.to_owned(), value.to_owned()));
    }

    /// The value of a key; the last one wins.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl fmt::Debug for Options {
    /// The keys. A value may be a password that somebody wrote in the clear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(key, _)| key))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_come_apart() {
        let text = b"secret,id=a,,b,file=/x=y,,,flag,data=";
        let found: Vec<_> = pairs(text, Some("qom-type"))
            .into_iter()
            .map(|pair| {
                let value = pair.value.map(|v| String::from_utf8_lossy(&v).into_owned());
                let text = String::from_utf8_lossy(&text[pair.range]).into_owned();
                (String::from_utf8_lossy(pair.key).into_owned(), value, text)
            })
            .collect();
        let pair = |key: &str, value: Option<&str>, text: &str| {
            (key.to_owned(), value.map(str::to_owned), text.to_owned())
        };
        assert_eq!(
            found,
            [
                pair("qom-type", Some("secret"), "secret"),
                pair("id", Some("a,b"), "id=a,,b"),
                // Three commas: one in the value, and the end.
                pair("file", Some("/x=y,"), "file=/x=y,,"),
                pair("flag", None, "flag"),
                pair("data", Some(""), "data="),
            ]
        );
    }

    #[test]
    fn json_and_key_value_flatten_alike() {
        let json =
            br#"{"driver":"qcow2","encrypt":{"key-secret":"s"},"file":{"a":[{"b":1}]},"ro":true}"#;
        let text = b"qcow2,encrypt.key-secret=s,file.a.0.b=1,ro=on";
        let json = Options::of_json(json).expect("an object");
        let text = Options::of_pairs(text, Some("driver"));
        for key in ["driver", "encrypt.key-secret", "file.a.0.b", "ro"] {
            assert_eq!(json.get(key), text.get(key), "{key}");
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(Options::of_json(b"{'single': 'quotes'}"), None);
    }

    proptest! {
        #[test]
        fn escaped_values_come_back(values in proptest::collection::vec("\\PC*", 1..6)) {
            let text: Vec<_> = values
                .iter()
                .enumerate()
                .map(|(n, value)| format!("k{n}={}", escape(value)))
                .collect();
            let text = text.join(",");
            let found = pairs(text.as_bytes(), None);
            prop_assert_eq!(found.len(), values.len());
            for (pair, value) in found.iter().zip(&values) {
                prop_assert_eq!(pair.value.as_deref(), Some(value.as_bytes()));
            }
        }

        #[test]
        fn any_bytes_come_apart_and_ranges_cover_them(text: Vec<u8>) {
            let mut end = 0;
            for (n, pair) in pairs(&text, Some("first")).iter().enumerate() {
                prop_assert_eq!(pair.range.start, if n == 0 { 0 } else { end + 1 });
                end = pair.range.end;
            }
            prop_assert!(end == text.len() || end + 1 == text.len());
        }
    }
}
