//! TTLV, KMIP's encoding: tag, type, length, value, each item padded to eight bytes.
//!
//! Ours, and not a crate's, for one reason: values are written once, into memory of the right size,
//! and read where they lie. See ADR 0027.

mod read;
pub(crate) mod tag;
mod write;

pub(crate) use read::{Item, Malformed, Structure};
pub(crate) use write::Field;

/// The bytes of a tag, a type and a length.
pub(crate) const HEADER: usize = 8;

/// Types of values, as the standard numbers them. Big integers and intervals, which nothing here is made
/// of, are passed over.
mod kind {
    pub(super) const STRUCTURE: u8 = 1;
    pub(super) const INTEGER: u8 = 2;
    pub(super) const ENUMERATION: u8 = 5;
    pub(super) const TEXT: u8 = 7;
    pub(super) const BYTES: u8 = 8;
    pub(super) const DATE: u8 = 9;
}

/// The length of a value with its padding.
fn padded(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(8)
}

#[cfg(test)]
mod tests;
