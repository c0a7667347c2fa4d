use std::fmt;

use crate::{Result, SecretBytes};

/// The key that encrypts the secrets of one QEMU process: 32 random bytes, gone with the value.
///
/// There is no way to make one from given bytes, to copy it or to print it: a master key is never
/// reused, and never stored by anything but a [channel](super::channel).
pub struct MasterKey(SecretBytes);

impl MasterKey {
    /// Its length in bytes: an AES-256 key.
    pub const LEN: usize = 32;

    /// A fresh key from the operating system.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        SecretBytes::random(Self::LEN).map(Self)
    }

    /// The bytes, for a channel and for the cipher.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// A key of a published test vector.
    #[cfg(test)]
    pub(crate) fn from_vector(bytes: &[u8; Self::LEN]) -> Self {
        Self(SecretBytes::copy_from(bytes))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_do_not_print() {
        let one = MasterKey::generate().expect("randomness");
        let other = MasterKey::generate().expect("randomness");
        assert_eq!(one.expose().len(), 32);
        assert_ne!(one.expose(), other.expose());
        assert_eq!(format!("{one:?}"), "MasterKey(…)");
    }
}
