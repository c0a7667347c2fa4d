//! Writing: the size is known before the first byte, so that a value is copied once, into memory
//! that is kept as a secret's.

use keyhaul_core::SecretBytes;

use super::{HEADER, kind, padded};

/// An item to be written. Texts and bytes are borrowed.
#[derive(Clone)]
pub(crate) enum Field<'a> {
    Structure(u32, Vec<Field<'a>>),
    Integer(u32, i32),
    Enumeration(u32, u32),
    Text(u32, &'a str),
    Bytes(u32, &'a [u8]),
}

impl Field<'_> {
    /// The item's bytes.
    pub(crate) fn encode(&self) -> SecretBytes {
        SecretBytes::init_with(self.size(), |bytes| {
            self.write(bytes);
        })
    }

    /// How long the value is, without padding.
    fn len(&self) -> usize {
        match self {
            Self::Structure(_, fields) => fields.iter().map(Field::size).sum(),
            Self::Integer(..) | Self::Enumeration(..) => 4,
            Self::Text(_, text) => text.len(),
            Self::Bytes(_, bytes) => bytes.len(),
        }
    }

    /// How long the whole item is.
    fn size(&self) -> usize {
        // What is in memory, eight bytes more at most, cannot wrap.
        HEADER + padded(self.len()).unwrap_or(usize::MAX - HEADER)
    }

    /// Writes the item to the beginning of `out`, which is zeroed: so padding need not be written.
    /// Gives what follows it.
    fn write<'o>(&self, out: &'o mut [u8]) -> &'o mut [u8] {
        let (tag, kind) = self.head();
        let [_, tag @ ..] = tag.to_be_bytes();
        let (here, after) = out.split_at_mut(self.size());
        let (header, value) = here.split_at_mut(HEADER);
        header[..3].copy_from_slice(&tag);
        header[3] = kind;
        // Messages are far below 4 GiB: the store's limits are on values and names.
        header[4..].copy_from_slice(&(self.len() as u32).to_be_bytes());
        match self {
            Self::Structure(_, fields) => {
                fields.iter().fold(value, |rest, field| field.write(rest));
            }
            Self::Integer(_, number) => value[..4].copy_from_slice(&number.to_be_bytes()),
            Self::Enumeration(_, number) => value[..4].copy_from_slice(&number.to_be_bytes()),
            Self::Text(_, text) => value[..text.len()].copy_from_slice(text.as_bytes()),
            Self::Bytes(_, bytes) => value[..bytes.len()].copy_from_slice(bytes),
        }
        after
    }

    fn head(&self) -> (u32, u8) {
        match self {
            Self::Structure(tag, _) => (*tag, kind::STRUCTURE),
            Self::Integer(tag, _) => (*tag, kind::INTEGER),
            Self::Enumeration(tag, _) => (*tag, kind::ENUMERATION),
            Self::Text(tag, _) => (*tag, kind::TEXT),
            Self::Bytes(tag, _) => (*tag, kind::BYTES),
        }
    }
}
