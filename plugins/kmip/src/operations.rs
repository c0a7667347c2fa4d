//! What is asked of a server, and what its answers say.

use std::time::{Duration, SystemTime};

use keyhaul_core::{Error, ErrorKind, SecretBytes};

use crate::failure::Failure;
use crate::message::{Operation, Request, Version};
use crate::ttlv::{Field, Malformed, Structure, tag};
use crate::turn::{NAMESPACE, Turn};

/// Kinds of objects that are secrets, as the standard numbers them.
mod kind {
    pub(super) const SECRET_DATA: u32 = 7;
    pub(super) const SYMMETRIC_KEY: u32 = 2;
}

mod attribute {
    pub(super) const APPLICATION: &str = "Application Specific Information";
    pub(super) const GROUP: &str = "Object Group";
    pub(super) const INITIAL_DATE: &str = "Initial Date";
    pub(super) const NAME: &str = "Name";
    pub(super) const OBJECT_TYPE: &str = "Object Type";
    pub(super) const STATE: &str = "State";
    pub(super) const USAGE: &str = "Cryptographic Usage Mask";
}

/// A name that is a text, and no URI.
const UNINTERPRETED: u32 = 1;
const PASSWORD: u32 = 1;
/// The format of secret data that the standard's own examples use.
const OPAQUE: u32 = 2;
/// A mask that every secret has to have; this one lets a server do nothing with the value but check.
const VERIFY: i32 = 2;
/// Revoked because it is no longer used: so that nobody takes it for stolen.
const CESSATION: u32 = 6;

/// Asks which versions of KMIP the server speaks.
pub(crate) fn discover<'a>() -> Request<'a> {
    (Operation::DiscoverVersions, Vec::new())
}

pub(crate) fn versions(payload: &Structure<'_>) -> Result<Vec<Version>, Malformed> {
    payload
        .all(tag::PROTOCOL_VERSION)
        .map(|version| Version::of(&version?.structure()?))
        .collect()
}

/// Asks for objects, of a name and a group where they are given, and for so many at most.
pub(crate) fn locate<'a>(
    name: Option<&'a str>,
    group: Option<&'a str>,
    most: Option<i32>,
) -> Request<'a> {
    let mut payload = Vec::new();
    payload.extend(most.map(|most| Field::Integer(tag::MAXIMUM_ITEMS, most)));
    payload.extend(name.map(self::name));
    payload.extend(group.map(self::group));
    (Operation::Locate, payload)
}

/// The identifiers of what was found.
pub(crate) fn located(payload: &Structure<'_>) -> Result<Vec<String>, Malformed> {
    payload
        .all(tag::UNIQUE_IDENTIFIER)
        .map(|id| Ok(id?.text()?.to_owned()))
        .collect()
}

/// Asks for an object's value.
pub(crate) fn get(id: &str) -> Request<'_> {
    (Operation::Get, vec![identifier(id)])
}

/// The value: copied once, from where it was received to where it stays. Nothing where the object is
/// neither secret data nor a symmetric key.
pub(crate) fn value(payload: &Structure<'_>) -> Result<Option<SecretBytes>, Failure> {
    let object = match payload.find(tag::SECRET_DATA)? {
        Some(object) => Some(object),
        None => payload.find(tag::SYMMETRIC_KEY)?,
    };
    let Some(object) = object else {
        return Ok(None);
    };
    let block = object.structure()?.need(tag::KEY_BLOCK)?.structure()?;
    if block.find(tag::KEY_WRAPPING_DATA)?.is_some() {
        return Err(unreadable("it is wrapped by another key").into());
    }
    let Some(value) = block.find(tag::KEY_VALUE)? else {
        return Err(unreadable("the server has no value of it").into());
    };
    let material = value.structure()?.need(tag::KEY_MATERIAL)?;
    let format = block.need(tag::KEY_FORMAT_TYPE)?.enumeration()?;
    let bytes = match format {
        // Raw and opaque.
        1 | 2 if material.is_bytes() => material.bytes()?,
        // A transparent symmetric key.
        7 => material.structure()?.need(tag::KEY)?.bytes()?,
        _ => return Err(unreadable("its format is neither raw nor opaque").into()),
    };
    Ok(Some(SecretBytes::copy_from(bytes)))
}

fn unreadable(why: &str) -> Error {
    let message = format!("the object of that name cannot be read as a secret: {why}");
    Error::new(ErrorKind::Corrupt, message)
        .with_advice("register secret data, or a symmetric key, in the clear and as raw bytes")
}

/// Asks what is known of an object.
pub(crate) fn describe(id: &str) -> Request<'_> {
    let wanted = [
        attribute::APPLICATION,
        attribute::INITIAL_DATE,
        attribute::NAME,
        attribute::OBJECT_TYPE,
        attribute::STATE,
    ];
    let mut payload = vec![identifier(id)];
    payload.extend(wanted.map(|name| Field::Text(tag::ATTRIBUTE_NAME, name)));
    (Operation::GetAttributes, payload)
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) names: Vec<String>,
    pub(crate) turn: Turn,
    pub(crate) created: Option<SystemTime>,
    kind: Option<u32>,
    state: Option<u32>,
}

