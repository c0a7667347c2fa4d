//! What QEMU's `secret` object decrypts: AES-256 in CBC mode with PKCS#7 padding.
//!
//! It has no integrity check: QEMU takes one wrong key in fifteen and hands the consumer garbage.
//! What arrives is proven by the consumer, never by the object being accepted.

use aes::Aes256Enc;
use base64ct::{Base64, Encoding};
use cbc::cipher::array::Array;
use cbc::cipher::consts::U16;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};

use super::MasterKey;
use crate::{Error, ErrorKind, Result};

/// The block length of AES, and so of the IV.
pub const BLOCK: usize = 16;

type Block = Array<u8, U16>;

/// A secret as QEMU takes it: the IV and whole blocks. No secret without the master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// The initialisation vector, fresh for each secret.
    pub iv: [u8; BLOCK],
    /// The encrypted blocks, at least one.
    pub data: Vec<u8>,
}

impl Ciphertext {
    /// The IV as `iv=` takes it.
    pub fn iv_base64(&self) -> String {
        Base64::encode_string(&self.iv)
    }

    /// The data as `data=` takes it with `format=base64`.
    pub fn data_base64(&self) -> String {
        Base64::encode_string(&self.data)
    }

    /// How long [`data_base64`](Self::data_base64) is.
    pub fn data_base64_len(&self) -> usize {
        Base64::encoded_len(&self.data)
    }
}

/// Encrypts `plaintext` under `master` with a fresh random IV. An empty secret becomes one block
/// of padding: QEMU reads before its buffer when there is none.
///
/// # Errors
/// `Internal` where the system has no randomness to give.
pub fn encrypt(master: &MasterKey, plaintext: &[u8]) -> Result<Ciphertext> {
    let mut iv = [0; BLOCK];
    crate::random::fill(&mut iv)?;
    let data = encrypt_with_iv(master, &iv, plaintext)?;
    Ok(Ciphertext { iv, data })
}

/// As [`encrypt`], with an IV given by a test vector. Never with one used before.
pub(crate) fn encrypt_with_iv(
    master: &MasterKey,
    iv: &[u8; BLOCK],
    plaintext: &[u8],
) -> Result<Vec<u8>> {
    let mut cipher = cbc::Encryptor::<Aes256Enc>::new_from_slices(master.expose(), iv)
        .map_err(|error| Error::new(ErrorKind::Internal, "AES-256-CBC").with_source(error))?;
    let (whole, rest) = Block::slice_as_chunks(plaintext);
    let mut data = vec![0; (whole.len() + 1) * BLOCK];
    let (blocks, _) = Block::slice_as_chunks_mut(&mut data);
    let (encrypted, last) = blocks.split_at_mut(whole.len());
    // From one buffer into the other: no copy of the plaintext is made, but of its last block,
    // which its ciphertext overwrites.
    cipher
        .encrypt_blocks_b2b(whole, encrypted)
        .map_err(|error| Error::new(ErrorKind::Internal, "AES-256-CBC").with_source(error))?;
    last[0].fill((BLOCK - rest.len()) as u8);
    last[0][..rest.len()].copy_from_slice(rest);
    cipher.encrypt_blocks(last);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// NIST SP 800-38A, F.2.5 CBC-AES256.Encrypt.
    #[test]
    fn agrees_with_the_nist_vectors() {
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        let plain = hex(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        );
        let cipher = hex(
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d\
             39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        );
        let master = MasterKey::from_vector(key.as_slice().try_into().expect("32 bytes"));
        let iv = iv.as_slice().try_into().expect("16 bytes");
        let made = encrypt_with_iv(&master, iv, &plain).expect("encrypted");
        assert_eq!(made[..64], cipher);
        // The vectors have no padding; a whole number of blocks gets one more.
        assert_eq!(made.len(), 80);
    }

    #[test]
    fn openssl_decrypts_every_length() {
        for len in (0..=49).chain([255, 256, 4096, 100_003]) {
            let master = MasterKey::generate().expect("randomness");
            let plain: Vec<u8> = (0..len).map(|n| (n * 7 % 251) as u8).collect();
            let made = encrypt(&master, &plain).expect("encrypted");
            assert_eq!(made.data.len(), (len / BLOCK + 1) * BLOCK);
            assert_eq!(openssl("-d", &master, &made.iv, &made.data), plain, "{len}");
        }
    }

    #[test]
    fn openssl_encrypts_the_same() {
        let master = MasterKey::generate().expect("randomness");
        let iv = [7; BLOCK];
        for plain in [b"".as_slice(), b"hunter2", b"exactly 16 bytes", &[0; 1000]] {
            let made = encrypt_with_iv(&master, &iv, plain).expect("encrypted");
            assert_eq!(made, openssl("-e", &master, &iv, plain));
        }
    }

    #[test]
    fn no_iv_comes_twice() {
        let master = MasterKey::generate().expect("randomness");
        let one = encrypt(&master, b"hunter2").expect("encrypted");
        let other = encrypt(&master, b"hunter2").expect("encrypted");
        assert_ne!(one.iv, other.iv);
        assert_ne!(one.data, other.data);
    }

    #[test]
    fn base64_is_what_openssl_prints() {
        let made = Ciphertext {
            iv: *b"0123456789abcdef",
            data: b"\xff\xfe\xfd".repeat(16),
        };
        assert_eq!(made.iv_base64(), "MDEyMzQ1Njc4OWFiY2RlZg==");
        assert_eq!(made.data_base64(), "//79".repeat(16));
        assert_eq!(made.data_base64_len(), 64);
    }

    /// Runs the `openssl` program. The key of a test may stand in its arguments.
    fn openssl(mode: &str, master: &MasterKey, iv: &[u8], input: &[u8]) -> Vec<u8> {
        let lower = base16ct::lower::encode_string;
        let mut child = Command::new("openssl")
            .args(["enc", "-aes-256-cbc", mode, "-K", &lower(master.expose())])
            .args(["-iv", &lower(iv)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the openssl program: apt-get install openssl");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("ended");
        writer.join().expect("no panic").expect("written");
        assert!(output.status.success());
        output.stdout
    }

    fn hex(text: &str) -> Vec<u8> {
        base16ct::lower::decode_vec(text).expect("hex")
    }
}
