//! QEMU objects, opened as QEMU opens them: to compare hundreds without hundreds of QEMUs.

use std::collections::BTreeMap;
use std::fs;

use aes::Aes256Dec;
use base64ct::{Base64, Encoding};
use cbc::Decryptor;
use cbc::cipher::array::Array;
use cbc::cipher::consts::U16;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use serde_json::Value;

/// The values in what `keyhaul resolve --format json --channel file` printed, by the objects' ids.
///
/// # Panics
/// Where there is no key, or an object that it does not open.
#[track_caller]
pub fn opened(text: &str) -> BTreeMap<String, Vec<u8>> {
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let word = |object: &Value, key: &str| object[key].as_str().map(str::to_owned);
    let master = objects.iter().find_map(|object| word(object, "file"));
    let master = fs::read(master.expect("the master key's object")).expect("the master key");
    let sealed = objects.iter().filter(|object| object["keyid"].is_string());
    let open = |object: &Value| {
        let bytes = |key| {
            let text = word(object, key).expect("text");
            Base64::decode_vec(&text).expect("base64")
        };
        let id = word(object, "id").expect("an id");
        (id, decrypted(&master, &bytes("iv"), bytes("data")))
    };
    sealed.map(open).collect()
}

/// AES-256-CBC without its padding of PKCS#7.
fn decrypted(key: &[u8], iv: &[u8], mut data: Vec<u8>) -> Vec<u8> {
    let mut cipher = Decryptor::<Aes256Dec>::new_from_slices(key, iv).expect("32 and 16 bytes");
    let (blocks, rest) = Array::<u8, U16>::slice_as_chunks_mut(&mut data);
    assert!(rest.is_empty() && !blocks.is_empty());
    cipher.decrypt_blocks(blocks);
    let padding = usize::from(*data.last().expect("a block"));
    assert!((1..=16).contains(&padding), "not the key it was made with");
    data.truncate(data.len() - padding);
    data
}
