//! Takes values out of a plugin's words.
//!
//! What a plugin writes to its stderr, or into the message of an error, is for people. Values that
//! have passed are recognised by their fingerprints, and replaced: no copy of a value is kept for
//! that.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use keyhaul_core::{Result, SecretBytes, misleads};

use crate::fingerprint::Fingerprints;
use crate::forms::{self, PIECE};
use crate::unescaped;

/// Shorter values are in every other word.
const SHORTEST: usize = 4;

/// Of longer values this many pieces are remembered, and of those with lines so many lines.
const PIECES: usize = 40;

/// What stands where a value stood.
const REDACTED: &str = "[redacted]";

/// How much of what stands before and after can be part of the same piece of a value.
pub(crate) const CONTEXT: usize = unescaped::LONGER * PIECE;

/// Remembers what values look like.
pub(crate) struct Redactor(Fingerprints);

impl Redactor {
    /// One that knows no value yet.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub(crate) fn new() -> Result<Self> {
        Fingerprints::new().map(Self)
    }

    /// As [`new`](Self::new), for several who remember together.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn shared() -> Result<Arc<Mutex<Self>>> {
        Ok(Arc::new(Mutex::new(Self::new()?)))
    }

    /// Remembers a value, in all its forms, and each of its lines.
    pub(crate) fn remember(&mut self, value: &SecretBytes) {
        let bytes = value.expose();
        let head = &bytes[..bytes.len().min(PIECES * PIECE)];
        head.chunks(PIECE)
            .for_each(|piece| self.remember_piece(piece));
        // The last piece can be too short.
        if let Some(last) = head.len().checked_sub(PIECE) {
            self.remember_piece(&head[last.next_multiple_of(3)..]);
        }
        if head.contains(&b'\n') {
            let lines = head.split(|byte| *byte == b'\n').take(PIECES);
            lines
                .flat_map(|line| line.chunks(PIECE))
                .for_each(|piece| self.remember_piece(piece));
        }
    }

    fn remember_piece(&mut self, piece: &[u8]) {
        if piece.len() < SHORTEST || self.0.is_fresh(piece) {
            return;
        }
        let mut add = |form: &[u8]| {
            // The letters of a value that is no text can be few.
            if form.len() >= SHORTEST {
                self.0.add(form);
            }
        };
        forms::each(piece, &mut add);
    }

    /// `words` as text of one line, of at most `limit` characters, without any value remembered.
    pub(crate) fn clean(&self, words: &[u8], limit: usize) -> String {
        self.clean_part(words, 0..words.len(), limit)
    }

    /// As [`clean`](Self::clean), for the `part` of `words` alone: a value may begin before it, or end
    /// after it.
    pub(crate) fn clean_part(&self, words: &[u8], part: Range<usize>, limit: usize) -> String {
        // What is looked into has an end, however much there is: a letter has at most four bytes.
        let shown = part.start..part.end.min(part.start + limit * 4);
        let around = shown.start.saturating_sub(CONTEXT)..words.len().min(shown.end + CONTEXT);
        let secret = unescaped::find(&self.0, &words[around.clone()]);
        let secret = &secret[shown.start - around.start..shown.end - around.start];
        let mut text = String::new();
        let mut at = shown.start;
        for run in secret.chunk_by(|a, b| a == b) {
            match run[0] {
                true => text.push_str(REDACTED),
                false => text.push_str(&String::from_utf8_lossy(&words[at..at + run.len()])),
            }
            at += run.len();
        }
        let plain = |letter: char| if misleads(letter) { ' ' } else { letter };
        let mut letters = text.chars().map(plain);
        let mut line: String = letters.by_ref().take(limit).collect();
        if letters.next().is_some() || shown.end < part.end {
            line.push('…');
        }
        line
    }
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
        let redactor = knowing(&["hunter2", "first line\nsecond", "a \"quoted\" one"]);
        for (words, clean) in [
            ("got hunter2!", "got [redacted]!"),
            ("hunter2", "[redacted]"),
            ("hunter2hunter2 x", "[redacted] x"),
            ("got aHVudGVyMg== here", "got [redacted] here"),
            // `me:hunter2`, as a request's header has it: what the value alone decides.
            ("Basic bWU6aHVudGVyMg==", "Basic bWU6[redacted]"),
            ("68756e74657232", "[redacted]"),
            ("second of first line", "[redacted] of [redacted]"),
            (
                r#"{"value":"a \"quoted\" one"}"#,
                r#"{"value":"[redacted]"}"#,
            ),
            (r#""a \u0022quoted\u0022 one""#, r#""[redacted]""#),
            ("?q=a%20%22quoted%22%20one&", "?q=[redacted]&"),
            ("?q=a+%22quoted%22+one&", "?q=[redacted]&"),
            (r#""aHVudGVyMg\u003D\u003D""#, r#""[redacted]""#),
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
    fn a_part_is_clean_also_of_values_that_reach_beyond_it() {
        let redactor = knowing(&["hunter2"]);
        let words = b"see hunter2 there";
        for (part, clean) in [
            (0..6, "see [redacted]"),
            (6..17, "[redacted] there"),
            (6..8, "[redacted]"),
            (11..17, " there"),
            (3..3, ""),
        ] {
            assert_eq!(redactor.clean_part(words, part, 100), clean);
        }
    }

    /// Held against the clock of short words: what is not shown takes no time.
    #[test]
    fn words_without_end_are_looked_into_as_far_as_they_are_shown() {
        let mut redactor = knowing(&[]);
        for len in SHORTEST..PIECE {
            redactor.remember(&SecretBytes::copy_from(&vec![b'x'; len]));
        }
        let least = |words: &[u8]| {
            let times = (0..3).map(|_| {
                let begun = std::time::Instant::now();
                let clean = redactor.clean(words, 100);
                assert_eq!(clean, format!("{}…", "y".repeat(100)));
                begun.elapsed()
            });
            times.min().expect("three")
        };
        let long = vec![b'y'; 64 * 1024];
        let (short, long) = (least(&long[..1024]), least(&long));
        // 64 times as much.
        assert!(long < short * 16, "{long:?} for it, {short:?} for 1 KiB");
        // A value that ends after what is shown is taken out all the same.
        let words = ["y".repeat(390).as_bytes(), &[b'x'; 90][..], b"y"].concat();
        let shown = redactor.clean_part(&words, 380..words.len(), 5);
        assert_eq!(shown, "yyyyy…");
        assert_eq!(redactor.clean_part(&words, 388..words.len(), 5), "yy[re…");
    }

    #[test]
    fn a_long_value_is_taken_out_whole_and_of_a_very_long_one_the_beginning() {
        // No piece like another.
        let letters = |count: usize| -> String {
            let mut state = 1_u64;
            let letter = |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'a' + (state >> 33) as u8 % 26)
            };
            (0..count).map(letter).collect()
        };
        let long = letters(10 * PIECE + 50);
        let redactor = knowing(&[&long]);
        let words = format!("<{long}>");
        assert_eq!(redactor.clean(words.as_bytes(), 9999), "<[redacted]>");
        let very = letters(PIECES * PIECE + 10);
        let clean = knowing(&[&very]).clean(very.as_bytes(), 9999);
        assert_eq!(clean, format!("{REDACTED}{}", &very[PIECES * PIECE..]));
    }

    #[test]
    fn of_words_without_end_the_beginning_is_looked_at() {
        let redactor = knowing(&["hunter2"]);
        let words = "hunter2".repeat(64 * 1024);
        assert_eq!(redactor.clean(words.as_bytes(), 999), "[redacted]…");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_remembered_and_are_taken_out(value: Vec<u8>) {
            prop_assume!(value.len() >= SHORTEST && !value.contains(&b'~'));
            let mut redactor = Redactor::new().expect("randomness");
            redactor.remember(&SecretBytes::copy_from(&value));
            let words = [b"~", &value[..], b"~"].concat();
            prop_assert_eq!(redactor.clean(&words, 999), format!("~{REDACTED}~"));
            prop_assert_eq!(redactor.clean(b"a b, c", 99), "a b, c");
        }

        #[test]
        fn no_value_survives_wherever_it_stands(
            value in "[a-z]{4,300}",
            before in "[A-Z]{0,9}",
            after in "[A-Z]{0,9}",
        ) {
            let redactor = knowing(&[&value]);
            let words = format!("{before}{value}{after}");
            let clean = redactor.clean(words.as_bytes(), 999);
            prop_assert_eq!(clean, format!("{before}{REDACTED}{after}"));
        }
    }
}
