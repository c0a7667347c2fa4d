//! From what a store keeps to the bytes a consumer needs, and back.

use std::fmt;

use base64ct::{Base64, Encoding as _};

use crate::{Error, ErrorKind, Result, SecretBytes};

/// How a route's stored text stands for bytes. All of it in constant time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Standard base64 with padding (RFC 4648, section 4); one trailing newline is ignored.
    Base64,
    /// Hexadecimal digits of either case; one trailing newline is ignored.
    Hex,
    /// The bytes as they are.
    #[default]
    Raw,
    /// The bytes as they are, less one trailing newline (`\n` or `\r\n`) that an editor left.
    Text,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: &'static [Encoding] = &[Self::Base64, Self::Hex, Self::Raw, Self::Text];

    /// Its name in the policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::Raw => "raw",
            Self::Text => "text",
        }
    }

    /// The encoding of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|encoding| encoding.name() == name)
    }

    /// The bytes that `stored` stands for.
    ///
    /// # Errors
    /// `Corrupt` where it is not in this encoding. Never shows what was found.
    pub fn decode(self, stored: SecretBytes) -> Result<SecretBytes> {
        let text = match self {
            Self::Raw => return Ok(stored),
            _ => without_newline(stored.expose()),
        };
        let not = |_| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the stored value is not {}", self.name()),
            )
            .with_advice("mend the value, or the route's `encoding` (raw, text, base64, hex)")
        };
        match self {
            Self::Raw => Ok(stored),
            Self::Text if text.len() == stored.len() => Ok(stored),
            Self::Text => Ok(SecretBytes::copy_from(text)),
            Self::Base64 => {
                let mut whole = SecretBytes::init_with(text.len(), |_| {});
                let bytes = Base64::decode(text, whole.expose_mut())
                    .map_err(|_| ())
                    .map_err(not)?;
                Ok(SecretBytes::copy_from(bytes))
            }
            Self::Hex => SecretBytes::try_init_with(text.len() / 2, |bytes| {
                base16ct::mixed::decode(text, bytes)
                    .map(|_| ())
                    .map_err(|_| ())
                    .map_err(not)
            }),
        }
    }

    /// What to store for `value`.
    ///
    /// # Errors
    /// `Internal` where the value is too long to encode.
    pub fn encode(self, value: &SecretBytes) -> Result<SecretBytes> {
        let too_long = |_| Error::new(ErrorKind::Internal, "the value is too long to encode");
        let bytes = value.expose();
        match self {
            Self::Raw | Self::Text => Ok(SecretBytes::copy_from(bytes)),
            Self::Base64 => SecretBytes::try_init_with(Base64::encoded_len(bytes), |text| {
                Base64::encode(bytes, text)
                    .map(|_| ())
                    .map_err(|_| ())
                    .map_err(too_long)
            }),
            Self::Hex => SecretBytes::try_init_with(bytes.len() * 2, |text| {
                base16ct::lower::encode(bytes, text)
                    .map(|_| ())
                    .map_err(|_| ())
                    .map_err(too_long)
            }),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn without_newline(text: &[u8]) -> &[u8] {
    match text {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n'] => rest,
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(encoding: Encoding, stored: &[u8]) -> Result<Vec<u8>> {
        Ok(encoding
            .decode(SecretBytes::copy_from(stored))?
            .expose()
            .to_vec())
    }

    #[test]
    fn known_values_decode() {
        assert_eq!(
            decoded(Encoding::Base64, b"AP8=\n").expect("base64"),
            [0, 255]
        );
        assert_eq!(decoded(Encoding::Base64, b"").expect("base64"), b"");
        assert_eq!(decoded(Encoding::Hex, b"00fF\r\n").expect("hex"), [0, 255]);
        assert_eq!(
            decoded(Encoding::Text, b"pass\n\n").expect("text"),
            b"pass\n"
        );
        assert_eq!(decoded(Encoding::Raw, b"pass\n").expect("raw"), b"pass\n");
    }

    #[test]
    fn what_is_not_in_the_encoding_is_corrupt_and_not_shown() {
        for (encoding, stored) in [
            (Encoding::Base64, &b"hunter2"[..]),
            (Encoding::Base64, b"AP8"),
            (Encoding::Base64, b"AP8=\n\n"),
            (Encoding::Hex, b"abc"),
            (Encoding::Hex, b"hunter22"),
        ] {
            let error = decoded(encoding, stored).expect_err("not in the encoding");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(!format!("{error:?}").contains("hunter"));
        }
    }

    proptest! {
        #[test]
        fn encoding_and_decoding_round_trip(bytes: Vec<u8>) {
            for encoding in [Encoding::Base64, Encoding::Hex, Encoding::Raw] {
                let stored = encoding.encode(&SecretBytes::copy_from(&bytes)).expect("encodes");
                let decoded = encoding.decode(stored).expect("decodes");
                prop_assert_eq!(decoded.expose(), &bytes[..]);
            }
        }
    }
}
