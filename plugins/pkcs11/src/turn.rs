//! Which of several objects of one path counts: the one whose turn is the latest.
//!
//! It stands in `CKA_OBJECT_ID`, which by the standard is a DER-encoded object identifier: one of
//! `2.25.N`, where N, a number of 128 bits, is a counter and a random tail. The counter orders
//! writes that follow one another; the tail decides between two that met, the same way for all.

use keyhaul_core::{Error, ErrorKind, Result, random};

const TAG: u8 = 0x06;
/// The arc 2.25: 2 × 40 + 25 does not fit the first byte's 7 bits alone, hence two.
const ARC: u8 = 80 + 25;
const CONTINUED: u8 = 0x80;

/// A turn. Objects of other programs have the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u128);

impl Turn {
    /// A turn after this one, of which no two are alike.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give, or the counter is at its end.
    pub(crate) fn next(self) -> Result<Self> {
        let counter = (self.0 >> 64)
            .checked_add(1)
            .filter(|n| *n <= u64::MAX.into());
        let counter = counter.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "no turn comes after this object's")
                .with_advice("delete the secret and set it anew")
        })?;
        let mut tail = [0; 8];
        random::fill(&mut tail)?;
        Ok(Self(counter << 64 | u128::from(u64::from_be_bytes(tail))))
    }

    /// The object identifier.
    pub(crate) fn to_der(self) -> Vec<u8> {
        let mut digits = Vec::new();
        let mut rest = self.0;
        loop {
            // The lower 7 bits; the last digit alone is not continued.
            let continued = if digits.is_empty() { 0 } else { CONTINUED };
            digits.push((rest & 0x7f) as u8 | continued);
            rest >>= 7;
            if rest == 0 {
                break;
            }
        }
        digits.push(ARC);
        let mut der = vec![TAG, digits.len() as u8];
        der.extend(digits.iter().rev());
        der
    }

    /// The turn in an object identifier; the first one where it is none of ours.
    pub(crate) fn of_der(der: &[u8]) -> Self {
        Self::parse(der)
            .filter(|turn| turn.to_der() == der)
            .unwrap_or_default()
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let [TAG, _, ARC, digits @ ..] = der else {
            return None;
        };
        digits
            .iter()
            .try_fold(0_u128, |number, digit| {
                let shifted = number.checked_mul(128)?;
                shifted.checked_add((digit & 0x7f).into())
            })
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_as_x_690_encodes_them() {
        // 2.25.0, 2.25.127, 2.25.128, 2.25.16384, by hand.
        let cases: [(u128, &[u8]); 4] = [
            (0, &[0x06, 0x02, 0x69, 0x00]),
            (127, &[0x06, 0x02, 0x69, 0x7f]),
            (128, &[0x06, 0x03, 0x69, 0x81, 0x00]),
            (16384, &[0x06, 0x04, 0x69, 0x81, 0x80, 0x00]),
        ];
        for (number, der) in cases {
            assert_eq!(Turn(number).to_der(), der);
            assert_eq!(Turn::of_der(der), Turn(number));
        }
        let last = Turn(u128::MAX);
        assert_eq!(Turn::of_der(&last.to_der()), last);
        assert!(last.next().is_err());
    }

    #[test]
    fn each_turn_is_later_than_the_one_before_and_like_no_other() {
        let mut turn = Turn::default();
        for _ in 0..100 {
            let (a, b) = (turn.next().expect("a turn"), turn.next().expect("a turn"));
            assert!(a > turn && b > turn && a != b);
            turn = a;
        }
    }

    #[test]
    fn identifiers_of_others_are_the_first_turn() {
        // Nothing, another arc, a number with a leading zero, one of 133 bits, a wrong length.
        let long = [&[0x06, 0x14, 0x69][..], &[0xff; 18], &[0x7f]].concat();
        let others: [&[u8]; 6] = [
            &[],
            &[0x06, 0x02, 0x2a, 0x03],
            &[0x06, 0x03, 0x69, 0x80, 0x01],
            &long,
            &[0x06, 0x09, 0x69, 0x01],
            b"pkcs11-tool",
        ];
        for der in others {
            assert_eq!(Turn::of_der(der), Turn::default(), "{der:02x?}");
        }
    }
}
