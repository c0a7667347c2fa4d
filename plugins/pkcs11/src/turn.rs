//! Which of several objects of one path counts: the one whose turn is the latest.
//!
//! It stands in `CKA_OBJECT_ID`, which by the standard is a DER-encoded object identifier: one of
//! `2.25.A.B.C.D`, where A and B are a counter and C and D random. The counter orders writes that
//! follow one another; the tail decides between two that met, the same way for all.
//!
//! Why four numbers, and none of 128 bits after 2.25, as a UUID is written there? Some libraries
//! take no number of an identifier that is larger than an `int`, and no more than 15 of them:
//! OpenSC is one.

use keyhaul_core::{Error, ErrorKind, Result, random};

const TAG: u8 = 0x06;
/// The arc 2.25: 2 × 40 + 25 is less than 128, and so one byte.
const ARC: u8 = 80 + 25;
const CONTINUED: u8 = 0x80;
/// How many numbers follow it, and how large each is: four of the encoding's digits.
const NUMBERS: u32 = 4;
const BITS: u32 = 28;
/// The bits of the tail, and of the counter.
const HALF: u32 = NUMBERS * BITS / 2;

/// A turn. Objects of other programs have the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u128);

impl Turn {
    /// A turn after this one, of which no two are alike.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give, or the counter is at its end.
    pub(crate) fn next(self) -> Result<Self> {
        let counter = (self.0 >> HALF) + 1;
        if counter >> HALF != 0 {
            let rule = "no turn comes after this object's";
            return Err(Error::new(ErrorKind::Internal, rule)
                .with_advice("delete the secret and set it anew"));
        }
        let mut tail = [0; 8];
        random::fill(&mut tail)?;
        let tail = u128::from(u64::from_be_bytes(tail)) & ((1 << HALF) - 1);
        Ok(Self(counter << HALF | tail))
    }

    /// The object identifier.
    pub(crate) fn to_der(self) -> Vec<u8> {
        let mut der = vec![TAG, 0, ARC];
        for number in (0..NUMBERS).rev() {
            let number = self.0 >> (number * BITS) & ((1 << BITS) - 1);
            let digits = (number.checked_ilog2().unwrap_or(0) / 7 + 1) as usize;
            for digit in (0..digits).rev() {
                // The last digit alone is not continued.
                let continued = if digit == 0 { 0 } else { CONTINUED };
                der.push((number >> (digit * 7) & 0x7f) as u8 | continued);
            }
        }
        // At most 17 bytes.
        der[1] = (der.len() - 2) as u8;
        der
    }

    /// The turn in an object identifier; the first one where it is none of ours.
    pub(crate) fn of_der(der: &[u8]) -> Self {
        Self::parse(der)
            .filter(|turn| turn.to_der() == der)
            .unwrap_or_default()
    }

    /// Reads more than [`Self::to_der`] writes.
    fn parse(der: &[u8]) -> Option<Self> {
        let [TAG, _, ARC, digits @ ..] = der else {
            return None;
        };
        let (mut turn, mut number) = (0_u128, 0_u128);
        for digit in digits {
            number = number << 7 | u128::from(digit & 0x7f);
            if number >> BITS != 0 {
                return None;
            }
            if digit & CONTINUED == 0 {
                turn = turn.checked_mul(1 << BITS)? | number;
                number = 0;
            }
        }
        Some(Self(turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn of these four numbers.
    fn of(numbers: [u128; 4]) -> Turn {
        let [a, b, c, d] = numbers;
        Turn(a << 84 | b << 56 | c << 28 | d)
    }

    #[test]
    fn identifiers_are_as_x_690_encodes_them() {
        const MOST: u128 = (1 << 28) - 1;
        // By hand.
        let cases: [([u128; 4], &[u8]); 4] = [
            ([0; 4], &[0x06, 0x05, 0x69, 0, 0, 0, 0]),
            ([0, 1, 127, 128], &[0x06, 0x06, 0x69, 0, 1, 0x7f, 0x81, 0]),
            (
                [1, 0, 16384, 300],
                &[0x06, 0x08, 0x69, 1, 0, 0x81, 0x80, 0, 0x82, 0x2c],
            ),
            (
                [0, 2, MOST, MOST],
                &[
                    0x06, 0x0b, 0x69, 0, 2, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f,
                ],
            ),
        ];
        for (numbers, der) in cases {
            assert_eq!(of(numbers).to_der(), der);
            assert_eq!(Turn::of_der(der), of(numbers));
        }
        let last = of([MOST; 4]);
        assert_eq!(Turn::of_der(&last.to_der()), last);
        assert!(last.next().is_err());
    }

    #[test]
    fn each_turn_is_later_than_the_one_before_and_like_no_other() {
        // Over the end of the counter's lower number, too.
        for mut turn in [Turn::default(), of([0, (1 << 28) - 50, 0, 0])] {
            for _ in 0..100 {
                let (a, b) = (turn.next().expect("a turn"), turn.next().expect("a turn"));
                assert!(a > turn && b > turn && a != b);
                assert_eq!(Turn::of_der(&a.to_der()), a);
                turn = a;
            }
        }
    }

    #[test]
    fn identifiers_of_others_are_the_first_turn() {
        // Nothing, another arc, a number with a leading zero, one of 29 bits, five numbers, a number
        // that does not end, a wrong length.
        let others: [&[u8]; 8] = [
            &[],
            &[0x06, 0x02, 0x2a, 0x03],
            &[0x06, 0x06, 0x69, 0x80, 1, 1, 1, 1],
            &[0x06, 0x09, 0x69, 0x81, 0x80, 0x80, 0x80, 0, 1, 1, 1],
            &[0x06, 0x06, 0x69, 1, 1, 1, 1, 1],
            &[0x06, 0x05, 0x69, 1, 1, 1, 0x81],
            &[0x06, 0x09, 0x69, 1, 1, 1, 1],
            b"pkcs11-tool",
        ];
        for der in others {
            assert_eq!(Turn::of_der(der), Turn::default(), "{der:02x?}");
        }
    }
}
