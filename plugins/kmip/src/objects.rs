//! Secrets as objects: found by name, replaced by later ones.

use std::collections::BTreeSet;

use keyhaul_core::{Error, ErrorKind, Request, Result, SecretBytes, SecretPath};

use crate::config::Settings;
use crate::failure::Failure;
use crate::message::{self, Operation, Version};
use crate::names;
use crate::operations::{self as ask, Described};
use crate::pool::Pool;
use crate::ttlv::Structure;

/// How often objects that vanished between finding and reading them are looked for anew.
const ATTEMPTS: usize = 16;
/// How many objects are described in one message: their answers are far from the limit then.
const BATCH: usize = 50;
/// The most objects that a listing looks at.
const MOST: i32 = 10_000;

/// The objects of a store.
#[derive(Debug)]
pub(crate) struct Objects {
    pool: Pool,
    version: Version,
    group: Option<String>,
    prefix: String,
}

/// An object that was looked at.
struct Object {
    id: String,
    described: Described,
}

impl Objects {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            pool: Pool::new(settings),
            version: settings.version,
            group: settings.group.clone(),
            prefix: settings.prefix.clone(),
        }
    }

    /// The value of the secret at `path`.
    pub(crate) async fn read(&self, path: &SecretPath, request: &Request) -> Result<SecretBytes> {
        let mut gone = BTreeSet::new();
        loop {
            let mut ids = self.locate(path, &gone, request).await?;
            let id = match ids.pop() {
                // Mostly there is one, and what is known of it need not be asked for.
                Some(id) if ids.is_empty() => id,
                Some(_) => match self.in_turn(path, &mut gone, request).await?.pop() {
                    Some(latest) => latest.id,
                    None => return Err(absent()),
                },
                None => return Err(absent()),
            };
            match self.one(ask::get(&id), request, ask::value).await {
                // A writer was faster: there is a later one, or none.
                Err(failure) if failure.is_absence() && gone.len() < ATTEMPTS => {
                    gone.insert(id);
                }
                Err(failure) if failure.is_absence() => return Err(moving()),
                value => return value?.ok_or_else(absent),
            }
        }
    }

    /// Whether there is a secret at `path`.
    pub(crate) async fn exists(&self, path: &SecretPath, request: &Request) -> Result<bool> {
        let objects = self.in_turn(path, &mut BTreeSet::new(), request).await?;
        Ok(!objects.is_empty())
    }

    /// Writes the secret at `path`: first the new object, then the older ones go.
    pub(crate) async fn write(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        request: &Request,
    ) -> Result<()> {
        let older = self.in_turn(path, &mut BTreeSet::new(), request).await?;
        let latest = older.last().map(|object| object.described.turn);
        let turn = latest.unwrap_or_default().next()?.to_string();
        let name = self.name(path);
        let register = ask::register(&name, self.group.as_deref(), &turn, value);
        self.one(register, request, |_| Ok(())).await?;
        // It is written: what is left of older ones does no harm, and goes with the next write.
        for object in older {
            if let Err(error) = self.destroy(&object.id, request).await {
                tracing::warn!(%error, "an older object of the same name was left");
            }
        }
        Ok(())
    }

    /// Deletes the secret at `path`: the latest object last, so that no older one comes to light.
    pub(crate) async fn delete(&self, path: &SecretPath, request: &Request) -> Result<()> {
        for object in self.in_turn(path, &mut BTreeSet::new(), request).await? {
            self.destroy(&object.id, request).await?;
        }
        Ok(())
    }

    /// The paths of all secrets, in no order. Names that are not the store's, or no paths, are left out.
    pub(crate) async fn paths(&self, request: &Request) -> Result<BTreeSet<SecretPath>> {
        // One more than there may be, so as to see that there are more.
        let locate = ask::locate(None, self.group.as_deref(), Some(MOST + 1));
        let located = |payload: &Structure<'_>| Ok(ask::located(payload)?);
        let ids = self.one(locate, request, located).await?;
        if ids.len() > MOST as usize {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the server has over {MOST} objects: too many to list"),
            )
            .with_advice("give the store's objects a `group` of their own"));
        }
        let mut paths = BTreeSet::new();
        for object in self.describe(&ids, request).await? {
            let object = match object {
                Ok(object) if object.described.is_secret() => object,
                Ok(_) => continue,
                // It is not ours to see, or was destroyed meanwhile.
                Err(Failure::Refused(..)) => continue,
                Err(failure) => return Err(failure.into()),
            };
            let names = object.described.names.iter();
            let names = names.filter_map(|name| name.strip_prefix(self.prefix.as_str()));
            paths.extend(names.filter_map(names::to_path));
        }
        Ok(paths)
    }

    /// Reaches the server, and is let in. Reads no value.
    pub(crate) async fn probe(&self) -> Result<()> {
        let request = Request::default();
        let spoken = self.one(ask::discover(), &request, |payload| {
            Ok(ask::versions(payload)?)
        });
        let spoken = spoken.await?;
        if !spoken.contains(&self.version) {
            let spoken: Vec<_> = spoken.iter().map(Version::to_string).collect();
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the KMIP server {} does not speak version {}, but {}",
                    self.pool.address(),
                    self.version,
                    spoken.join(", ")
                ),
            )
            .with_advice("set `version` to one of these"));
        }
        // Who asks for versions alone need not be known.
        let locate = ask::locate(None, self.group.as_deref(), Some(1));
        self.one(locate, &request, |_| Ok(())).await?;
        Ok(())
    }

    /// The identifiers of the objects of a path, but for those that are known to be gone.
    async fn locate(
        &self,
        path: &SecretPath,
        gone: &BTreeSet<String>,
        request: &Request,
    ) -> Result<Vec<String>> {
        let name = self.name(path);
        let locate = ask::locate(Some(&name), self.group.as_deref(), None);
        let located = |payload: &Structure<'_>| Ok(ask::located(payload)?);
        let mut ids = self.one(locate, request, located).await?;
        ids.retain(|id| !gone.contains(id));
        Ok(ids)
    }

    /// The objects of a path, the latest last: by their turn, and those of others by their date.
    async fn in_turn(
        &self,
        path: &SecretPath,
        gone: &mut BTreeSet<String>,
        request: &Request,
    ) -> Result<Vec<Object>> {
        for _ in 0..ATTEMPTS {
            let ids = self.locate(path, gone, request).await?;
            let known = gone.len();
            let mut objects = Vec::new();
            for (id, object) in ids.iter().zip(self.describe(&ids, request).await?) {
                match object {
                    Ok(object) if object.described.is_gone() => drop(gone.insert(object.id)),
                    // Others may share the name, and are not ours.
                    Ok(object) if !object.described.is_secret() => {}
                    Ok(object) => objects.push(object),
                    Err(failure) if failure.is_absence() => drop(gone.insert(id.clone())),
                    Err(failure) => return Err(failure.into()),
                }
            }
            // One that vanished was replaced, perhaps, by one that was not found yet.
            if gone.len() == known {
                objects.sort_by(|a, b| a.rank().cmp(&b.rank()));
                return Ok(objects);
            }
        }
        Err(moving())
    }

    /// Looks at objects, in messages of some at a time.
    async fn describe(
        &self,
        ids: &[String],
        request: &Request,
    ) -> Result<Vec<Result<Object, Failure>>> {
        let mut objects = Vec::new();
        for ids in ids.chunks(BATCH) {
            let asked = ids.iter().map(|id| ask::describe(id)).collect();
            let described = self.each(asked, request, Described::of).await?;
            let object = |(id, described): (&String, Result<_, _>)| {
                let id = id.clone();
                described.map(|described| Object { id, described })
            };
            objects.extend(ids.iter().zip(described).map(object));
        }
        Ok(objects)
    }

    async fn destroy(&self, id: &str, request: &Request) -> Result<()> {
        let destroy = async || self.one(ask::destroy(id), request, |_| Ok(())).await;
        let done = match destroy().await {
            Err(failure) if failure.may_be_state() && self.is_active(id, request).await => {
                // Where that fails, the second destroying says why.
                if let Err(failure) = self.one(ask::revoke(id), request, |_| Ok(())).await {
                    tracing::debug!(error = %Error::from(failure), "not revoked");
                }
                destroy().await
            }
            done => done,
        };
        match done {
            Err(failure) if failure.is_absence() => Ok(()),
            done => Ok(done?),
        }
    }

    async fn is_active(&self, id: &str, request: &Request) -> bool {
        let described = |payload: &Structure<'_>| Ok(Described::of(payload)?);
        let described = self.one(ask::describe(id), request, described).await;
        described.is_ok_and(|described| described.is_active())
    }

    /// One request, and what `read` finds in the answer.
    async fn one<T>(
        &self,
        asked: message::Request<'_>,
        request: &Request,
        read: impl FnOnce(&Structure<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let operation = asked.0;
        let message = message::encode(self.version, &[asked]);
        let answer = self.pool.ask(&message, request).await?;
        let mut outcomes = message::outcomes(&answer, &[operation])?;
        let payload = outcomes.pop().ok_or_else(missing)??;
        read(&payload)
    }

    /// Several requests in one message, and what `read` finds in each answer.
    async fn each<T>(
        &self,
        asked: Vec<message::Request<'_>>,
        request: &Request,
        read: impl Fn(&Structure<'_>) -> Result<T, crate::ttlv::Malformed>,
    ) -> Result<Vec<Result<T, Failure>>> {
        let operations: Vec<Operation> = asked.iter().map(|(operation, _)| *operation).collect();
        let message = message::encode(self.version, &asked);
        let answer = self.pool.ask(&message, request).await?;
        let outcomes = message::outcomes(&answer, &operations).map_err(Failure::from)?;
        let read = |outcome: Result<Structure<'_>, Failure>| {
            outcome.and_then(|payload| Ok(read(&payload)?))
        };
        Ok(outcomes.into_iter().map(read).collect())
    }

    fn name(&self, path: &SecretPath) -> String {
        format!("{}{}", self.prefix, names::of_path(path))
    }
}

impl Object {
    fn rank(&self) -> impl Ord + '_ {
        // The identifier decides last, so that the order is the same for all.
        (self.described.turn, self.described.created, &self.id)
    }
}

pub(crate) fn absent() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}

fn missing() -> Error {
    Error::new(ErrorKind::Internal, "an answer without an outcome")
}

fn moving() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the secret is replaced faster than it can be read",
    )
}
