//! What is looked for, in everything it could be disguised as.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;

/// The shortest piece of a secret that counts as found, in bytes of the secret. No piece of this
/// length appears by accident.
pub const PIECE: usize = 16;

/// A secret to hunt for.
///
/// It is found whole or in pieces of [`PIECE`] bytes, raw and in every [`Disguise`].
pub struct Needle {
    name: String,
    bytes: Vec<u8>,
    patterns: Vec<Pattern>,
    /// Which patterns begin with these eight bytes.
    heads: HashMap<[u8; HEAD], Vec<usize>>,
    /// Whether any pattern begins with these two: rules out nearly all of a haystack.
    pairs: Box<[bool; 1 << 16]>,
    longest: usize,
}

const HEAD: usize = 8;

/// How a secret can look when it is not itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Disguise {
    /// Base64, at one of the three places where it can begin in longer data; standard or url-safe.
    Base64(u8),
    /// Decimal numbers, as `{:?}` prints a `Vec<u8>` and JSON an array.
    Decimal,
    /// Hexadecimal digits, bare or in any of the usual dumps.
    Hex,
    /// As it is.
    Raw,
    /// UTF-16, big-endian.
    Utf16Be,
    /// UTF-16, little-endian.
    Utf16Le,
}

impl Disguise {
    /// Every disguise.
    pub const ALL: &'static [Self] = &[
        Self::Base64(0),
        Self::Base64(1),
        Self::Base64(2),
        Self::Decimal,
        Self::Hex,
        Self::Raw,
        Self::Utf16Be,
        Self::Utf16Le,
    ];

    /// Every text that `bytes` become in this disguise, without what would depend on neighbours.
    pub fn texts(self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let joined = |separator: &str, number: &dyn Fn(&u8) -> String| -> Vec<u8> {
            let numbers: Vec<String> = bytes.iter().map(number).collect();
            numbers.join(separator).into_bytes()
        };
        match self {
            Self::Raw => vec![bytes.to_vec()],
            Self::Base64(offset) => {
                let standard = base64(bytes, usize::from(offset), b"+/");
                let url_safe = base64(bytes, usize::from(offset), b"-_");
                vec![standard, url_safe]
            }
            Self::Decimal => [",", ", ", ",\n", " "]
                .iter()
                .map(|separator| joined(separator, &|byte| byte.to_string()))
                .collect(),
            Self::Hex => ["", " ", ":", ", ", "\\x", ", 0x", ",0x"]
                .iter()
                .flat_map(|separator| {
                    let lower = joined(separator, &|byte| format!("{byte:02x}"));
                    [lower, joined(separator, &|byte| format!("{byte:02X}"))]
                })
                .collect(),
            Self::Utf16Be => vec![bytes.iter().flat_map(|byte| [0, *byte]).collect()],
            Self::Utf16Le => vec![bytes.iter().flat_map(|byte| [*byte, 0]).collect()],
        }
    }
}

impl fmt::Display for Disguise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base64(offset) => write!(f, "in base64, {offset} bytes into a group"),
            Self::Decimal => f.write_str("as decimal numbers"),
            Self::Hex => f.write_str("in hex"),
            Self::Raw => f.write_str("in the clear"),
            Self::Utf16Be => f.write_str("in UTF-16BE"),
            Self::Utf16Le => f.write_str("in UTF-16LE"),
        }
    }
}

/// A piece of the secret in one disguise.
struct Pattern {
    disguise: Disguise,
    bytes: Vec<u8>,
}

/// A place in a haystack where a piece of the secret is. It never shows the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What was found.
    pub needle: String,
    /// What it looked like.
    pub disguise: Disguise,
    /// Where its first piece begins.
    pub at: usize,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, at byte {}", self.needle, self.disguise, self.at)
    }
}

