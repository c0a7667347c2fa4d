//! A value as the server has it: a map of fields, read without copies of its values.

use std::fmt;

use keyhaul_core::{Encoding, Error, ErrorKind, Field, Result, SecretBytes, json};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What stands behind a field's name in that of the field which says how it is encoded. No
/// reference names such a field: `:` is in no [`Field`].
const MARKER: &str = ":encoding";

/// The fields of a map, each where it lies in the server's answer.
#[derive(Default)]
pub(crate) struct Fields<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads a map.
    ///
    /// # Errors
    /// `Corrupt` where it is no JSON object. Never shows what was found.
    pub(crate) fn parse(map: &'a [u8]) -> Result<Self> {
        // The parser's error can show what it stumbled over.
        serde_json::from_slice(map)
            .map_err(|_| Error::new(ErrorKind::Corrupt, "the secret is no JSON object"))
    }

    /// Whether there is such a field, with something in it.
    pub(crate) fn has(&self, name: &Field) -> bool {
        self.find(name.as_str()).is_some()
    }

    /// What a field holds: the text of a string, decoded where it is marked or declared so, and the
    /// JSON text of anything else.
    ///
    /// # Errors
    /// `NotFound` with the names there are, `Corrupt` where it is not in its encoding.
    pub(crate) fn value(&self, name: &Field, declared: Option<Encoding>) -> Result<SecretBytes> {
        let raw = self.find(name.as_str()).ok_or_else(|| self.missing(name))?;
        let Some(text) = json::unescape(raw.get())? else {
            return Ok(SecretBytes::copy_from(raw.get().as_bytes()));
        };
        match declared {
            Some(encoding) => encoding.decode(text),
            None if self.is_marked(name, &text) => Encoding::Base64.decode(text),
            None => Ok(text),
        }
    }

    /// A map with nothing in it but perhaps markers, which are about nothing then.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|(name, _)| name.ends_with(MARKER))
    }

    fn find(&self, name: &str) -> Option<&'a RawValue> {
        let (_, raw) = self.0.iter().find(|(own, _)| own == name)?;
        // A merge patch takes `null` for absent, and so does a reader.
        (raw.get() != "null").then_some(*raw)
    }

    /// Whether the marker is there and about this very text: somebody who does not know it may have
    /// written the field since.
    fn is_marked(&self, name: &Field, text: &SecretBytes) -> bool {
        let Some(marker) = self.find(&marker_of(name)) else {
            return false;
        };
        let marker = serde_json::from_str::<String>(marker.get());
        marker.is_ok_and(|marker| marker == marker_for(text))
    }

    fn missing(&self, name: &Field) -> Error {
        let names: Vec<_> = self
            .0
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !name.ends_with(MARKER))
            .collect();
        let there = if names.is_empty() {
            "it has none".to_owned()
        } else {
            // Names are no secret: the server lists them to who may read the value anyway.
            format!("it has {}", names.join(", "))
        };
        Error::new(
            ErrorKind::NotFound,
            format!("the secret has no field `{name}`; {there}"),
        )
        .with_advice("name the field by #FIELD, the route's `field` or the store's `field`")
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

pub(super) fn marker_of(name: &Field) -> String {
    format!("{name}{MARKER}")
}

/// The marker of a field whose text is `text`. The checksum ties it to this text: whoever writes the
/// field without knowing the marker makes it void, not the value wrong.
pub(super) fn marker_for(text: &SecretBytes) -> String {
    format!("base64 {:08x}", crc32(text.expose()))
}

