//! Bytes as an answer, each payload read in every way: for the tests and the fuzzer.

use keyhaul_core::SecretBytes;

use crate::described::Described;
use crate::message::{self, Operation};
use crate::{operations, register};

/// Nothing of it may panic, nor take more memory than the bytes have.
pub(crate) fn read_any_answer(bytes: &[u8]) {
    let answer = SecretBytes::copy_from(bytes);
    for operation in [Operation::Get, Operation::GetAttributes, Operation::Locate] {
        for asked in [&[operation][..], &[operation; 3]] {
            let outcomes = message::outcomes(&answer, asked).unwrap_or_default();
            for payload in outcomes.iter().flatten() {
                let _ = operations::value(payload);
                let _ = operations::is_about(payload, "17");
                let _ = operations::Located::of(payload);
                let _ = operations::versions(payload);
                let _ = Described::of(payload);
                let _ = register::registered(payload);
            }
        }
    }
}
