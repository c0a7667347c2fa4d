//! What is asked of a server, and what its answers say.

use keyhaul_core::{Error, ErrorKind, SecretBytes};

use crate::failure::Failure;
use crate::message::{Operation, Request, Version};
use crate::ttlv::{Field, Malformed, Structure, tag};

/// Kinds of objects that are secrets, as the standard numbers them.
pub(crate) mod kind {
    pub(crate) const SECRET_DATA: u32 = 7;
    pub(crate) const SYMMETRIC_KEY: u32 = 2;
}

pub(crate) mod attribute {
    pub(crate) const APPLICATION: &str = "Application Specific Information";
    pub(crate) const GROUP: &str = "Object Group";
    pub(crate) const INITIAL_DATE: &str = "Initial Date";
    pub(crate) const NAME: &str = "Name";
    pub(crate) const OBJECT_TYPE: &str = "Object Type";
    pub(crate) const STATE: &str = "State";
    pub(crate) const USAGE: &str = "Cryptographic Usage Mask";
}

/// Namespaces of Application Specific Information.
pub(crate) mod namespace {
    /// Of the text that an object of ours is found by: what its Name is where that is free.
    pub(crate) const PATH: &str = "keyhaul-path";
    /// Of an object's turn.
    pub(crate) const TURN: &str = "keyhaul";
}

/// A name that is a text, and no URI.
const UNINTERPRETED: u32 = 1;
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

/// What objects are looked for by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By<'a> {
    Name(&'a str),
    /// What keyhaul put beside them.
    Path(&'a str),
}

/// Asks for objects: of a group where one is given, after the first `offset`, and for so many at most.
pub(crate) fn locate<'a>(
    by: Option<By<'a>>,
    group: Option<&'a str>,
    most: Option<i32>,
    offset: Option<i32>,
) -> Request<'a> {
    let mut payload = Vec::new();
    payload.extend(most.map(|most| Field::Integer(tag::MAXIMUM_ITEMS, most)));
    payload.extend(offset.map(|offset| Field::Integer(tag::OFFSET_ITEMS, offset)));
    payload.extend(by.map(|by| match by {
        By::Name(name) => self::name(name),
        By::Path(path) => application(None, namespace::PATH, path),
    }));
    payload.extend(group.map(self::group));
    (Operation::Locate, payload)
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Located {
    pub(crate) ids: Vec<String>,
    /// How many there are in all, where the server says so: it may name fewer.
    pub(crate) all: Option<usize>,
}

impl Located {
    pub(crate) fn of(payload: &Structure<'_>) -> Result<Self, Malformed> {
        let ids = payload.all(tag::UNIQUE_IDENTIFIER);
        let all = payload.find(tag::LOCATED_ITEMS)?;
        let all = all.map(|all| all.integer()).transpose()?;
        Ok(Self {
            ids: ids
                .map(|id| Ok(id?.text()?.to_owned()))
                .collect::<Result<_, Malformed>>()?,
            // A negative number is none.
            all: all.and_then(|all| usize::try_from(all).ok()),
        })
    }
}

/// Asks for an object's value.
pub(crate) fn get(id: &str) -> Request<'_> {
    (Operation::Get, vec![identifier(id)])
}

/// Whether an answer is about the object that was asked about. On a connection that was kept it could
/// be one that came late.
pub(crate) fn is_about(payload: &Structure<'_>, id: &str) -> Result<(), Malformed> {
    if payload.need(tag::UNIQUE_IDENTIFIER)?.text()? == id {
        Ok(())
    } else {
        Err(Malformed::new(
            "an answer about another object",
            tag::UNIQUE_IDENTIFIER,
        ))
    }
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

/// Asks that an object's first name be this one.
pub(crate) fn rename<'a>(id: &'a str, name: &'a str) -> Request<'a> {
    (
        Operation::ModifyAttribute,
        vec![identifier(id), self::name(name)],
    )
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

pub(crate) fn identifier(id: &str) -> Field<'_> {
    Field::Text(tag::UNIQUE_IDENTIFIER, id)
}

pub(crate) fn name(name: &str) -> Field<'_> {
    let value = vec![
        Field::Text(tag::NAME_VALUE, name),
        Field::Enumeration(tag::NAME_TYPE, UNINTERPRETED),
    ];
    attribute(
        attribute::NAME,
        None,
        Field::Structure(tag::ATTRIBUTE_VALUE, value),
    )
}

pub(crate) fn group(group: &str) -> Field<'_> {
    let value = Field::Text(tag::ATTRIBUTE_VALUE, group);
    attribute(attribute::GROUP, None, value)
}

/// Application Specific Information: an object may have some, each after the first with its index.
pub(crate) fn application<'a>(index: Option<i32>, namespace: &'a str, data: &'a str) -> Field<'a> {
    let value = vec![
        Field::Text(tag::APPLICATION_NAMESPACE, namespace),
        Field::Text(tag::APPLICATION_DATA, data),
    ];
    let value = Field::Structure(tag::ATTRIBUTE_VALUE, value);
    attribute(attribute::APPLICATION, index, value)
}

pub(crate) fn attribute<'a>(name: &'a str, index: Option<i32>, value: Field<'a>) -> Field<'a> {
    let mut parts = vec![Field::Text(tag::ATTRIBUTE_NAME, name)];
    parts.extend(index.map(|index| Field::Integer(tag::ATTRIBUTE_INDEX, index)));
    parts.push(value);
    Field::Structure(tag::ATTRIBUTE, parts)
}