impl Needle {
    /// A secret of this name.
    ///
    /// # Panics
    /// Where it is shorter than [`PIECE`]: it could turn up by accident.
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= PIECE, "too short to be told from noise");
        let mut patterns = Vec::new();
        for disguise in Disguise::ALL {
            for text in disguise.texts(bytes) {
                // A piece in base64 loses at most a letter to its neighbours.
                let piece = match disguise {
                    Disguise::Base64(_) => PIECE * 8 / 6 - 1,
                    Disguise::Decimal => disguise.shortest_decimal(bytes),
                    _ => text.len() * PIECE / bytes.len(),
                };
                for window in text.windows(piece.min(text.len())) {
                    patterns.push(Pattern {
                        disguise: *disguise,
                        bytes: window.to_vec(),
                    });
                }
            }
        }
        let mut heads: HashMap<[u8; HEAD], Vec<usize>> = HashMap::new();
        let mut pairs = Box::new([false; 1 << 16]);
        for (index, pattern) in patterns.iter().enumerate() {
            let head = pattern.bytes[..HEAD].try_into().expect("eight bytes");
            heads.entry(head).or_default().push(index);
            pairs[pair(&pattern.bytes)] = true;
        }
        let longest = patterns.iter().map(|pattern| pattern.bytes.len()).max();
        Self {
            name: name.into(),
            bytes: bytes.to_vec(),
            patterns,
            heads,
            pairs,
            longest: longest.unwrap_or(0),
        }
    }

    /// A fresh secret of 48 letters and digits, which survive every quoting unchanged.
    pub fn canary() -> Self {
        Self::new("the canary", &letters(48))
    }

    /// The secret itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What reports call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much of one piece of a haystack must be looked at again with the next.
    pub fn overlap(&self) -> usize {
        self.longest
    }

    /// Every place in `haystack` where a piece of the secret is; pieces in a row count once.
    pub fn find(&self, haystack: &[u8]) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        let (mut at, mut end) = (0, None);
        while at + HEAD <= haystack.len() {
            match self.starting(&haystack[at..]) {
                Some(pattern) => {
                    if end != Some((at, pattern.disguise)) {
                        hits.push(Hit {
                            needle: self.name.clone(),
                            disguise: pattern.disguise,
                            at,
                        });
                    }
                    at += pattern.bytes.len();
                    end = Some((at, pattern.disguise));
                }
                None => at += 1,
            }
        }
        hits
    }

    fn starting(&self, haystack: &[u8]) -> Option<&Pattern> {
        if !self.pairs[pair(haystack)] {
            return None;
        }
        let candidates = self.heads.get(haystack.get(..HEAD)?)?;
        let mut patterns = candidates.iter().map(|index| &self.patterns[*index]);
        patterns.find(|pattern| haystack.starts_with(&pattern.bytes))
    }
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Needle({})", self.name)
    }
}

impl Disguise {
    /// The fewest letters that [`PIECE`] numbers take, so that a window of text is never more than
    /// the piece.
    fn shortest_decimal(self, bytes: &[u8]) -> usize {
        let texts = bytes
            .windows(PIECE)
            .flat_map(|piece| Self::Decimal.texts(piece));
        texts.map(|text| text.len()).min().unwrap_or(PIECE)
    }
}

