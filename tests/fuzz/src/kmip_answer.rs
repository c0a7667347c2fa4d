//! Answers of KMIP servers: whatever the bytes are, they are an answer or an error.
#![no_main]

#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/every_way.rs"]
mod every_way;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/failure.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod failure;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/message.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod message;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/operations.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod operations;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/reason.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod reason;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/ttlv/mod.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod ttlv;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/src/turn.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod turn;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| every_way::read_any_answer(bytes));