/// CRC-32 as of gzip and Ethernet (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::content::{Body, Content};
    use super::*;

    fn field(name: &str) -> Field {
        Field::new(name).expect("a field")
    }

    fn of(value: &[u8]) -> SecretBytes {
        SecretBytes::copy_from(value)
    }

    fn written(content: &Content<'_>, write: impl Fn(&Content<'_>, &mut Body)) -> String {
        let mut body = Body::new();
        write(content, &mut body);
        String::from_utf8(body.finish().expose().to_vec()).expect("text")
    }

    fn alone(name: &str, value: &[u8]) -> String {
        let value = of(value);
        let content = Content::new(&field(name), &value, None).expect("content");
        written(&content, |content, body| content.alone(body).expect("fits"))
    }

    fn read(map: &str, name: &str) -> Result<Vec<u8>> {
        let fields = Fields::parse(map.as_bytes())?;
        Ok(fields.value(&field(name), None)?.expose().to_vec())
    }

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn text_is_kept_as_text_and_bytes_as_marked_base64() {
        assert_eq!(
            alone("value", b"pass\"word\n"),
            r#"{"value":"pass\"word\n"}"#
        );
        assert_eq!(
            alone("key", b"\xff\x00"),
            // python3 -c 'import zlib; print("%08x" % zlib.crc32(b"/wA="))'
            r#"{"key":"/wA=","key:encoding":"base64 39a12cf4"}"#
        );
    }

    #[test]
    fn a_field_written_without_its_marker_is_what_was_written() {
        let map = alone("key", b"\xff\x00");
        assert_eq!(read(&map, "key").expect("read"), b"\xff\x00");
        let patched = map.replace("/wA=", "AAAA");
        assert_eq!(read(&patched, "key").expect("read"), b"AAAA");
    }

    #[test]
    fn what_is_no_string_is_its_json_text() {
        let map = r#"{"n": 1.50, "b": true, "o": {"a":[1, "x"]}, "gone": null, "s": ""}"#;
        assert_eq!(read(map, "n").expect("read"), b"1.50");
        assert_eq!(read(map, "b").expect("read"), b"true");
        assert_eq!(read(map, "o").expect("read"), br#"{"a":[1, "x"]}"#);
        assert_eq!(read(map, "s").expect("read"), b"");
        for name in ["gone", "never"] {
            let error = read(map, name).expect_err("absent");
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        let error = read(r#"{"user":"hunter2"}"#, "value").expect_err("absent");
        assert!(error.message().ends_with("it has user"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_patch_takes_the_marker_of_a_value_before_away() {
        let value = of(b"text");
        let content = Content::new(&field("key"), &value, None).expect("content");
        let patch = written(&content, |content, body| content.patch(body).expect("fits"));
        assert_eq!(patch, r#"{"key":"text","key:encoding":null}"#);
    }

    #[test]
    fn siblings_stay_to_the_letter() {
        let map = r#"{"user":"\u003cö>","n":1.50,"key":"old","key:encoding":"base64 0","x:encoding":"base64 1"}"#;
        let fields = Fields::parse(map.as_bytes()).expect("a map");
        let value = of(b"new");
        let content = Content::new(&field("key"), &value, None).expect("content");
        let merged = written(&content, |content, body| {
            content.among(body, &fields).expect("fits");
        });
        assert_eq!(
            merged,
            r#"{"key":"new","user":"\u003cö>","n":1.50,"x:encoding":"base64 1"}"#
        );
    }

    #[test]
    fn the_whole_map_is_an_object_or_refused() {
        for (value, legal) in [
            ("{}", true),
            (r#"{"a":"b"}"#, true),
            ("[]", false),
            ("hunter2", false),
            ("{} {}", false),
            // The server would put another character in the place of half a pair.
            (r#"{"a":"\ud83d\ude00"}"#, true),
            (r#"{"a":"hunter2\ud83d"}"#, false),
            (r#"{"a":{"b":["\\ud83d","hunter2\ude00"]}}"#, false),
            ("", false),
        ] {
            let value = of(value.as_bytes());
            let content = Content::new(&Field::all(), &value, None);
            match content {
                Ok(_) => assert!(legal),
                Err(error) => {
                    assert!(!legal && error.kind() == ErrorKind::Corrupt);
                    assert!(!format!("{error:?}").contains("hunter2"));
                }
            }
        }
    }

    #[test]
    fn what_the_server_stores_is_bounded_by_base64() {
        let value = vec![b'<'; 100_000];
        let map = alone("value", &value);
        assert!(map.len() < 134_000, "{}", map.len());
        assert_eq!(read(&map, "value").expect("read"), value);
        assert!(alone("value", b"<tag>").contains("<tag>"));
    }

    #[test]
    fn debug_shows_names_only() {
        let fields = Fields::parse(br#"{"user":"hunter2"}"#).expect("a map");
        assert_eq!(format!("{fields:?}"), r#"["user"]"#);
    }

    proptest! {
        #[test]
        fn every_value_survives(value: Vec<u8>, name in "[A-Za-z0-9._-]{1,20}") {
            let map = alone(&name, &value);
            prop_assert_eq!(read(&map, &name).expect("read"), value.clone());
            for declared in [Encoding::Base64, Encoding::Hex] {
                let given = of(&value);
                let content = Content::new(&field(&name), &given, Some(declared)).expect("content");
                let map = written(&content, |content, body| content.alone(body).expect("fits"));
                let fields = Fields::parse(map.as_bytes()).expect("a map");
                let came = fields.value(&field(&name), Some(declared)).expect("read");
                prop_assert!(came == given);
            }
        }
    }
}
