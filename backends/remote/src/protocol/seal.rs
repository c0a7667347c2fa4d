//! Values sealed end to end, by HPKE (RFC 9180): from the process that holds a value to the
//! process that asked for it, through TLS libraries, HTTP libraries and their buffers.
//!
//! One key agreement serves all that goes to one public key. Each message, which is one answer to
//! one read or one write, has a key of its own, made by HPKE's export from a fresh salt; each value
//! in it has a nonce of its own, its index. What a value is bound to stands in [`Binding`].
//!
//! The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only; the values' cipher is
//! AES-256-GCM. Post-quantum is the TLS around it.

mod seed;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use base64ct::{Base64, Encoding as _};
use hpke::aead::{AeadCtxR, AeadCtxS, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use keyhaul_core::{
    Error, ErrorKind, Result, SecretBytes, random, wipe, wiping_some_stack, wiping_stack,
};

use self::seed::Seed;
use super::limit;

type PublicKey = <X25519HkdfSha256 as hpke::Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as hpke::Kem>::PrivateKey;
type EncappedKey = <X25519HkdfSha256 as hpke::Kem>::EncappedKey;

/// HPKE's `info`: what the agreement is for.
const INFO: &[u8] = b"keyhaul v1";
/// Bytes of a salt.
const SALT: usize = 16;

/// Which way a value travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To a node that reads it.
    Read,
    /// To the server that writes it.
    Write,
}

/// What a sealed value is bound to: it opens for nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The SHA-256 of the client's certificate (DER): who asks, as both ends of the TLS see it.
    pub client: &'a [u8; 32],
    /// The request's nonce, in base64 as it travels; the salt for a write.
    pub nonce: &'a str,
    /// `SCOPE/NAME` as the request has it.
    pub secret: &'a str,
    /// The version asked for, where one is named.
    pub version: Option<&'a str>,
    /// The field asked for or written, where one is named.
    pub field: Option<&'a str>,
}

impl Binding<'_> {
    /// The additional data: seven lines, none of which can hold a line's end.
    fn additional(&self, purpose: Purpose, index: usize) -> String {
        format!(
            "keyhaul v1 {}\n{}\n{}\n{index}\n{}\n{}\n{}",
            purpose.word(),
            base16ct::lower::encode_string(self.client),
            self.nonce,
            self.secret,
            self.version.unwrap_or_default(),
            self.field.unwrap_or_default(),
        )
    }
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// HPKE's exporter context of a message's key.
    fn context(self, salt: &[u8; SALT]) -> Vec<u8> {
        [b"keyhaul v1 ", self.word().as_bytes(), b" ", salt].concat()
    }
}

/// Whoever values are sealed to: a key pair for the life of a process.
pub struct Recipient {
    private: PrivateKey,
    public: String,
}

impl Recipient {
    /// A fresh key pair.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub fn new() -> Result<Self> {
        let seed = SecretBytes::random(32)?;
        let (private, public) = wiping_stack(|| X25519HkdfSha256::derive_keypair(seed.expose()));
        Ok(Self {
            private,
            public: Base64::encode_string(&public.to_bytes()),
        })
    }

    /// The holder of a key that a test knows.
    #[cfg(test)]
    pub(super) fn of(private: &[u8]) -> Self {
        let private = PrivateKey::from_bytes(private).expect("a private key");
        let public = Base64::encode_string(&X25519HkdfSha256::sk_to_pk(&private).to_bytes());
        Self { private, public }
    }

    /// The public key in base64.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Meets what was sealed to this key. Costs a key agreement: keep it for as long as the far end
    /// keeps to the same `enc`.
    ///
    /// # Errors
    /// `Corrupt` where `enc` is none.
    pub fn meet(&self, enc: &str) -> Result<Receiver> {
        let bytes: [u8; 32] = fixed(enc, "the encapsulated key")?;
        let enc = EncappedKey::from_bytes(&bytes).map_err(|_| corrupt("no encapsulated key"))?;
        let context = wiping_stack(|| {
            hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                &self.private,
                &enc,
                INFO,
            )
        });
        let context = context.map_err(|_| corrupt("the encapsulated key is unfit"))?;
        Ok(Receiver(context))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The receiving side of a key agreement.
pub struct Receiver(AeadCtxR<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>);

impl Receiver {
    /// The opener of one message.
    ///
    /// # Errors
    /// `Corrupt` where `salt` is none.
    pub fn opener(&self, purpose: Purpose, salt: &str) -> Result<Opener> {
        let salt = fixed(salt, "the salt")?;
        let key = message_key(|out| self.0.export(&purpose.context(&salt), out))?;
        Ok(Opener { key, purpose })
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver(..)")
    }
}

/// Opens the values of one message.
pub struct Opener {
    key: LessSafeKey,
    purpose: Purpose,
}

