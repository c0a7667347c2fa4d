//! Takes values out of a plugin's words.
//!
//! What a plugin writes to its stderr, or into the message of an error, is for people. Values that
//! have passed are recognised by a fingerprint under a random key, and replaced: no copy of a value
//! is kept for that.

use std::collections::VecDeque;

use base64ct::{Base64, Encoding as _};
use keyhaul_core::{Result, SecretBytes, random};

/// The prime of the fingerprints' field, 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// How many fingerprints are remembered: the latest.
const REMEMBERED: usize = 512;

/// Shorter values are in every other word.
const SHORTEST: usize = 4;

/// Of longer values, or lines of them, this much is recognised.
const LONGEST: usize = 1024;

/// What stands where a value stood.
const REDACTED: &str = "[redacted]";

/// Remembers what values look like.
pub(crate) struct Redactor {
    base: u64,
    prints: VecDeque<(usize, u64)>,
}

impl Redactor {
    /// One that knows no value yet.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        Ok(Self {
            base: u64::from_le_bytes(bytes) % (PRIME - 256) + 256,
            prints: VecDeque::new(),
        })
    }

    /// Remembers a value: as it is, each of its lines, and as base64, as which it travels.
    pub(crate) fn remember(&mut self, value: &SecretBytes) {
        let bytes = value.expose();
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        self.remember_form(bytes);
        if bytes.contains(&b'\n') {
            for line in bytes.split(|byte| *byte == b'\n').take(64) {
                self.remember_form(line);
            }
        }
        let encoded = SecretBytes::try_init_with(Base64::encoded_len(bytes), |text| {
            Base64::encode(bytes, text).map(|_| ())
        });
        // Too long to encode is too long to be in a line of the log.
        if let Ok(encoded) = encoded {
            self.remember_form(encoded.expose());
        }
    }

    fn remember_form(&mut self, form: &[u8]) {
        if form.len() < SHORTEST {
            return;
        }
        let print = (form.len(), self.print(form));
        if self.prints.contains(&print) {
            return;
        }
        if self.prints.len() == REMEMBERED {
            self.prints.pop_front();
        }
        self.prints.push_back(print);
    }

    /// `words` as text of one line, of at most `limit` characters, without any value remembered.
    pub(crate) fn clean(&self, words: &[u8], limit: usize) -> String {
        let secret = self.secret_bytes(words);
        let mut text = String::new();
        for run in secret.chunk_by(|a, b| a == b).scan(0, |at, run| {
            *at += run.len();
            Some((*at - run.len()..*at, run[0]))
        }) {
            match run {
                (_, true) => text.push_str(REDACTED),
                (range, false) => text.push_str(&String::from_utf8_lossy(&words[range])),
            }
        }
        let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
        let mut letters = text.chars().map(plain);
        let mut line: String = letters.by_ref().take(limit).collect();
        if letters.next().is_some() {
            line.push('…');
        }
        line
    }

    /// For each byte, whether it is part of a value.
    fn secret_bytes(&self, words: &[u8]) -> Vec<bool> {
        let mut secret = vec![false; words.len()];
        // The fingerprint of every beginning: a piece's follows from two of them.
        let mut begun = Vec::with_capacity(words.len() + 1);
        begun.push(0);
        for byte in words {
            let last = begun[begun.len() - 1];
            begun.push(step(last, self.base, *byte));
        }
        for (len, print) in self.prints.iter().filter(|(len, _)| *len <= words.len()) {
            let power = power(self.base, *len);
            for at in 0..=words.len() - len {
                let before = times(begun[at], power);
                if (begun[at + len] + PRIME - before) % PRIME == *print {
                    secret[at..at + len].fill(true);
                }
            }
        }
        secret
    }

    fn print(&self, bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .fold(0, |print, byte| step(print, self.base, *byte))
    }
}

fn step(print: u64, base: u64, byte: u8) -> u64 {
    (times(print, base) + u64::from(byte) + 1) % PRIME
}

/// The product in the field. Its prime is one less than a power of two: what is above that power is
/// added below.
fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME {
        folded - PRIME
    } else {
        folded
    }
}

fn power(base: u64, mut exponent: usize) -> u64 {
    let (mut result, mut square) = (1, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn knowing(values: &[&str]) -> Redactor {
        let mut redactor = Redactor::new().expect("randomness");
        for value in values {
            redactor.remember(&SecretBytes::copy_from(value.as_bytes()));
        }
        redactor
    }

    #[test]
    fn values_are_taken_out_in_each_form_and_the_rest_stays() {
        let redactor = knowing(&["hunter2", "first line\nsecond"]);
        for (words, clean) in [
            ("got hunter2!", "got [redacted]!"),
            ("hunter2", "[redacted]"),
            ("hunter2hunter2 x", "[redacted] x"),
            ("got aHVudGVyMg== here", "got [redacted] here"),
            ("second of first line", "[redacted] of [redacted]"),
            ("hunter", "hunter"),
            ("", ""),
        ] {
            assert_eq!(redactor.clean(words.as_bytes(), 100), clean);
        }
    }

    #[test]
    fn what_would_disturb_a_log_is_taken_out() {
        let redactor = knowing(&[]);
        assert_eq!(
            redactor.clean(b"a\x1b[31m\r\0b\xff", 100),
            "a [31m  b\u{fffd}"
        );
        assert_eq!(redactor.clean("ééééé".as_bytes(), 3), "ééé…");
    }

    #[test]
    fn the_oldest_values_are_forgotten_and_not_kept_for_ever() {
        let mut redactor = knowing(&["hunter2"]);
        for number in 0..REMEMBERED {
            let value = format!("value {number}");
            redactor.remember(&SecretBytes::copy_from(value.as_bytes()));
        }
        assert_eq!(redactor.prints.len(), REMEMBERED);
        assert_eq!(
            redactor.clean(b"hunter2 value 511", 100),
            "hunter2 [redacted]"
        );
    }

    proptest! {
        #[test]
        fn no_value_survives_wherever_it_stands(
            value in "[a-z]{4,12}",
            before in "[A-Z]{0,9}",
            after in "[A-Z]{0,9}",
        ) {
            let redactor = knowing(&[&value]);
            let words = format!("{before}{value}{after}");
            let clean = redactor.clean(words.as_bytes(), 100);
            prop_assert_eq!(clean, format!("{before}{REDACTED}{after}"));
        }
    }
}
