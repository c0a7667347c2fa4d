//! What a plugin shows when it is loaded: any bytes are a table and options that can be shown, or are
//! refused, wherever their pointers lead. And a policy's options are held against them.
#![no_main]

#[rustfmt::skip]
#[path = "../../../plugins/host/src/copy.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod copy;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/credential.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod credential;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/declared.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod declared;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/lent.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod lent;

use std::ptr;

use declared::{Given, declared};
use keyhaul_core::registry::{Options, Value};
use keyhaul_plugin_abi as abi;
use libfuzzer_sys::fuzz_target;

/// How much of the bytes is the table; the rest is what it points to.
const TABLE: usize = size_of::<abi::Plugin>() / 8;

fuzz_target!(|bytes: &[u8]| {
    // Aligned, as tables are.
    let mut words = vec![0_u64; TABLE.max(bytes.len().div_ceil(8))];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    // Small numbers are offsets, so that some pointers lead somewhere.
    let base = words.as_ptr().addr() as u64;
    let end = words.len() as u64 * 8;
    for word in &mut words[2..] {
        if *word >> 32 == 0x8000_0000 {
            *word = base + (*word & 0xffff_ffff) % end;
        }
    }
    let Ok(table) = lent::table("the table", words.as_ptr().cast::<abi::Plugin>()) else {
        return;
    };
    for text in [table.name, table.version, table.summary] {
        if let Ok(text) = lent::lasting("a text", text) {
            assert!(!text.chars().any(char::is_control));
        }
    }
    let Ok(declared) = declared(&table) else {
        return;
    };
    assert_eq!(declared.len(), table.options_len);
    let values = [
        Value::Boolean(true),
        Value::Integer(-1),
        Value::Text("env:HOME".into()),
        Value::Text("5s".into()),
        Value::Texts(vec!["a".into()]),
        Value::Table(Options::default()),
    ];
    for option in &declared {
        for value in &values {
            let options = Options::at("p.toml:1:1", [(option.name.as_str(), value.clone())]);
            match Given::new(&declared, &options) {
                Ok(given) => assert!(given.pairs.len() + given.credentials.len() == 1),
                Err(error) => assert!(error.context().place.is_some(), "{error:?}"),
            }
        }
    }
    let nothing = ptr::null::<abi::Plugin>();
    assert!(lent::table("nothing", nothing).is_err());
});
