//! Values that are maps: a JSON object taken apart and put together, with every value of it in
//! memory that is wiped.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{Error, ErrorKind, Result, SecretBytes, SecretWriter, json};

/// A map of fields. Names are no secret, values are.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Fields(BTreeMap<String, FieldValue>);

#[derive(PartialEq, Eq)]
struct FieldValue {
    /// The bytes of a text, or the JSON text of what is none.
    bytes: SecretBytes,
    is_text: bool,
}

impl Fields {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// `Corrupt` where it is none.
    pub(crate) fn parse(object: &[u8]) -> Result<Self> {
        // The parser's own words can hold a piece of a value.
        let raw: BTreeMap<String, &RawValue> =
            serde_json::from_slice(object).map_err(|_| no_object())?;
        let mut fields = Self::default();
        for (name, raw) in raw {
            let text = json::unescape(raw.get())?;
            let value = FieldValue {
                is_text: text.is_some(),
                bytes: text.unwrap_or_else(|| SecretBytes::copy_from(raw.get().as_bytes())),
            };
            fields.0.insert(name, value);
        }
        Ok(fields)
    }

    /// The map as a JSON object.
    ///
    /// # Errors
    /// `Corrupt` where a field's value is not text, which JSON cannot hold.
    pub(crate) fn to_json(&self) -> Result<SecretBytes> {
        let mut object = SecretWriter::with_limit(usize::MAX);
        object.push(b"{")?;
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                object.push(b",")?;
            }
            json::escape(&mut object, name)?;
            object.push(b":")?;
            if value.is_text {
                let text = std::str::from_utf8(value.bytes.expose()).map_err(|_| not_text(name))?;
                json::escape(&mut object, text)?;
            } else {
                object.push(value.bytes.expose())?;
            }
        }
        object.push(b"}")?;
        Ok(object.finish())
    }

    /// A field's value: its text, or the JSON of what is no text.
    pub(crate) fn value(&self, name: &str) -> Option<&SecretBytes> {
        self.0.get(name).map(|value| &value.bytes)
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, name: &str, bytes: SecretBytes) {
        let value = FieldValue {
            bytes,
            is_text: true,
        };
        self.0.insert(name.to_owned(), value);
    }

    /// A copy, for the next version.
    pub(crate) fn copy(&self) -> Self {
        let copied = |value: &FieldValue| FieldValue {
            bytes: SecretBytes::copy_from(value.bytes.expose()),
            is_text: value.is_text,
        };
        let fields = self.0.iter();
        Self(
            fields
                .map(|(name, value)| (name.clone(), copied(value)))
                .collect(),
        )
    }
}

fn no_object() -> Error {
    Error::new(ErrorKind::Corrupt, "the value is no JSON object")
        .with_advice("the whole map of a secret is written as {\"field\": \"text\", …}")
}

fn not_text(name: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("field `{name}` is not text, which a JSON object cannot hold"),
    )
    .with_advice("ask for the fields one by one")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_escape_of_json_is_read() {
        let json = br#"{"a": "\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00", "n" : 3260, "o": {"x": [1]}}"#;
        let fields = Fields::parse(json).expect("an object");
        let text = "\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}";
        let value = |name| fields.value(name).expect("there").expose().to_vec();
        assert_eq!(value("a"), text.as_bytes());
        assert_eq!(value("n"), b"3260");
        assert_eq!(value("o"), br#"{"x": [1]}"#);
        assert!(fields.value("b").is_none());
        let again = Fields::parse(fields.to_json().expect("text").expose()).expect("an object");
        assert!(again == fields);
    }

    #[test]
    fn what_is_no_object_is_refused_and_not_repeated() {
        for json in ["", "hunter2", "[1]", "\"hunter2\"", r#"{"a": "\ud800"}"#] {
            let error = Fields::parse(json.as_bytes()).err().expect(json);
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let mut fields = Fields::default();
        fields.set("key", SecretBytes::copy_from(b"\xff"));
        let error = fields.to_json().expect_err("not text");
        assert!(error.message().contains("`key`"), "{error}");
    }

    proptest! {
        /// Held against serde_json's own reading and writing.
        #[test]
        fn any_text_goes_there_and_back(name in "\\PC*", text in any::<String>()) {
            let theirs = serde_json::json!({ name.as_str(): text.as_str() }).to_string();
            let fields = Fields::parse(theirs.as_bytes()).expect("an object");
            prop_assert_eq!(fields.value(&name).expect("there").expose(), text.as_bytes());
            let ours = fields.to_json().expect("text");
            let read: serde_json::Value = serde_json::from_slice(ours.expose()).expect("JSON");
            prop_assert_eq!(read[name.as_str()].as_str(), Some(text.as_str()));
        }
    }
}