/// `len` random letters and digits.
pub fn letters(len: usize) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = vec![0; len];
    let random =
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    random.expect("randomness");
    for byte in &mut bytes {
        *byte = LETTERS[usize::from(*byte) % LETTERS.len()];
    }
    bytes
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The letters of base64 that depend on `bytes` alone when they come after `offset` others.
fn base64(bytes: &[u8], offset: usize, last: &[u8; 2]) -> Vec<u8> {
    let mut alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".to_vec();
    alphabet.extend_from_slice(last);
    let bit = |at: usize| bytes[at / 8 - offset] >> (7 - at % 8) & 1;
    let first = (offset * 8).div_ceil(6);
    let end = (offset + bytes.len()) * 8 / 6;
    let letter = |at: usize| (at * 6..at * 6 + 6).fold(0, |sum, at| sum << 1 | bit(at));
    (first..end)
        .map(|at| alphabet[usize::from(letter(at))])
        .collect()
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Base64Url, Encoding};

    use super::*;

    fn canary() -> (Needle, Vec<u8>) {
        let needle = Needle::canary();
        let bytes = needle.bytes().to_vec();
        (needle, bytes)
    }

    /// The disguises in which `needle` shows up in `haystack`.
    fn seen(needle: &Needle, haystack: &[u8]) -> Vec<Disguise> {
        let mut found: Vec<Disguise> = needle
            .find(haystack)
            .iter()
            .map(|hit| hit.disguise)
            .collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn the_secret_itself_is_found_where_it_is() {
        let (needle, bytes) = canary();
        let haystack = [b"some words, ", bytes.as_slice(), b" and more"].concat();
        let hits = needle.find(&haystack);
        assert_eq!((hits[0].disguise, hits[0].at), (Disguise::Raw, 12));
        assert_eq!(seen(&needle, &haystack), [Disguise::Raw]);
    }

    #[test]
    fn any_sixteen_bytes_of_it_are_found_and_fifteen_are_not() {
        let (needle, bytes) = canary();
        for piece in bytes.windows(PIECE) {
            assert_eq!(
                seen(&needle, &[b"<<", piece, b">>"].concat()),
                [Disguise::Raw]
            );
        }
        for piece in bytes.windows(PIECE - 1) {
            assert_eq!(seen(&needle, &[b"<<", piece, b">>"].concat()), []);
        }
    }

    #[test]
    fn base64_is_found_wherever_it_begins_whole_or_a_piece() {
        // Bytes, so that + and / appear and the two alphabets differ.
        let bytes: Vec<u8> = (0..48).map(|n: u8| n.wrapping_mul(251) ^ 0xfb).collect();
        let needle = Needle::new("bytes", &bytes);
        for before in 0..7 {
            for after in 0..4 {
                let data = [&vec![7; before], bytes.as_slice(), &vec![9; after]].concat();
                let expected = [Disguise::Base64((before % 3) as u8)];
                assert_eq!(
                    seen(&needle, Base64::encode_string(&data).as_bytes()),
                    expected
                );
                assert_eq!(
                    seen(&needle, Base64Url::encode_string(&data).as_bytes()),
                    expected
                );
            }
            let data = [&vec![7; before], &bytes[20..20 + PIECE], &[9; 5]].concat();
            assert!(!seen(&needle, Base64::encode_string(&data).as_bytes()).is_empty());
        }
    }

    #[test]
    fn hex_is_found_in_either_case_and_in_dumps() {
        let (needle, bytes) = canary();
        let lower = base16ct::lower::encode_string(&bytes);
        let upper = base16ct::upper::encode_string(&bytes);
        let numbers: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            lower.clone(),
            upper,
            numbers.join(" "),
            numbers.join(":"),
            format!("\\x{}", numbers.join("\\x")),
            format!("{bytes:x?}"),
            lower[20..20 + 2 * PIECE].to_owned(),
        ] {
            assert_eq!(seen(&needle, text.as_bytes()), [Disguise::Hex], "{text}");
        }
    }

    #[test]
    fn numbers_are_found() {
        let (needle, bytes) = canary();
        let json = serde_json::to_string(&bytes).expect("json");
        let pretty = serde_json::to_string(&bytes[5..30]).expect("json");
        for text in [format!("{bytes:?}"), json, pretty] {
            assert_eq!(seen(&needle, text.as_bytes()), [Disguise::Decimal]);
        }
    }

    #[test]
    fn utf16_is_found() {
        let (needle, bytes) = canary();
        let text = String::from_utf8(bytes).expect("letters");
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        // At an odd place, one looks like the other.
        assert!(seen(&needle, &little).contains(&Disguise::Utf16Le));
        assert!(seen(&needle, &big).contains(&Disguise::Utf16Be));
        assert!(!seen(&needle, &little[10..10 + 2 * PIECE]).is_empty());
    }

    #[test]
    fn another_secret_and_noise_are_not_it() {
        let (needle, bytes) = canary();
        let mut noise = vec![0; 1 << 20];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut noise))
            .expect("randomness");
        assert_eq!(needle.find(&noise), []);
        assert_eq!(needle.find(Needle::canary().bytes()), []);
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        assert_eq!(needle.find(&reversed), []);
    }

    #[test]
    fn a_hit_and_a_needle_print_nothing_of_the_secret() {
        let (needle, bytes) = canary();
        let printed = format!(
            "{needle:?} {} {:?}",
            needle.find(&bytes)[0],
            needle.find(&bytes)
        );
        assert_eq!(needle.find(printed.as_bytes()), []);
    }
}
