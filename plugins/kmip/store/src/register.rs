//! New objects.

use keyhaul_core::SecretBytes;

use crate::message::{Operation, Request};
use crate::operations::{application, attribute, group, kind, name, namespace};
use crate::ttlv::{Field, Malformed, Structure, tag};

/// What a value is registered as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    SecretData,
    /// For servers that take no secret data.
    SymmetricKey,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "secret-data" => Some(Self::SecretData),
            "symmetric-key" => Some(Self::SymmetricKey),
            _ => None,
        }
    }
}

/// An object that is not there yet.
#[derive(Clone, Copy)]
pub(crate) struct New<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    /// What it is found by where the name is another.
    pub(crate) path: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) turn: &'a str,
    pub(crate) value: &'a SecretBytes,
}

/// The type of secret data.
const PASSWORD: u32 = 1;
/// Formats: raw for keys, opaque for secret data, as the standard's own examples have it.
const RAW: u32 = 1;
const OPAQUE: u32 = 2;
/// Masks that every secret has to have. These let a server do nothing with the value but check.
const VERIFY: i32 = 0x2;
const MAC_VERIFY: i32 = 0x100;
const AES: u32 = 3;
/// The algorithm whose keys may have any length.
const HMAC_SHA256: u32 = 9;

/// Asks that a value be kept.
pub(crate) fn register(new: New<'_>) -> Request<'_> {
    let (kind, mask, object) = match new.kind {
        Kind::SecretData => (kind::SECRET_DATA, VERIFY, secret_data(new.value)),
        Kind::SymmetricKey => (kind::SYMMETRIC_KEY, MAC_VERIFY, symmetric_key(new.value)),
    };
    let mask = Field::Integer(tag::ATTRIBUTE_VALUE, mask);
    let mut attributes = vec![
        name(new.name),
        attribute(attribute::USAGE, None, mask),
        application(None, namespace::TURN, new.turn),
        application(Some(1), namespace::PATH, new.path),
    ];
    attributes.extend(new.group.map(group));
    let payload = vec![
        Field::Enumeration(tag::OBJECT_TYPE, kind),
        Field::Structure(tag::TEMPLATE_ATTRIBUTE, attributes),
        object,
    ];
    (Operation::Register, payload)
}

/// The identifier of the new object.
pub(crate) fn registered(payload: &Structure<'_>) -> Result<String, Malformed> {
    let id = payload.need(tag::UNIQUE_IDENTIFIER)?;
    Ok(id.text()?.to_owned())
}

fn secret_data(value: &SecretBytes) -> Field<'_> {
    let kind = Field::Enumeration(tag::SECRET_DATA_TYPE, PASSWORD);
    let block = Field::Structure(tag::KEY_BLOCK, block(OPAQUE, value));
    Field::Structure(tag::SECRET_DATA, vec![kind, block])
}

fn symmetric_key(value: &SecretBytes) -> Field<'_> {
    let algorithm = match value.len() {
        16 | 24 | 32 => AES,
        _ => HMAC_SHA256,
    };
    let mut block = block(RAW, value);
    block.extend([
        Field::Enumeration(tag::CRYPTOGRAPHIC_ALGORITHM, algorithm),
        // The store's longest value has far fewer bits than there are numbers.
        Field::Integer(tag::CRYPTOGRAPHIC_LENGTH, (value.len() * 8) as i32),
    ]);
    let block = Field::Structure(tag::KEY_BLOCK, block);
    Field::Structure(tag::SYMMETRIC_KEY, vec![block])
}

fn block(format: u32, value: &SecretBytes) -> Vec<Field<'_>> {
    let material = Field::Bytes(tag::KEY_MATERIAL, value.expose());
    vec![
        Field::Enumeration(tag::KEY_FORMAT_TYPE, format),
        Field::Structure(tag::KEY_VALUE, vec![material]),
    ]
}
