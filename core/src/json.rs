//! JSON strings, straight from and into locked memory.
//!
//! serde_json finds where a value begins and ends and copies none of it; what a string's escapes
//! stand for is worked out here, since serde_json would do so in buffers that nobody wipes.

use crate::{Error, ErrorKind, Result, SecretBytes, SecretWriter};

/// The text that a JSON string stands for, where `raw`, a whole JSON value, is one.
///
/// # Errors
/// `Corrupt` where its escapes stand for no text. Never shows what was found.
pub fn unescape(raw: &str) -> Result<Option<SecretBytes>> {
    let Some(inner) = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return Ok(None);
    };
    let mut len = 0;
    walk(inner.as_bytes(), |bytes| len += bytes.len())?;
    let mut at = 0;
    let text = SecretBytes::try_init_with(len, |text| {
        walk(inner.as_bytes(), |bytes| {
            text[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        })
    })?;
    Ok(Some(text))
}

/// Whether the escapes of all strings in a JSON value stand for text.
///
/// # Errors
/// `Corrupt` where some do not.
pub fn check(json: &[u8]) -> Result<()> {
    // Backslashes are in strings only.
    walk(json, |_| ())
}

/// Gives `each` the pieces of what an escaped text stands for.
fn walk(mut rest: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
    while !rest.is_empty() {
        let plain = rest.iter().position(|byte| *byte == b'\\');
        let (before, escape) = rest.split_at(plain.unwrap_or(rest.len()));
        if !before.is_empty() {
            each(before);
        }
        let Some(letter) = escape.get(1) else {
            // The end, or a backslash with nothing behind it, which a JSON parser lets no string end in.
            return if escape.is_empty() {
                Ok(())
            } else {
                Err(broken())
            };
        };
        let (byte, used) = match letter {
            b'"' | b'\\' | b'/' => (*letter, 2),
            b'b' => (0x08, 2),
            b'f' => (0x0c, 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'u' => {
                let (letter, used) = code_point(escape)?;
                let mut utf8 = [0; 4];
                each(letter.encode_utf8(&mut utf8).as_bytes());
                crate::wipe(&mut utf8);
                rest = &escape[used..];
                continue;
            }
            _ => return Err(broken()),
        };
        each(&[byte]);
        rest = &escape[used..];
    }
    Ok(())
}

/// The character of `\uXXXX`, or of two such that are a surrogate pair, and how long that is.
fn code_point(escape: &[u8]) -> Result<(char, usize)> {
    let first = unit(escape)?;
    if let Some(letter) = char::from_u32(first) {
        return Ok((letter, 6));
    }
    let second = unit(&escape[6..])?;
    let pair = [first, second].map(|unit| unit as u16);
    match char::decode_utf16(pair).next() {
        Some(Ok(letter)) => Ok((letter, 12)),
        _ => Err(broken()),
    }
}

/// The number of `\uXXXX`, with which `escape` begins.
fn unit(escape: &[u8]) -> Result<u32> {
    let digits = match escape.strip_prefix(b"\\u") {
        Some(rest) => rest.get(..4).ok_or_else(broken)?,
        None => return Err(broken()),
    };
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or_else(broken)?;
        Ok(number * 16 + digit)
    })
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "a JSON string has escapes that stand for no text",
    )
}

/// Writes `text` as a JSON string.
///
/// # Errors
/// `TooLarge` past the writer's limit.
pub fn escape(out: &mut SecretWriter, text: &str) -> Result<()> {
    out.push(b"\"")?;
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let mut long = *b"\\u00xx";
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => {
                long[4] = HEX[usize::from(byte >> 4)];
                long[5] = HEX[usize::from(byte & 15)];
                &long
            }
            _ => continue,
        };
        out.push(&bytes[from..at])?;
        out.push(escape)?;
        crate::wipe(&mut long);
        from = at + 1;
    }
    out.push(&bytes[from..])?;
    out.push(b"\"")
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescaped(raw: &str) -> Vec<u8> {
        let text = unescape(raw).expect("legal").expect("a string");
        text.expose().to_vec()
    }

    #[test]
    fn every_escape_of_the_standard_is_known() {
        // RFC 8259, section 7.
        let raw = r#""\"\\\/\b\f\n\r\t\u00e9\u65E5\ud83d\ude00""#;
        assert_eq!(unescaped(raw), "\"\\/\u{8}\u{c}\n\r\té日😀".as_bytes());
        assert_eq!(unescaped(r#""""#), b"");
        assert_eq!(unescaped(r#""\u0000""#), b"\0");
    }

    #[test]
    fn what_is_no_string_is_none() {
        for raw in ["1.5", "true", "null", "{\"a\":\"b\"}", "[\"x\"]"] {
            assert!(unescape(raw).expect("legal").is_none(), "{raw}");
        }
    }

    #[test]
    fn half_a_pair_and_half_an_escape_are_corrupt_and_not_shown() {
        for raw in [
            r#""hunter2\ud83d""#,
            r#""hunter2\ud83dx""#,
            r#""hunter2\ud83d\n""#,
            r#""hunter2\ud83d\u0041""#,
            r#""hunter2\ude00""#,
            r#""hunter2\u12""#,
            r#""hunter2\u12é""#,
            r#""hunter2\x""#,
            r#""hunter2\""#,
        ] {
            let error = unescape(raw).expect_err(raw);
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn unescaping_agrees_with_serde_json(text: String) {
            let raw = serde_json::to_string(&text).expect("serialises");
            prop_assert_eq!(unescaped(&raw), text.as_bytes());
            // The longest form there is of the same text.
            let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            prop_assert_eq!(unescaped(&format!("\"{units}\"")), text.as_bytes());
        }

        #[test]
        fn whatever_serde_json_takes_is_taken_and_the_rest_refused(text in "([a-d]|\\\\[\"\\\\/bfnrtux0-9a-f]|\\\\u[0-9a-fA-F]{4}|\\\\ud[89a-f][0-9a-f]{2}){0,8}") {
            let raw = format!("\"{text}\"");
            let ours = unescape(&raw);
            match serde_json::from_str::<String>(&raw) {
                Ok(theirs) => {
                    let ours = ours.expect("legal").expect("a string");
                    prop_assert_eq!(ours.expose(), theirs.as_bytes());
                }
                // An unescaped quote ends the string: raw values never hold one.
                Err(_) => prop_assert!(ours.is_err()),
            }
        }

        #[test]
        fn what_is_escaped_serde_json_reads(text in "[\\x00-\\x7f]{0,40}|.{0,40}") {
            let mut out = SecretWriter::with_limit(1000);
            escape(&mut out, &text).expect("fits");
            let read: String = serde_json::from_slice(out.expose()).expect("JSON");
            prop_assert_eq!(read, text);
        }
    }
}