impl Opener {
    /// The value that was sealed as the message's `index`th, for `binding`.
    ///
    /// # Errors
    /// `Corrupt` where it was not, or was changed on the way; `TooLarge` past [`limit::VALUE`].
    pub fn open(&self, binding: &Binding<'_>, index: usize, sealed: &str) -> Result<SecretBytes> {
        let len = sealed.len() / 4 * 3;
        if len > limit::VALUE + MAX_TAG_LEN + 2 {
            return Err(Error::new(ErrorKind::TooLarge, "the value is too long"));
        }
        let mut buffer = vec![0; len];
        let bytes = Base64::decode(sealed, &mut buffer)
            .map_err(|_| corrupt("a sealed value is no base64"))?
            .len();
        buffer.truncate(bytes);
        let aad = Aad::from(binding.additional(self.purpose, index));
        let opened = self.key.open_in_place(nonce(index)?, aad, &mut buffer);
        let value = opened.map(|value| SecretBytes::copy_from(value));
        wipe(&mut buffer);
        value.map_err(|_| corrupt("a sealed value does not open: it is another's, or was changed"))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}

/// The sending side of a key agreement with one public key.
pub struct Sender {
    context: AeadCtxS<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>,
    enc: String,
}

impl Sender {
    /// Agrees with the holder of `public`, a key in base64.
    ///
    /// # Errors
    /// `InvalidReference` where it is none; `Internal` where the system has no randomness to give.
    pub fn to(public: &str) -> Result<Self> {
        let refused = || {
            Error::new(
                ErrorKind::InvalidReference,
                "`key` is no X25519 key in base64",
            )
        };
        let bytes: [u8; 32] = fixed(public, "the key").map_err(|_| refused())?;
        let public = PublicKey::from_bytes(&bytes).map_err(|_| refused())?;
        let mut seed = Seed::new()?;
        let agreed = wiping_stack(|| {
            hpke::setup_sender::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256, _>(
                &OpModeS::Base,
                &public,
                INFO,
                &mut seed,
            )
        });
        let (enc, context) = agreed.map_err(|_| refused())?;
        Ok(Self {
            context,
            enc: Base64::encode_string(&enc.to_bytes()),
        })
    }

    /// The encapsulated key, in base64: the far end meets it.
    pub fn enc(&self) -> &str {
        &self.enc
    }

    /// The sealer of one message.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub fn sealer(&self, purpose: Purpose) -> Result<Sealer> {
        let mut salt = [0; SALT];
        random::fill(&mut salt)?;
        let key = message_key(|out| self.context.export(&purpose.context(&salt), out))?;
        Ok(Sealer {
            key,
            purpose,
            salt: Base64::encode_string(&salt),
        })
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("enc", &self.enc)
            .finish_non_exhaustive()
    }
}

/// Seals the values of one message.
pub struct Sealer {
    key: LessSafeKey,
    purpose: Purpose,
    salt: String,
}

impl Sealer {
    /// The salt, in base64.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// `value`, sealed as the message's `index`th, in base64. Each index is used once.
    ///
    /// # Errors
    /// `InvalidReference` where the binding holds a line's end; `Internal` where the cipher fails.
    pub fn seal(&self, binding: &Binding<'_>, index: usize, value: &SecretBytes) -> Result<String> {
        let additional = binding.additional(self.purpose, index);
        if additional.bytes().filter(|byte| *byte == b'\n').count() != 6 {
            let rule = "a name holds the end of a line";
            return Err(Error::new(ErrorKind::InvalidReference, rule));
        }
        let mut buffer = Vec::with_capacity(value.len() + MAX_TAG_LEN);
        buffer.extend_from_slice(value.expose());
        let aad = Aad::from(additional);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(index)?, aad, &mut buffer);
        let Ok(tag) = tag else {
            wipe(&mut buffer);
            return Err(internal("a value cannot be sealed"));
        };
        buffer.extend_from_slice(tag.as_ref());
        Ok(Base64::encode_string(&buffer))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// The cipher of one message, with the key that HPKE exports.
fn message_key(
    export: impl FnOnce(&mut [u8]) -> Result<(), hpke::HpkeError>,
) -> Result<LessSafeKey> {
    wiping_some_stack(|| {
        let mut key = [0; 32];
        let exported = export(&mut key).map_err(|_| internal("a key cannot be exported"));
        let unbound = exported.and_then(|()| {
            UnboundKey::new(&AES_256_GCM, &key).map_err(|_| internal("a key cannot be used"))
        });
        wipe(&mut key);
        unbound.map(LessSafeKey::new)
    })
}

/// A value's place in its message as the cipher's nonce: each message has its own key.
fn nonce(index: usize) -> Result<Nonce> {
    let index = u32::try_from(index).map_err(|_| internal("a message without end"))?;
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&index.to_be_bytes());
    Ok(Nonce::assume_unique_for_key(bytes))
}

fn fixed<const N: usize>(text: &str, what: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match Base64::decode(text, &mut bytes) {
        Ok(decoded) if decoded.len() == N => Ok(bytes),
        _ => Err(corrupt(format!("{what} is not {N} bytes in base64"))),
    }
}

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

fn internal(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what)
}
