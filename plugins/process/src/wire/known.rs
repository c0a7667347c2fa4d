//! What an answer tells beside a value: metadata and pages, within bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use keyhaul_core::law::{LONGEST_CURSOR, LONGEST_TEXT, MOST_LABELS, MOST_TEXT};
use keyhaul_core::{Error, ErrorKind, Lease, Metadata, Result, SecretPath, Version};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::LONGEST_PAGE;

/// The longest that a lease can last: who adds it to a time must not come to the end of time.
const LONGEST_LEASE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const TIME: &str = "a time of RFC 3339 in UTC, as 2026-01-31T12:00:00Z";

/// Metadata as it travels. Each part is looked into by itself, so that an error has its name.
#[derive(Deserialize)]
struct Known<'l> {
    #[serde(borrow)]
    version: Option<&'l RawValue>,
    #[serde(borrow)]
    created: Option<&'l RawValue>,
    #[serde(borrow)]
    expires: Option<&'l RawValue>,
    #[serde(borrow)]
    labels: Option<&'l RawValue>,
    #[serde(borrow)]
    lease: Option<&'l RawValue>,
}

#[derive(Deserialize)]
struct Lent {
    id: String,
    seconds: u64,
    renewable: Option<bool>,
}

/// What is known of a secret; nothing where nothing is said.
///
/// # Errors
/// `Corrupt` with the key that is not as it should be.
pub(super) fn metadata(raw: Option<&RawValue>) -> Result<Metadata> {
    let Some(known) = read::<Known<'_>>("metadata", "an object, each key once", raw)? else {
        return Ok(Metadata::default());
    };
    let text: Option<String> = read("version", VERSION, known.version)?;
    let version = text.map(Version::new).transpose();
    let mut metadata = Metadata::new(version.map_err(|_| wrong("version", VERSION))?);
    metadata.created = time("created", known.created)?;
    metadata.expires = time("expires", known.expires)?;
    let labels: Option<Labels> = read("labels", "pairs of texts, within bounds", known.labels)?;
    metadata.labels = labels.map(|labels| labels.0).unwrap_or_default();
    let form = "an object with `id`, a text, and `seconds`, a whole number";
    let lent: Option<Lent> = read("lease", form, known.lease)?;
    if lent.as_ref().is_some_and(|l| l.id.len() > LONGEST_TEXT) {
        return Err(wrong("lease", form));
    }
    metadata.lease = lent.map(|lent| {
        let lasts = Duration::from_secs(lent.seconds).min(LONGEST_LEASE);
        Lease::new(lent.id, lasts, lent.renewable.unwrap_or_default())
    });
    Ok(metadata)
}

const VERSION: &str = "a text of 1 to 128 of [A-Za-z0-9._-]";

fn time(key: &str, raw: Option<&RawValue>) -> Result<Option<SystemTime>> {
    let time: Option<Timestamp> = read(key, TIME, raw)?;
    Ok(time.map(SystemTime::from))
}

/// Paths of a page; none where nothing is said. What they are paths of is held against the request
/// elsewhere.
///
/// # Errors
/// `Corrupt` where they are no texts, or more or longer than any page has.
pub(super) fn paths(key: &str, raw: Option<&RawValue>) -> Result<Vec<String>> {
    let paths: Option<Paths> = read(key, "a list of at most 500 paths", raw)?;
    Ok(paths.map(|paths| paths.0).unwrap_or_default())
}

/// Where the next page begins.
///
/// # Errors
/// `Corrupt` where it is no text, or too long.
pub(super) fn cursor(raw: Option<&RawValue>) -> Result<Option<String>> {
    let form = "a text of at most 16384 bytes";
    let cursor: Option<String> = read("next", form, raw)?;
    match cursor {
        Some(cursor) if cursor.len() > LONGEST_CURSOR => Err(wrong("next", form)),
        cursor => Ok(cursor),
    }
}

/// The part of an answer that stands under `key`, where there is one that is not null.
///
/// # Errors
/// `Corrupt` where it is not of the `form`.
pub(super) fn read<'l, T: Deserialize<'l>>(
    key: &str,
    form: &str,
    raw: Option<&'l RawValue>,
) -> Result<Option<T>> {
    let read = raw.map(|raw| serde_json::from_str(raw.get()));
    read.transpose().map_err(|_| wrong(key, form))
}