impl Described {
    const ACTIVE: u32 = 2;
    /// Destroyed, and destroyed after it was compromised: what is left is no secret.
    const GONE: [u32; 2] = [5, 6];

    pub(crate) fn of(payload: &Structure<'_>) -> Result<Self, Malformed> {
        let mut described = Self::default();
        for attribute in payload.all(tag::ATTRIBUTE) {
            let attribute = attribute?.structure()?;
            // An attribute that was asked for and is not there can come without a value.
            let Some(value) = attribute.find(tag::ATTRIBUTE_VALUE)? else {
                continue;
            };
            match attribute.need(tag::ATTRIBUTE_NAME)?.text()? {
                attribute::NAME => {
                    let name = value.structure()?.need(tag::NAME_VALUE)?.text()?;
                    described.names.push(name.to_owned());
                }
                attribute::APPLICATION => {
                    let value = value.structure()?;
                    if value.need(tag::APPLICATION_NAMESPACE)?.text()? == NAMESPACE
                        && let Some(data) = value.find(tag::APPLICATION_DATA)?
                    {
                        described.turn = described.turn.max(Turn::of_text(data.text()?));
                    }
                }
                attribute::INITIAL_DATE => {
                    let seconds = u64::try_from(value.date()?).ok().map(Duration::from_secs);
                    let date = |since| SystemTime::UNIX_EPOCH.checked_add(since);
                    described.created = seconds.and_then(date);
                }
                attribute::OBJECT_TYPE => described.kind = Some(value.enumeration()?),
                attribute::STATE => described.state = Some(value.enumeration()?),
                _ => {}
            }
        }
        Ok(described)
    }

    pub(crate) fn is_active(&self) -> bool {
        self.state == Some(Self::ACTIVE)
    }

    /// Whether it is of a kind that secrets are of.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.kind, Some(kind::SECRET_DATA | kind::SYMMETRIC_KEY))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.is_some_and(|state| Self::GONE.contains(&state))
    }
}

/// Asks that `value` be kept as secret data.
pub(crate) fn register<'a>(
    name: &'a str,
    group: Option<&'a str>,
    turn: &'a str,
    value: &'a SecretBytes,
) -> Request<'a> {
    let application = Field::Structure(
        tag::ATTRIBUTE_VALUE,
        vec![
            Field::Text(tag::APPLICATION_NAMESPACE, NAMESPACE),
            Field::Text(tag::APPLICATION_DATA, turn),
        ],
    );
    let mut attributes = vec![
        self::name(name),
        attribute(
            attribute::USAGE,
            Field::Integer(tag::ATTRIBUTE_VALUE, VERIFY),
        ),
        attribute(attribute::APPLICATION, application),
    ];
    attributes.extend(group.map(self::group));
    let material = Field::Bytes(tag::KEY_MATERIAL, value.expose());
    let block = Field::Structure(
        tag::KEY_BLOCK,
        vec![
            Field::Enumeration(tag::KEY_FORMAT_TYPE, OPAQUE),
            Field::Structure(tag::KEY_VALUE, vec![material]),
        ],
    );
    let object = Field::Structure(
        tag::SECRET_DATA,
        vec![Field::Enumeration(tag::SECRET_DATA_TYPE, PASSWORD), block],
    );
    let payload = vec![
        Field::Enumeration(tag::OBJECT_TYPE, kind::SECRET_DATA),
        Field::Structure(tag::TEMPLATE_ATTRIBUTE, attributes),
        object,
    ];
    (Operation::Register, payload)
}

/// Asks that an object be active no longer.
pub(crate) fn revoke(id: &str) -> Request<'_> {
    let code = Field::Enumeration(tag::REVOCATION_REASON_CODE, CESSATION);
    let reason = Field::Structure(tag::REVOCATION_REASON, vec![code]);
    (Operation::Revoke, vec![identifier(id), reason])
}

/// Asks that an object be no longer.
pub(crate) fn destroy(id: &str) -> Request<'_> {
    (Operation::Destroy, vec![identifier(id)])
}

fn identifier(id: &str) -> Field<'_> {
    Field::Text(tag::UNIQUE_IDENTIFIER, id)
}

fn name(name: &str) -> Field<'_> {
    let value = vec![
        Field::Text(tag::NAME_VALUE, name),
        Field::Enumeration(tag::NAME_TYPE, UNINTERPRETED),
    ];
    attribute(
        attribute::NAME,
        Field::Structure(tag::ATTRIBUTE_VALUE, value),
    )
}

fn group(group: &str) -> Field<'_> {
    attribute(attribute::GROUP, Field::Text(tag::ATTRIBUTE_VALUE, group))
}

fn attribute<'a>(name: &'a str, value: Field<'a>) -> Field<'a> {
    Field::Structure(
        tag::ATTRIBUTE,
        vec![Field::Text(tag::ATTRIBUTE_NAME, name), value],
    )
}
