//! Values in a program's words, also where they are escaped.
//!
//! There are more ways to escape a text than can be remembered: each library escapes other letters, in
//! other cases. So it is the words that are unescaped, and what is found there is marked where it came
//! from.

use keyhaul_core::wipe;

use crate::fingerprint::Fingerprints;

/// How much longer than a text it can be when it is escaped: `\u0000` for each byte.
pub(crate) const LONGER: usize = 6;

/// For each byte of `words`, whether it is part of a text that is remembered: as it stands, escaped as
/// in a JSON or another quoted text, or as in a URL.
pub(crate) fn find(prints: &Fingerprints, words: &[u8]) -> Vec<bool> {
    let mut found = prints.find(words);
    for way in WAYS {
        let plain = Plain::new(words, way);
        // Nothing was escaped so.
        if plain.bytes.len() == words.len() && plain.bytes == words {
            continue;
        }
        for (hit, (start, end)) in prints.find(&plain.bytes).into_iter().zip(&plain.spans) {
            if hit {
                found[*start..*end].fill(true);
            }
        }
    }
    found
}

/// What stands for the first bytes of words, and how many these are; none where they stand for
/// themselves.
type Way = fn(&[u8]) -> Option<(Letter, usize)>;

const WAYS: [Way; 4] = [in_text, in_bytes, in_url, in_query];

/// A byte, or a letter of up to four.
struct Letter {
    bytes: [u8; 4],
    len: usize,
}

impl From<u8> for Letter {
    fn from(byte: u8) -> Self {
        Self {
            bytes: [byte, 0, 0, 0],
            len: 1,
        }
    }
}

impl From<char> for Letter {
    fn from(letter: char) -> Self {
        let mut bytes = [0; 4];
        let len = letter.encode_utf8(&mut bytes).len();
        Self { bytes, len }
    }
}

/// Words without their escapes.
struct Plain {
    bytes: Vec<u8>,
    /// Where in the words each of the bytes comes from.
    spans: Vec<(usize, usize)>,
}

