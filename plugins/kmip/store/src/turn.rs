//! Which of several objects of one path counts: the one whose turn is the latest.
//!
//! It stands beside the object, as Application Specific Information under keyhaul's name: 32 hex
//! digits, a counter and a random tail. The counter orders writes that follow one another; the tail
//! decides between two that met, the same way for all.

use std::fmt;

use keyhaul_core::{Error, ErrorKind, Result, random};

const DIGITS: usize = 32;

/// A turn. Objects of other programs have the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u128);

impl Turn {
    /// A turn after this one, of which no two are alike.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give, or the counter is at its end.
    pub(crate) fn next(self) -> Result<Self> {
        let counter = u64::try_from(self.0 >> 64).unwrap_or(u64::MAX);
        let counter = counter.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "no turn comes after this object's")
                .with_advice("delete the secret and set it anew")
        })?;
        let mut tail = [0; 8];
        random::fill(&mut tail)?;
        let tail = u64::from_be_bytes(tail);
        Ok(Self(u128::from(counter) << 64 | u128::from(tail)))
    }

    /// The turn in a text; the first one where it is none of ours.
    pub(crate) fn of_text(text: &str) -> Self {
        let is_ours = text.len() == DIGITS
            && text
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let number = is_ours.then(|| u128::from_str_radix(text, 16).ok());
        Self(number.flatten().unwrap_or_default())
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_is_later_than_the_one_before_and_like_no_other() {
        let mut turn = Turn::default();
        for _ in 0..100 {
            let (a, b) = (turn.next().expect("a turn"), turn.next().expect("a turn"));
            assert!(a > turn && b > turn && a != b);
            assert_eq!(Turn::of_text(&a.to_string()), a);
            turn = a;
        }
        assert!(Turn(u128::MAX).next().is_err());
    }

    #[test]
    fn texts_of_others_are_the_first_turn() {
        let upper = "0000000000000001ABCDEFABCDEFABCD";
        for text in ["", "1", "+0000000000000001abcdefabcdefabc", upper, "ö"] {
            assert_eq!(Turn::of_text(text), Turn::default(), "{text}");
        }
    }
}
