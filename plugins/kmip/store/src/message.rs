//! Messages: several requests in one, and what was answered to each.

use std::fmt;

use keyhaul_core::SecretBytes;

use crate::failure::Failure;
use crate::ttlv::{Field, Item, Malformed, Structure, tag};

/// The longest answer that is taken, in bytes. A server is told so with each request.
pub(crate) const MAX_ANSWER: usize = 1024 * 1024;

/// Go on with the rest where one of several requests fails.
const CONTINUE: u32 = 1;
const SUCCESS: u32 = 0;

/// A version of KMIP whose encoding this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(i32, i32);

impl Version {
    pub(crate) const DEFAULT: Self = Self(1, 2);
    const KNOWN: [Self; 4] = [Self(1, 1), Self(1, 2), Self(1, 3), Self(1, 4)];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::KNOWN
            .into_iter()
            .find(|version| version.to_string() == text)
    }

    /// Whether a Locate can go on where another ended.
    pub(crate) fn has_offset(self) -> bool {
        self >= Self(1, 3)
    }

    pub(crate) fn field(self) -> Field<'static> {
        Field::Structure(
            tag::PROTOCOL_VERSION,
            vec![
                Field::Integer(tag::PROTOCOL_VERSION_MAJOR, self.0),
                Field::Integer(tag::PROTOCOL_VERSION_MINOR, self.1),
            ],
        )
    }

    pub(crate) fn of(version: &Structure<'_>) -> Result<Self, Malformed> {
        Ok(Self(
            version.need(tag::PROTOCOL_VERSION_MAJOR)?.integer()?,
            version.need(tag::PROTOCOL_VERSION_MINOR)?.integer()?,
        ))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What a server can be asked, as the standard numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Destroy = 0x14,
    DiscoverVersions = 0x1e,
    Get = 0x0a,
    GetAttributes = 0x0b,
    Locate = 0x08,
    ModifyAttribute = 0x0e,
    Register = 0x03,
    Revoke = 0x13,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Destroy => "Destroy",
            Self::DiscoverVersions => "Discover Versions",
            Self::Get => "Get",
            Self::GetAttributes => "Get Attributes",
            Self::Locate => "Locate",
            Self::ModifyAttribute => "Modify Attribute",
            Self::Register => "Register",
            Self::Revoke => "Revoke",
        })
    }
}

/// One request: what, and with what.
pub(crate) type Request<'a> = (Operation, Vec<Field<'a>>);

/// The message of these requests.
pub(crate) fn encode(version: Version, requests: &[Request<'_>]) -> SecretBytes {
    let mut header = vec![
        version.field(),
        Field::Integer(tag::MAXIMUM_RESPONSE_SIZE, MAX_ANSWER as i32),
    ];
    let many = requests.len() > 1;
    if many {
        header.push(Field::Enumeration(tag::BATCH_ERROR_CONTINUATION, CONTINUE));
    }
    header.push(Field::Integer(tag::BATCH_COUNT, requests.len() as i32));
    let ids: Vec<[u8; 4]> = (0..requests.len()).map(id).collect();
    let mut fields = vec![Field::Structure(tag::REQUEST_HEADER, header)];
    for ((operation, payload), id) in requests.iter().zip(&ids) {
        let mut item = vec![Field::Enumeration(tag::OPERATION, *operation as u32)];
        if many {
            item.push(Field::Bytes(tag::UNIQUE_BATCH_ITEM_ID, id));
        }
        item.push(Field::Structure(tag::REQUEST_PAYLOAD, payload.clone()));
        fields.push(Field::Structure(tag::BATCH_ITEM, item));
    }
    Field::Structure(tag::REQUEST_MESSAGE, fields).encode()
}

/// What tells a batch's items apart.
fn id(index: usize) -> [u8; 4] {
    (index as u32).to_be_bytes()
}

/// What was answered to each of `asked`, in their order. Borrowed from the answer, which holds values.
///
/// # Errors
/// `Malformed` where the bytes are no such answer.
pub(crate) fn outcomes<'a>(
    answer: &'a SecretBytes,
    asked: &[Operation],
) -> Result<Vec<Result<Structure<'a>, Failure>>, Malformed> {
    let message = Item::only(answer.expose())?;
    message.check()?;
    let message = message.structure()?;
    if message.tag() != tag::RESPONSE_MESSAGE {
        return Err(Malformed::new("no answer", message.tag()));
    }
    let mut outcomes: Vec<Option<Result<Structure<'a>, Failure>>> = Vec::new();
    outcomes.resize_with(asked.len(), || None);
    for (position, item) in message.all(tag::BATCH_ITEM).enumerate() {
        let item = item?.structure()?;
        let status = item.need(tag::RESULT_STATUS)?.enumeration()?;
        let reason = item.find(tag::RESULT_REASON)?;
        let reason = reason.map(|reason| reason.enumeration()).transpose()?;
        if item.find(tag::OPERATION)?.is_none() && status != SUCCESS {
            // What failed is the message as a whole.
            let refuse = |operation: &Operation| Err(Failure::refused(*operation, reason));
            return Ok(asked.iter().map(refuse).collect());
        }
        let index = match item.find(tag::UNIQUE_BATCH_ITEM_ID)? {
            Some(id) => of_id(id.bytes()?),
            None => Some(position),
        };
        let place = index.and_then(|index| Some((asked.get(index)?, outcomes.get_mut(index)?)));
        let Some((operation, outcome)) = place else {
            return Err(Malformed::new("an answer to nothing", tag::BATCH_ITEM));
        };
        if outcome.is_some() {
            return Err(Malformed::new("an answer given twice", tag::BATCH_ITEM));
        }
        let said = item.find(tag::OPERATION)?;
        if let Some(said) = said
            && said.enumeration()? != *operation as u32
        {
            return Err(Malformed::new(
                "an answer to another request",
                tag::OPERATION,
            ));
        }
        *outcome = Some(if status == SUCCESS {
            Ok(item.need(tag::RESPONSE_PAYLOAD)?.structure()?)
        } else {
            Err(Failure::refused(*operation, reason))
        });
    }
    let missing = Malformed::new("an answer is missing", tag::BATCH_ITEM);
    outcomes
        .into_iter()
        .map(|outcome| outcome.ok_or(missing))
        .collect()
}

fn of_id(id: &[u8]) -> Option<usize> {
    let id: [u8; 4] = id.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(id)).ok()
}
