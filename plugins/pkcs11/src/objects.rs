//! Secrets as data objects: found by application and label, replaced by later ones.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use keyhaul_core::{Error, ErrorKind, SecretBytes, SecretPath, wipe};

use crate::caller::Caller;
use crate::error::Failure;
use crate::token::Desk;
use crate::turn::Turn;

/// How often an object that vanished between finding and reading it is looked for anew.
const ATTEMPTS: usize = 16;

/// After how many milliseconds is searched anew before nothing is nothing. A program that destroys the older
/// object of two may be held up in the midst of it, and SoftHSM then finds neither.
const PAUSES: [u64; 4] = [5, 10, 20, 40];

/// The value of the secret at `path`.
pub(crate) fn read(desk: &Desk<'_>, path: &SecretPath) -> Result<SecretBytes, Failure> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let found = newest(desk, path).and_then(|found| match found {
            Some(object) => desk.values.read(desk.session, object),
            None => Err(absent().into()),
        });
        match found {
            // A writer was faster: there is a later one, or none.
            Err(failure) if failure.is_gone() && attempts < ATTEMPTS => {}
            Err(failure) if failure.is_gone() => return Err(Failure::Moved),
            found => return found,
        }
    }
}

/// Whether there is a secret at `path`.
pub(crate) fn exists(desk: &Desk<'_>, path: &SecretPath) -> Result<bool, Failure> {
    Ok(!of_path_by_now(desk, path)?.is_empty())
}

/// Writes the secret at `path` for `caller`: first the new object, then the older ones go.
pub(crate) fn write(
    desk: &Desk<'_>,
    path: &SecretPath,
    value: &SecretBytes,
    caller: &Caller,
) -> Result<(), Failure> {
    let latest = in_turn(desk, path)?.last().map(|(turn, _)| *turn);
    let turn = latest.unwrap_or_default().next()?;
    let mut given = of_path(desk, path);
    given.push(Attribute::ObjectId(turn.to_der()));
    // To get here can have taken long.
    caller.still_waits()?;
    let created = create(desk, &mut given, value)?;
    match is_kept(desk, created, &given) {
        Ok(()) => {}
        // There is a later one already, whose writer took this one away.
        Err(failure) if failure.is_gone() => return Ok(()),
        Err(failure) => return Err(failure),
    }
    // It is written: what is left of older ones does no harm, and goes with the next write.
    if let Err(failure) = clear_older(desk, path, turn, created) {
        tracing::debug!(failure = %Error::from(failure), "an older object was left");
    }
    Ok(())
}

/// Deletes the secret at `path` for `caller`: the latest object last, so that no older one comes to
/// light.
pub(crate) fn delete(desk: &Desk<'_>, path: &SecretPath, caller: &Caller) -> Result<(), Failure> {
    for (_, object) in in_turn(desk, path)? {
        caller.still_waits()?;
        destroy(desk, object)?;
    }
    Ok(())
}

/// The paths of all secrets, in no order. Labels that no path can be are somebody else's.
pub(crate) fn paths(desk: &Desk<'_>) -> Result<BTreeSet<SecretPath>, Failure> {
    let mut paths = BTreeSet::new();
    for object in desk.session.find_objects(&all(desk))? {
        let attributes = match attributes(desk, object, AttributeType::Label) {
            Err(failure) if failure.is_gone() => continue,
            attributes => attributes?,
        };
        let label = attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                Attribute::Label(label) => String::from_utf8(label).ok(),
                _ => None,
            });
        match label.map(SecretPath::new) {
            Some(Ok(path)) => {
                paths.insert(path);
            }
            _ => tracing::debug!("an object's label is no path: left out of the listing"),
        }
    }
    Ok(paths)
}

fn newest(desk: &Desk<'_>, path: &SecretPath) -> Result<Option<ObjectHandle>, Failure> {
    let found = of_path_by_now(desk, path)?;
    // Mostly there is one, and its turn need not be asked for.
    if let [] | [_] = found.as_slice() {
        return Ok(found.first().copied());
    }
    let latest = in_turn(desk, path)?.pop();
    latest.map(|(_, object)| Some(object)).ok_or(Failure::Moved)
}

