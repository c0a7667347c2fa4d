//! Command lines: whatever the words are, they parse or are refused, and words without a reference
//! pass through byte for byte.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use keyhaul_core::qemu::command_line::CommandLine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let program = match bytes.first() {
        Some(byte) if byte % 3 == 0 => "qemu-system-x86_64",
        Some(byte) if byte % 3 == 1 => "qemu-img",
        _ => "qemu-storage-daemon",
    };
    let words = bytes
        .split(|byte| *byte == b'\n')
        .map(|word| OsString::from_vec(word.to_vec()));
    let words: Vec<OsString> = std::iter::once(OsString::from(program))
        .chain(words)
        .collect();
    let Ok(line) = CommandLine::parse(&words) else {
        return;
    };
    for object in line.references() {
        assert!(!object.id.is_empty());
    }
});
