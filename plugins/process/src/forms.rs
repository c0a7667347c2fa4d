//! The forms in which a value may stand in a program's words.

use base64ct::{Base64, Base64Unpadded, Base64UrlUnpadded, Encoding};
use keyhaul_core::wipe;

/// The longest piece of a value that has forms. A multiple of three, so that the forms of a value in
/// base64 are those of its pieces, one after the other.
pub(crate) const PIECE: usize = 96;

/// The longest form: two digits for each byte.
pub(crate) const LONGEST: usize = 2 * PIECE;

/// Gives `each` the forms of `piece`, none of them empty: as it is, in base64 and hex. Escapes are no
/// forms: they are taken out of the words.
pub(crate) fn each(piece: &[u8], mut each: impl FnMut(&[u8])) {
    each(piece);
    let mut form = Form::default();
    for encoding in [
        base64::<Base64>,
        base64::<Base64Unpadded>,
        base64::<Base64UrlUnpadded>,
    ] {
        each(encoding(&mut form, piece));
    }
    // Inside a longer text, as a password in `Authorization: Basic`: what does not depend on the
    // bytes before and after.
    for skipped in 0..3 {
        let inside = piece.get(skipped..).unwrap_or_default();
        let inside = &inside[..inside.len() / 3 * 3];
        if inside.len() >= 6 {
            each(base64::<Base64>(&mut form, inside));
            each(base64::<Base64UrlUnpadded>(&mut form, inside));
        }
    }
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        each(hex(&mut form, piece, digits));
    }
}

/// A form that is being made.
struct Form {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST],
            len: 0,
        }
    }
}

impl Form {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

fn base64<'f, E: Encoding>(form: &'f mut Form, bytes: &[u8]) -> &'f [u8] {
    // It fails only where there is no room, and there is.
    E::encode(bytes, &mut form.bytes).map_or(&[], str::as_bytes)
}

fn hex<'f>(form: &'f mut Form, bytes: &[u8], digits: &[u8; 16]) -> &'f [u8] {
    form.len = 0;
    for byte in bytes {
        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
        form.push(&[digits[high], digits[low]]);
    }
    form.bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forms(piece: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        each(piece, |form| all.push(form.to_vec()));
        all
    }

    /// The texts are what Python's base64 and xxd print.
    #[test]
    fn the_forms_are_those_that_other_programs_write() {
        let value = "pä\"\n/?\u{1f511}";
        let forms = forms(value.as_bytes());
        for form in [
            "pä\"\n/?\u{1f511}",
            "cMOkIgovP/CflJE=",
            "cMOkIgovP_CflJE",
            "70c3a4220a2f3ff09f9491",
            "70C3A4220A2F3FF09F9491",
        ] {
            assert!(forms.contains(&form.as_bytes().to_vec()), "{form}");
        }
    }

    proptest! {
        #[test]
        fn what_stands_inside_a_longer_base64_has_a_form(
            before in proptest::collection::vec(any::<u8>(), 0..8),
            piece in proptest::collection::vec(any::<u8>(), 8..PIECE),
            after in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let all = [before, piece.clone(), after].concat();
            let text = Base64::encode_string(&all).into_bytes();
            let found = forms(&piece).iter().any(|form| {
                // All but what shares a letter with its neighbours.
                form.len() >= piece.len().saturating_sub(4) / 3 * 4
                    && text.windows(form.len()).any(|part| part == form)
            });
            prop_assert!(found);
        }

        #[test]
        fn any_bytes_have_forms(piece in proptest::collection::vec(any::<u8>(), 1..=PIECE)) {
            let forms = forms(&piece);
            prop_assert!(forms.len() >= 6);
            prop_assert!(forms.iter().all(|form| (1..=LONGEST).contains(&form.len())));
        }
    }
}
