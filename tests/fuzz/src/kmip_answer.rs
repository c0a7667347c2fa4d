//! Answers of KMIP servers: whatever the bytes are, they are an answer or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyhaul_kmip::read_any_answer(bytes));
