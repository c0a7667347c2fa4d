//! The store key: made here, wrapped by age, used for every secret.

use std::io::{Read, Write};
use std::path::Path;

use age::x25519;
use age::{DecryptError, Decryptor, Encryptor};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, random};

use crate::error::{corrupt_key, internal};
use crate::identity::Identity;

/// What the wrapped text begins with; then comes the key.
const HEAD: &[u8] = b"keyhaul store key 1\n";
const KEY: usize = 32;

pub(crate) const NONCE: usize = 24;
pub(crate) const TAG: usize = 16;

/// The key that encrypts a store's secrets. It also tells stores apart: what one key sealed, another
/// does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StoreKey(SecretBytes);

impl StoreKey {
    /// A new key.
    pub(crate) fn random() -> Result<Self> {
        SecretBytes::random(KEY).map(Self)
    }

    /// Wraps the key to `recipients`, as an age file.
    pub(crate) fn wrap(&self, recipients: &[x25519::Recipient]) -> Result<Vec<u8>> {
        let failed = |_| internal("age did not wrap the store key");
        let encryptor =
            Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn age::Recipient))
                .map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidConfig,
                        "the store key needs at least one recipient",
                    )
                })?;
        let mut wrapped = Vec::new();
        let mut output = encryptor.wrap_output(&mut wrapped).map_err(failed)?;
        output.write_all(HEAD).map_err(failed)?;
        output.write_all(self.0.expose()).map_err(failed)?;
        output.finish().map_err(failed)?;
        Ok(wrapped)
    }

    /// Opens the wrapped key with `identity`. `file` is where it was, for messages.
    ///
    /// # Errors
    /// `Unauthenticated` where the identity is none of the recipients, `Corrupt` where the file is
    /// damaged.
    pub(crate) fn unwrap(wrapped: &[u8], identity: &Identity, file: &Path) -> Result<Self> {
        let damaged = || corrupt_key(file, "is damaged, or is no store key");
        let decryptor = Decryptor::new_buffered(wrapped).map_err(|_| damaged())?;
        let mut plain = decryptor
            .decrypt(identity.keys())
            .map_err(|error| match error {
                DecryptError::NoMatchingKeys => identity.opens_nothing(file),
                _ => damaged(),
            })?;
        let mut head = [0; HEAD.len()];
        plain.read_exact(&mut head).map_err(|_| damaged())?;
        let key = SecretBytes::try_init_with(KEY, |key| plain.read_exact(key));
        let key = key.map_err(|_| damaged())?;
        let over = plain.read(&mut [0]).map_err(|_| damaged())?;
        if head != HEAD || over != 0 {
            return Err(damaged());
        }
        Ok(Self(key))
    }

    /// Appends nonce, ciphertext and tag of `value` to `output`. The tag also covers `bound`.
    pub(crate) fn seal(
        &self,
        bound: &[u8],
        value: &SecretBytes,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        let failed = || internal("the cipher refused a value");
        // 24 random bytes never repeat, however many hosts write with the same key.
        let mut nonce = XNonce::default();
        random::fill(&mut nonce)?;
        output.extend_from_slice(&nonce);
        let start = output.len();
        output.resize(start + value.len(), 0);
        let buffer = InOutBuf::new(value.expose(), &mut output[start..]).map_err(|_| failed())?;
        let tag = self
            .cipher()?
            .encrypt_inout_detached(&nonce, bound, buffer)
            .map_err(|_| failed())?;
        output.extend_from_slice(&tag);
        Ok(())
    }

    /// The value that [`seal`](Self::seal) wrote; none where anything of it, or of `bound`, differs.
    pub(crate) fn open(
        &self,
        bound: &[u8],
        nonce: &[u8],
        sealed: &[u8],
        tag: &[u8],
    ) -> Result<Option<SecretBytes>> {
        let (Ok(nonce), Ok(tag)) = (XNonce::try_from(nonce), Tag::try_from(tag)) else {
            return Ok(None);
        };
        let cipher = self.cipher()?;
        let opened = SecretBytes::try_init_with(sealed.len(), |value| {
            let buffer = InOutBuf::new(sealed, value).map_err(|_| ())?;
            cipher
                .decrypt_inout_detached(&nonce, bound, buffer, &tag)
                .map_err(|_| ())
        });
        Ok(opened.ok())
    }

    fn cipher(&self) -> Result<XChaCha20Poly1305> {
        let key = <&Key>::try_from(self.0.expose())
            .map_err(|_| internal("the store key has a wrong length"))?;
        Ok(XChaCha20Poly1305::new(key))
    }
}
