//! How to make a new secret.

use crate::{Error, ErrorKind, Result, SecretBytes};

/// What a generated value is made of, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    alphabet: Alphabet,
    len: usize,
}

/// What a generated value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alphabet {
    /// `[A-Za-z0-9]`: safe wherever a passphrase is typed or quoted. 5.95 bits a character.
    Alphanumeric,
    /// Any byte: for consumers that take raw keys. 8 bits a byte.
    Bytes,
    /// `[0-9a-f]`: 4 bits a character.
    Hex,
}

impl Recipe {
    /// The longest value a recipe makes.
    pub const MAX: usize = 64 * 1024;

    /// `len` characters or bytes of `alphabet`.
    ///
    /// # Errors
    /// `InvalidConfig` where `len` is 0 or above [`MAX`](Self::MAX).
    pub fn new(alphabet: Alphabet, len: usize) -> Result<Self> {
        if len == 0 || len > Self::MAX {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("a generated value has 1 to {} bytes, not {len}", Self::MAX),
            ));
        }
        Ok(Self { alphabet, len })
    }

    /// What the value is made of.
    pub fn alphabet(&self) -> Alphabet {
        self.alphabet
    }

    /// How long the value is, in bytes.
    pub fn length(&self) -> usize {
        self.len
    }

    /// A value by this recipe, each character equally likely.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub fn make(&self) -> Result<SecretBytes> {
        let letters: &[u8] = match self.alphabet {
            Alphabet::Bytes => return SecretBytes::random(self.len),
            Alphabet::Alphanumeric => {
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
            }
            Alphabet::Hex => b"0123456789abcdef",
        };
        // Bytes past the last whole multiple of the alphabet would favour its first letters.
        let fair = 256 - 256 % letters.len();
        SecretBytes::try_init_with(self.len, |value| {
            let mut filled = 0;
            while filled < value.len() {
                let pool = SecretBytes::random((value.len() - filled) * 2)?;
                for byte in pool.expose().iter().map(|byte| usize::from(*byte)) {
                    if byte < fair && filled < value.len() {
                        value[filled] = letters[byte % letters.len()];
                        filled += 1;
                    }
                }
            }
            Ok(())
        })
    }
}

impl Default for Recipe {
    /// 32 alphanumeric characters: 190 bits, more than any passphrase's key has.
    fn default() -> Self {
        Self {
            alphabet: Alphabet::Alphanumeric,
            len: 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_to_their_alphabet_and_use_all_of_it() {
        let made = |alphabet, len| {
            Recipe::new(alphabet, len)
                .expect("valid")
                .make()
                .expect("made")
        };
        let value = made(Alphabet::Alphanumeric, 10_000);
        assert!(value.expose().iter().all(u8::is_ascii_alphanumeric));
        for letter in [b'A', b'Z', b'a', b'z', b'0', b'9'] {
            assert!(value.expose().contains(&letter));
        }
        let hex = made(Alphabet::Hex, 1000);
        assert!(
            hex.expose()
                .iter()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        );
        assert_eq!(made(Alphabet::Bytes, 1).len(), 1);
        assert!(Recipe::new(Alphabet::Bytes, 0).is_err());
    }
}