/// The objects of a path, in no order; nothing only where that stays so for a moment.
fn of_path_by_now(desk: &Desk<'_>, path: &SecretPath) -> Result<Vec<ObjectHandle>, Failure> {
    let template = of_path(desk, path);
    for pause in PAUSES {
        let found = desk.session.find_objects(&template)?;
        if !found.is_empty() {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(pause));
    }
    Ok(desk.session.find_objects(&template)?)
}

/// The objects of a path, the latest last.
fn in_turn(desk: &Desk<'_>, path: &SecretPath) -> Result<Vec<(Turn, ObjectHandle)>, Failure> {
    let mut objects = Vec::new();
    for object in desk.session.find_objects(&of_path(desk, path))? {
        let attributes = match attributes(desk, object, AttributeType::ObjectId) {
            Err(failure) if failure.is_gone() => continue,
            attributes => attributes?,
        };
        let turn = attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                Attribute::ObjectId(der) => Some(Turn::of_der(&der)),
                _ => None,
            });
        objects.push((turn.unwrap_or_default(), object));
    }
    objects.sort_by_key(|(turn, _)| *turn);
    Ok(objects)
}

/// Makes an object that is `given`, with this value.
fn create(
    desk: &Desk<'_>,
    given: &mut Vec<Attribute>,
    value: &SecretBytes,
) -> Result<ObjectHandle, Failure> {
    given.push(Attribute::Value(value.expose().to_vec()));
    let created = desk.session.create_object(given);
    if let Some(Attribute::Value(mut copy)) = given.pop() {
        wipe(&mut copy);
    }
    Ok(created?)
}

/// Holds a new object against what was given. Tokens shorten labels, or leave out what they do not
/// know: such an object would not be found again, or would not count as the latest one, or could be
/// read by anybody. It is destroyed, and what was there before stays.
///
/// # Errors
/// `InvalidConfig` with what the token did not keep.
fn is_kept(desk: &Desk<'_>, object: ObjectHandle, given: &[Attribute]) -> Result<(), Failure> {
    let types: Vec<_> = given.iter().map(Attribute::attribute_type).collect();
    let there = desk.session.get_attributes(object, &types)?;
    let Some(lost) = given.iter().find(|attribute| !there.contains(attribute)) else {
        return Ok(());
    };
    let lost = match lost {
        Attribute::Application(_) => "CKA_APPLICATION",
        Attribute::Label(_) => "CKA_LABEL, the secret's path",
        Attribute::ObjectId(_) => "CKA_OBJECT_ID, which says which of two values is the later one",
        Attribute::Private(_) => "CKA_PRIVATE, without which anybody can read it",
        _ => "its class, or that it is the token's",
    };
    let error = Error::new(
        ErrorKind::InvalidConfig,
        format!("the token does not keep an object as it was given: {lost}"),
    )
    .with_advice("what was there before is intact; use a token that keeps it, or a shorter path");
    Err(Failure::Told(match destroy(desk, object) {
        Ok(()) => error,
        Err(failure) => error.with_source(Error::from(failure)),
    }))
}

/// Destroys what came before `turn`, and never the object that was just `created`.
fn clear_older(
    desk: &Desk<'_>,
    path: &SecretPath,
    turn: Turn,
    created: ObjectHandle,
) -> Result<(), Failure> {
    for (older, object) in in_turn(desk, path)? {
        if older < turn && object != created {
            destroy(desk, object)?;
        }
    }
    Ok(())
}

fn destroy(desk: &Desk<'_>, object: ObjectHandle) -> Result<(), Failure> {
    match desk.session.destroy_object(object).map_err(Failure::from) {
        Err(failure) if failure.is_gone() => Ok(()),
        done => done,
    }
}

fn attributes(
    desk: &Desk<'_>,
    object: ObjectHandle,
    wanted: AttributeType,
) -> Result<Vec<Attribute>, Failure> {
    Ok(desk.session.get_attributes(object, &[wanted])?)
}

fn of_path(desk: &Desk<'_>, path: &SecretPath) -> Vec<Attribute> {
    let mut template = all(desk);
    template.push(Attribute::Label(path.as_str().into()));
    template
}

/// Private ones only: whoever reaches the token can create a public object, without any PIN.
fn all(desk: &Desk<'_>) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(with_zero_behind(desk.application)),
    ]
}

/// The bytes of a text, with a zero byte behind them in memory that is not part of them. OpenSC
/// reads an object's application up to one, whatever its length is said to be.
fn with_zero_behind(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes.pop();
    bytes
}

pub(crate) fn absent() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}
