//! Finding the objects of a secret, or all of them.

use std::collections::BTreeSet;

use keyhaul_core::{Error, ErrorKind, Request, Result, SecretPath};

use crate::described::{self, Described};
use crate::failure::Failure;
use crate::objects::{ATTEMPTS, Objects, moving};
use crate::operations::{self as ask, By, Located};
use crate::server::missing;
use crate::ttlv::Structure;

/// How many objects are described in one message: their answers are far from the limit then.
const BATCH: usize = 50;
/// The most objects that are looked at for a listing, or found for one secret.
const MOST: usize = 10_000;

/// An object that was looked at.
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) described: Described,
}

impl Objects {
    /// The identifiers of what may be the objects of a name: of those that have it, and of those of
    /// keyhaul's that had to be named otherwise.
    pub(crate) async fn of_name(&self, name: &str, request: &Request) -> Result<BTreeSet<String>> {
        let group = self.group.as_deref();
        let keys = [By::Name(name), By::Path(name)];
        let asked = keys.map(|by| ask::locate(Some(by), group, None, None));
        let read = |_, payload: &Structure<'_>| Ok(Located::of(payload)?);
        let found = self.server.each(asked.into(), request, read).await?;
        let mut ids = BTreeSet::new();
        for (by, found) in keys.into_iter().zip(found) {
            ids.extend(whole(by, found)?);
        }
        if ids.len() > MOST {
            return Err(many());
        }
        Ok(ids)
    }

    /// The identifiers of what may be the objects that a reader looks at, but for those that are known to
    /// be gone: keyhaul's own, and others only where there are none of those.
    pub(crate) async fn to_read(
        &self,
        name: &str,
        gone: &BTreeSet<String>,
        request: &Request,
    ) -> Result<Vec<String>> {
        for by in [By::Path(name), By::Name(name)] {
            let locate = ask::locate(Some(by), self.group.as_deref(), None, None);
            let read = |payload: &Structure<'_>| Ok(Located::of(payload)?);
            let mut ids = whole(by, self.server.one(locate, request, read).await)?;
            ids.retain(|id| !gone.contains(id));
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        Ok(Vec::new())
    }

    /// The objects of a path, the latest last: by their turn, and those of others by their date.
    pub(crate) async fn in_turn(
        &self,
        path: &SecretPath,
        gone: &mut BTreeSet<String>,
        request: &Request,
    ) -> Result<Vec<Object>> {
        for _ in 0..ATTEMPTS {
            let ids = self.of_name(&self.name(path), request).await?;
            let ids: Vec<_> = ids.into_iter().filter(|id| !gone.contains(id)).collect();
            let known = gone.len();
            let mut objects = Vec::new();
            for (id, object) in ids.iter().zip(self.describe(&ids, request).await?) {
                match object {
                    Ok(object) if object.described.is_gone() => drop(gone.insert(object.id)),
                    // Others may share the name, and are not ours.
                    Ok(object) if !self.is_of(&object.described, path) => {}
                    Ok(object) => objects.push(object),
                    Err(failure) if failure.is_absence() => drop(gone.insert(id.clone())),
                    Err(failure) => return Err(failure.into()),
                }
            }
            // Where all vanished, they were replaced, perhaps, by one that was not found yet.
            if gone.len() == known || !objects.is_empty() {
                objects.sort_by(|a, b| a.rank().cmp(&b.rank()));
                return Ok(objects);
            }
        }
        Err(moving())
    }

    /// The identifiers of all objects that the server shows.
    pub(crate) async fn all(&self, request: &Request) -> Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        loop {
            // One more than there may be, so as to see that there are more.
            let (most, offset) = ((MOST + 1 - ids.len()) as i32, ids.len() as i32);
            let offset = (offset > 0).then_some(offset);
            let locate = ask::locate(None, self.group.as_deref(), Some(most), offset);
            let read = |payload: &Structure<'_>| Ok(Located::of(payload)?);
            let found = match self.server.one(locate, request, read).await {
                Err(failure) if failure.is_absence() => Located::default(),
                found => found?,
            };
            let known = ids.len();
            ids.extend(found.ids);
            let all = found.all.unwrap_or(ids.len());
            if all.max(ids.len()) > MOST {
                return Err(many());
            }
            if all <= ids.len() {
                return Ok(ids);
            }
            if ids.len() == known || !self.server.version.has_offset() {
                return Err(cut());
            }
        }
    }

    /// Looks at objects, in messages of some at a time.
    pub(crate) async fn describe(
        &self,
        ids: &[String],
        request: &Request,
    ) -> Result<Vec<Result<Object, Failure>>> {
        let mut objects = Vec::new();
        for ids in ids.chunks(BATCH) {
            let asked = ids.iter().map(|id| described::describe(id)).collect();
            let read = |number: usize, payload: &Structure<'_>| {
                let id = ids.get(number).ok_or_else(missing)?;
                ask::is_about(payload, id)?;
                let (id, described) = (id.clone(), Described::of(payload)?);
                Ok(Object { id, described })
            };
            objects.extend(self.server.each(asked, request, read).await?);
        }
        Ok(objects)
    }

    /// Whether an object is a secret, and of this path.
    pub(crate) fn is_of(&self, described: &Described, path: &SecretPath) -> bool {
        described.is_secret()
            && described.is_found_by(&self.name(path))
            && described.is_in(self.group.as_deref())
    }
}

impl Object {
    fn rank(&self) -> impl Ord + '_ {
        // The identifier decides last, so that the order is the same for all.
        (self.described.turn, self.described.created, &self.id)
    }
}

/// What was found by this, where that is all there is.
fn whole(by: By<'_>, found: Result<Located, Failure>) -> Result<Vec<String>> {
    let found = match found {
        Err(failure) if failure.is_absence() => Located::default(),
        // Then there is none: what a server does not find by this is not left on it (`keep`).
        Err(failure) if matches!(by, By::Path(_)) && failure.is_about_search() => {
            Located::default()
        }
        found => found?,
    };
    if found.all.is_some_and(|all| all > found.ids.len()) {
        return Err(cut());
    }
    Ok(found.ids)
}

fn many() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the server has over {MOST} objects: too many to look at"),
    )
    .with_advice("give the store's objects a `group` of their own")
}

fn cut() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "the server names fewer objects than it has found",
    )
    .with_advice(
        "raise the server's limit of one Locate; for listings it is enough to set `version` to 1.3 or later",
    )
}