/// What stands under `key` is something else. Never shows what.
pub(super) fn wrong(key: &str, form: &str) -> Error {
    corrupt(format!("`{key}` in the plugin's answer is not {form}"))
}

pub(super) fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, what).with_advice("tell the plugin's author")
}

/// Labels within bounds: refused as soon as they are over one.
struct Labels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("pairs of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let (mut labels, mut size) = (BTreeMap::new(), 0);
                while let Some((key, text)) = map.next_entry::<String, String>()? {
                    size += key.len() + text.len();
                    let longest = key.len().max(text.len());
                    labels.insert(key, text);
                    if labels.len() > MOST_LABELS || longest > LONGEST_TEXT || size > MOST_TEXT {
                        return Err(A::Error::custom("too many or too long"));
                    }
                }
                Ok(Labels(labels))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// Paths within bounds, as [`Labels`].
struct Paths(Vec<String>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = Paths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Paths, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = seq.next_element::<String>()? {
                    if paths.len() == LONGEST_PAGE || path.len() > SecretPath::MAX {
                        return Err(A::Error::custom("too many or too long"));
                    }
                    paths.push(path);
                }
                Ok(Paths(paths))
            }
        }

        deserializer.deserialize_seq(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect(json)
    }

    fn of(json: &str) -> Result<Metadata> {
        metadata(Some(&raw(json)))
    }

    #[test]
    fn what_is_null_is_not_said() {
        let all = r#"{"version":null,"created":null,"expires":null,"labels":null,"lease":null}"#;
        assert_eq!(of(all).expect("nothing"), Metadata::default());
        let lease = of(r#"{"lease":{"id":"x","seconds":9,"renewable":null}}"#).expect("a lease");
        let expected = Lease::new("x".to_owned(), Duration::from_secs(9), false);
        assert_eq!(lease.lease, Some(expected));
    }

    #[test]
    fn a_part_that_is_not_as_it_should_be_is_named_and_not_shown() {
        for (json, key) in [
            (r#"["hunter2"]"#, "metadata"),
            (r#"{"version":"1","version":"hunter2"}"#, "metadata"),
            (r#"{"version":3}"#, "version"),
            (r#"{"version":"hunter2!"}"#, "version"),
            (r#"{"created":"2026-01-31 12:00"}"#, "created"),
            (r#"{"created":"2026-01-31T12:00:00"}"#, "created"),
            (r#"{"expires":1769860800}"#, "expires"),
            (r#"{"expires":"hunter2"}"#, "expires"),
            (r#"{"labels":["hunter2"]}"#, "labels"),
            (r#"{"labels":{"owner":7}}"#, "labels"),
            (r#"{"lease":{"id":"hunter2"}}"#, "lease"),
            (r#"{"lease":{"id":"x","seconds":"9"}}"#, "lease"),
        ] {
            let error = of(json).expect_err(json);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{json}");
            assert!(error.message().starts_with(&format!("`{key}` ")), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn labels_and_pages_have_bounds() {
        let labels = |count: usize, len: usize| {
            let text = "x".repeat(len);
            let pairs: Vec<_> = (0..count)
                .map(|n| format!(r#""{n:04}":"{text}""#))
                .collect();
            of(&format!(r#"{{"labels":{{{}}}}}"#, pairs.join(",")))
        };
        // 4 bytes of each are the key's.
        for (count, len, good) in [
            (1000, 100, true),
            (1001, 1, false),
            (1, 64 * 1024, true),
            (1, 64 * 1024 + 1, false),
            (16, 64 * 1024 - 4, true),
            (17, 64 * 1024 - 4, false),
        ] {
            assert_eq!(labels(count, len).is_ok(), good, "{count} of {len}");
        }
        let page = |count: usize, path: &str| {
            let list = vec![format!("\"{path}\""); count].join(",");
            paths("secrets", Some(&raw(&format!("[{list}]"))))
        };
        assert_eq!(page(500, "").expect("a page").len(), 500);
        assert!(page(501, "").is_err());
        assert!(page(1, &"x".repeat(1024)).is_ok());
        assert!(page(1, &"x".repeat(1025)).is_err());
        let next = |len: usize| cursor(Some(&raw(&format!("\"{}\"", "x".repeat(len)))));
        assert!(next(16 * 1024).is_ok() && next(16 * 1024 + 1).is_err());
    }
}
