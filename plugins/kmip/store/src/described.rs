//! What is known of an object.

use std::time::{Duration, SystemTime};

use crate::message::{Operation, Request};
use crate::operations::{attribute, identifier, kind, namespace};
use crate::ttlv::{Field, Malformed, Structure, tag};
use crate::turn::Turn;

/// Asks what is known of an object.
pub(crate) fn describe(id: &str) -> Request<'_> {
    let wanted = [
        attribute::APPLICATION,
        attribute::INITIAL_DATE,
        attribute::NAME,
        attribute::GROUP,
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
    names: Vec<String>,
    /// What keyhaul finds it by, whatever its name.
    paths: Vec<String>,
    groups: Vec<String>,
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
                attribute::APPLICATION => described.note(&value.structure()?)?,
                attribute::GROUP => described.groups.push(value.text()?.to_owned()),
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

    /// Takes what stands beside the object, where keyhaul put it there.
    fn note(&mut self, information: &Structure<'_>) -> Result<(), Malformed> {
        let namespace = information.need(tag::APPLICATION_NAMESPACE)?.text()?;
        let Some(data) = information.find(tag::APPLICATION_DATA)? else {
            return Ok(());
        };
        match namespace {
            namespace::PATH => self.paths.push(data.text()?.to_owned()),
            namespace::TURN => self.turn = self.turn.max(Turn::of_text(data.text()?)),
            _ => {}
        }
        Ok(())
    }

    /// What it may be found by.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.names.iter().chain(&self.paths).map(String::as_str)
    }

    /// Whether it is what was looked for: a server may take a name for a pattern, or pass over what it
    /// does not know.
    pub(crate) fn is_found_by(&self, key: &str) -> bool {
        self.keys().any(|has| has == key)
    }

    pub(crate) fn is_in(&self, group: Option<&str>) -> bool {
        group.is_none_or(|group| self.groups.iter().any(|has| has == group))
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
