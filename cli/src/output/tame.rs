//! Words of others, which mislead nobody.

use std::fmt::Write as _;

use keyhaul_core::misleads;

/// What somebody put into a store, for a person: what moves the cursor, colours the screen, breaks
/// the line or turns the direction of a text is shown as what it is, as `\n` or `\u{1b}`.
pub fn tame(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The same for a JSON document, which reads back as it was: its texts may hold what JSON itself
/// leaves as it is. Its own line breaks stay.
pub fn tame_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) && c != '\n' {
            // All of them have four digits. Writing to a String cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_shown_as_what_it_is_and_the_rest_as_it_is() {
        for (text, shown) in [
            ("plain \u{e4}\u{1f511} \\n", "plain \u{e4}\u{1f511} \\n"),
            ("a\nb\tc\r", r"a\nb\tc\r"),
            ("\x1b[2J\u{9b}31m\x7f", r"\u{1b}[2J\u{9b}31m\u{7f}"),
            (
                "a\u{202e}b\u{2066}c\u{2028}",
                r"a\u{202e}b\u{2066}c\u{2028}",
            ),
        ] {
            assert_eq!(tame(text), shown);
        }
    }

    #[test]
    fn a_json_document_reads_back_and_has_nothing_that_misleads() {
        let value =
            serde_json::json!({"a\u{9b}": "b\x7f\u{202e}\n\u{e4}\u{61c}", "c": [1, "\x1b"]});
        let text = serde_json::to_string_pretty(&value).expect("written");
        // The control: JSON itself leaves some.
        assert!(text.contains('\u{9b}') && text.contains('\u{202e}'));
        let tamed = tame_json(&text);
        assert!(tamed.chars().all(|c| c == '\n' || !misleads(c)), "{tamed}");
        let read: serde_json::Value = serde_json::from_str(&tamed).expect("JSON");
        assert_eq!(read, value);
    }
}
