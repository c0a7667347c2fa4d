//! Others' words, on their way to people.

/// How many letters of a wrong word are shown.
const MOST: usize = 80;

/// Whether `letter` is not to be shown as it came: it moves the cursor, colours the screen, breaks the
/// line or turns the direction of a text (Unicode's `Bidi_Control`), so that words read as others.
pub fn misleads(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text as an error may show it: 80 letters at most, and none that [`misleads`].
pub fn shown(text: &str) -> String {
    let letter = |letter| if misleads(letter) { '\u{fffd}' } else { letter };
    let mut shown: String = text.chars().take(MOST).map(letter).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_colours_breaks_or_turns_misleads_and_letters_do_not() {
        // Escape, C1's CSI, line and paragraph separators, right-to-left override and isolate.
        let bad = [
            '\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2067}',
            '\u{200f}',
        ];
        assert!(bad.iter().all(|letter| misleads(*letter)));
        assert!(!" aé\u{5d0}\u{627}\u{1f511}…".chars().any(misleads));
    }
}
