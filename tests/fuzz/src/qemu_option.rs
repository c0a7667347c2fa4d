//! QEMU's options: any bytes come apart without a panic, the parts lie where they say, and what
//! is escaped comes back.
#![no_main]

use keyhaul_core::qemu::option::{Options, escape, pairs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut end = 0;
    for pair in pairs(bytes, Some("qom-type")) {
        assert!(pair.range.start >= end && pair.range.end <= bytes.len());
        end = pair.range.end;
    }
    Options::of_pairs(bytes, None);
    Options::of_json(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let option = format!("secret,id=s,data={}", escape(text));
        assert_eq!(
            Options::of_pairs(option.as_bytes(), Some("qom-type")).get("data"),
            Some(text)
        );
    }
});
