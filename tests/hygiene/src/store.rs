//! The keys of an encrypted file store, which are secrets too.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::Needle;

const LABEL: &str = "AGE-SECRET-KEY-1";
const LETTERS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;

/// The text of an identity file's key, and the 32 bytes it stands for.
///
/// # Panics
/// Where the file holds no age identity.
pub fn identity(file: &Path) -> [Needle; 2] {
    let text = fs::read_to_string(file).expect("an identity file");
    let key = text
        .lines()
        .find(|line| line.starts_with(LABEL))
        .expect("an age identity");
    let body = key[LABEL.len()..].to_lowercase();
    [
        Needle::new("the identity's text", body.to_uppercase().as_bytes()),
        Needle::new(
            "the identity's key",
            &bech32(&body[..body.len() - CHECKSUM]),
        ),
    ]
}

/// The key of the store at `root`, opened with the identity in `file`.
///
/// # Panics
/// Where it does not open.
pub fn store_key(root: &Path, file: &Path) -> Needle {
    let text = fs::read_to_string(file).expect("an identity file");
    let key = text
        .lines()
        .find(|line| line.starts_with(LABEL))
        .expect("an age identity");
    let identity: age::x25519::Identity = key.parse().expect("an age identity");
    let wrapped = fs::read(root.join("store.key.age")).expect("a store key");
    let decryptor = age::Decryptor::new_buffered(wrapped.as_slice()).expect("an age file");
    let keys = std::iter::once(&identity as &dyn age::Identity);
    let mut plain = Vec::new();
    let mut opened = decryptor.decrypt(keys).expect("wrapped to this identity");
    opened.read_to_end(&mut plain).expect("whole");
    // A line of words, and the key.
    let start = plain
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("a line")
        + 1;
    assert_eq!(plain.len() - start, 32);
    Needle::new("the store key", &plain[start..])
}

/// The whole bytes in the letters of bech32, five bits each.
fn bech32(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.chars() {
        let value = LETTERS.find(letter).expect("a letter of bech32") as u32;
        bits = bits << 5 | value;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BIP 173's own example: the witness program of `bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4`.
    #[test]
    fn bech32_is_read_as_in_its_standard() {
        let program = bech32("w508d6qejxtdg4y5r3zarvary0c5xw7k");
        let expected = "751e76e8199196d454941c45d1b3a323f1433bd6";
        assert_eq!(base16ct::lower::encode_string(&program), expected);
    }
}
