use std::convert::Infallible;
use std::fmt;

use subtle::ConstantTimeEq;

use super::arena::Block;
use crate::Result;

/// A secret value: one block of locked memory of exact size, wiped on drop.
///
/// It has no `Clone`, no `Deref`, no `Serialize`, and its `Debug` prints nothing of it. Comparison
/// takes the same time whatever the bytes are (the length is not hidden).
pub struct SecretBytes(Block);

impl SecretBytes {
    /// A value of `len` bytes, filled in place by `fill`, which gets them zeroed.
    pub fn init_with(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let made = Self::try_init_with(len, |bytes| {
            fill(bytes);
            Ok::<(), Infallible>(())
        });
        match made {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`init_with`](Self::init_with), for a `fill` that can fail; what it wrote is wiped then.
    pub fn try_init_with<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut block = Block::zeroed(len);
        fill(block.bytes_mut())?;
        Ok(Self(block))
    }

    /// A copy of `bytes`. The caller still owns, and wipes, the original.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::init_with(bytes.len(), |block| block.copy_from_slice(bytes))
    }

    /// `len` random bytes from the operating system.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub fn random(len: usize) -> Result<Self> {
        Self::try_init_with(len, crate::random::fill)
    }

    /// The bytes. Every use is a place where a secret could leave: keep it short.
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The bytes, to change in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.bytes().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_bytes_nor_length() {
        assert_eq!(
            format!("{:?}", SecretBytes::copy_from(b"hunter2")),
            "SecretBytes(…)"
        );
    }

    #[test]
    fn equality_is_by_value() {
        assert_eq!(SecretBytes::copy_from(b"a"), SecretBytes::copy_from(b"a"));
        assert_ne!(SecretBytes::copy_from(b"a"), SecretBytes::copy_from(b"b"));
        assert_ne!(SecretBytes::copy_from(b"a"), SecretBytes::copy_from(b"ab"));
    }

    #[test]
    fn random_values_differ() {
        let one = SecretBytes::random(32).expect("randomness");
        assert_ne!(one, SecretBytes::random(32).expect("randomness"));
    }
}
