//! What a key agreement is made from.

use hpke::rand_core::{CryptoRng, Error as RandError, RngCore};
use keyhaul_core::{Result, SecretBytes};

/// Randomness drawn beforehand, since the library's way to ask for it cannot fail.
pub(super) struct Seed {
    bytes: SecretBytes,
    used: usize,
}

impl Seed {
    /// Enough for one key agreement.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub(super) fn new() -> Result<Self> {
        let bytes = SecretBytes::random(64)?;
        Ok(Self { bytes, used: 0 })
    }
}

impl RngCore for Seed {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// # Panics
    /// Past the 64 bytes; the library takes 32, which a test holds.
    fn fill_bytes(&mut self, out: &mut [u8]) {
        let end = self.used + out.len();
        out.copy_from_slice(&self.bytes.expose()[self.used..end]);
        self.used = end;
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), RandError> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Seed {}