impl Plain {
    fn new(words: &[u8], way: Way) -> Self {
        // They become no longer, so that none of it is moved, and left behind.
        let mut plain = Self {
            bytes: Vec::with_capacity(words.len()),
            spans: Vec::with_capacity(words.len()),
        };
        let mut at = 0;
        while let Some(byte) = words.get(at) {
            let (letter, len) = way(&words[at..]).unwrap_or((Letter::from(*byte), 1));
            for byte in &letter.bytes[..letter.len] {
                plain.bytes.push(*byte);
                plain.spans.push((at, at + len));
            }
            at += len;
        }
        plain
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// As in JSON, of whatever library, and in the quoted texts of other languages.
fn in_text(words: &[u8]) -> Option<(Letter, usize)> {
    in_quotes(words, |number| char::from(number).into())
}

/// As in texts of which each byte is escaped for itself: those of C, or of Python's bytes.
fn in_bytes(words: &[u8]) -> Option<(Letter, usize)> {
    in_quotes(words, Letter::from)
}

fn in_quotes(words: &[u8], small: fn(u8) -> Letter) -> Option<(Letter, usize)> {
    let [b'\\', kind, rest @ ..] = words else {
        return None;
    };
    let byte = match kind {
        b'"' | b'\'' | b'/' | b'\\' => *kind,
        b'b' => b'\x08',
        b'f' => b'\x0c',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unit(words),
        b'U' => {
            let letter = char::from_u32(number(rest, 8)?)?;
            return Some((letter.into(), 10));
        }
        b'x' => return Some((small(u8::try_from(number(rest, 2)?).ok()?), 4)),
        _ => return None,
    };
    Some((byte.into(), 2))
}

/// `\u` and a letter's number, or two of them for one beyond 65535.
fn unit(words: &[u8]) -> Option<(Letter, usize)> {
    let first = number(words.get(2..)?, 4)?;
    if let Some(letter) = char::from_u32(first) {
        return Some((letter.into(), 6));
    }
    let second = number(words.get(6..)?.strip_prefix(b"\\u")?, 4)?;
    let both = [first, second].map(|unit| u16::try_from(unit).unwrap_or_default());
    let letter = char::decode_utf16(both).next()?.ok()?;
    Some((letter.into(), 12))
}

/// As in a URL, whatever letters its maker leaves as they are.
fn in_url(words: &[u8]) -> Option<(Letter, usize)> {
    let byte = number(words.strip_prefix(b"%")?, 2)?;
    Some((u8::try_from(byte).ok()?.into(), 3))
}

/// As in a URL's query, or a form.
fn in_query(words: &[u8]) -> Option<(Letter, usize)> {
    match words {
        [b'+', ..] => Some((b' '.into(), 1)),
        _ => in_url(words),
    }
}

/// The number that so many hexadecimal digits are.
fn number(words: &[u8], digits: usize) -> Option<u32> {
    words.get(..digits)?.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prints(texts: &[&[u8]]) -> Fingerprints {
        let mut prints = Fingerprints::new().expect("randomness");
        texts.iter().for_each(|text| prints.add(text));
        prints
    }

    /// The words are what these programs print of the value.
    #[test]
    fn a_value_is_found_as_any_library_escapes_it() {
        let value = "ab/cd e'<é>\"&\u{1f600}";
        let prints = prints(&[value.as_bytes()]);
        for words in [
            // Python: quote, the same of every letter, quote_plus; JavaScript: encodeURIComponent.
            "ab/cd%20e%27%3C%C3%A9%3E%22%26%F0%9F%98%80",
            "ab%2Fcd%20e%27%3C%C3%A9%3E%22%26%F0%9F%98%80",
            "ab%2Fcd+e%27%3C%C3%A9%3E%22%26%F0%9F%98%80",
            "ab%2Fcd%20e'%3C%C3%A9%3E%22%26%F0%9F%98%80",
            // In small letters.
            "ab%2fcd%20e%27%3c%c3%a9%3e%22%26%f0%9f%98%80",
            // JSON by Python, with and without other letters; by Go, by PHP, in capital letters.
            r#"ab/cd e'<\u00e9>\"&\ud83d\ude00"#,
            "ab/cd e'<é>\\\"&\u{1f600}",
            "ab/cd e'\\u003cé\\u003e\\\"\\u0026\u{1f600}",
            r#"ab\/cd e'<\u00e9>\"&\ud83d\ude00"#,
            r#"ab\u002Fcd\u0020e\u0027\u003C\u00E9\u003E\u0022\u0026\uD83D\uDE00"#,
            // Python's `ascii` of the text, and `repr` of its bytes in UTF-8.
            r#"ab/cd e\'<\xe9>"&\U0001f600"#,
            r#"ab/cd e\'<\xc3\xa9>"&\xf0\x9f\x98\x80"#,
        ] {
            let around = format!("<<{words}>>");
            let found = find(&prints, around.as_bytes());
            let inside = found.iter().filter(|hit| **hit).count();
            assert_eq!(inside, words.len(), "{words}");
            assert_eq!((found[1], found[2]), (false, true), "{words}");
        }
        for words in [
            "ab/cd",
            r"\u00",
            "%",
            "%2",
            r"\",
            r"\ud83d",
            r"\ud83d\u0041",
            "+",
        ] {
            let found = find(&prints, words.as_bytes());
            assert!(!found.contains(&true), "{words}");
        }
    }

    proptest! {
        #[test]
        fn words_of_any_bytes_are_unescaped_and_become_no_longer(words: Vec<u8>) {
            for way in WAYS {
                let plain = Plain::new(&words, way);
                prop_assert!(plain.bytes.len() <= words.len());
                prop_assert_eq!(plain.bytes.len(), plain.spans.len());
            }
        }

        #[test]
        fn a_value_is_found_whichever_of_its_bytes_are_escaped(
            value in proptest::collection::vec((any::<u8>(), any::<bool>()), 1..30),
        ) {
            let bytes: Vec<u8> = value.iter().map(|(byte, _)| *byte).collect();
            let mut words = Vec::new();
            for (byte, escaped) in value {
                match escaped || byte == b'%' {
                    true => words.extend(format!("%{byte:02x}").into_bytes()),
                    false => words.push(byte),
                }
            }
            let found = find(&prints(&[&bytes]), &words);
            prop_assert_eq!(found, vec![true; words.len()]);
        }
    }
}
