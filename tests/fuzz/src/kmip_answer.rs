//! Answers of KMIP servers: whatever the bytes are, they are an answer or an error.
#![no_main]

#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/described.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod described;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/every_way.rs"]
mod every_way;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/failure.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod failure;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/message.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod message;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/operations.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod operations;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/reason.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod reason;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/register.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod register;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/ttlv/mod.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod ttlv;
#[rustfmt::skip]
#[path = "../../../plugins/kmip/store/src/turn.rs"]
#[allow(dead_code, reason = "the store's own, of which this uses a part")]
mod turn;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| every_way::read_any_answer(bytes));
