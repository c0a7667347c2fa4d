//! Secrets as objects: found by name, replaced by later ones.

use std::collections::BTreeSet;

use keyhaul_core::{Error, ErrorKind, Request, Result, SecretBytes, SecretPath};

use crate::config::Settings;
use crate::described::{self, Described};
use crate::failure::Failure;
use crate::message::Version;
use crate::names;
use crate::operations::{self as ask, By};
use crate::register::{Kind, New, register, registered};
use crate::server::{Server, missing};
use crate::ttlv::Structure;

/// How often objects that vanished between finding and reading them are looked for anew.
pub(crate) const ATTEMPTS: usize = 16;

/// The objects of a store.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) server: Server,
    pub(crate) group: Option<String>,
    prefix: String,
    kind: Kind,
}

/// What an object was found to be when it was read.
enum Read {
    Value(SecretBytes),
    /// It is there no longer.
    Gone,
    /// It is no secret, or none of this path.
    Other,
}

/// Part of an answer to who reads.
enum Part {
    Described(Described),
    Value(Option<SecretBytes>),
}

impl Objects {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            server: Server::new(settings),
            group: settings.group.clone(),
            prefix: settings.prefix.clone(),
            kind: settings.register,
        }
    }

    /// The value of the secret at `path`.
    pub(crate) async fn read(&self, path: &SecretPath, request: &Request) -> Result<SecretBytes> {
        let mut gone = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            let mut ids = self.to_read(&self.name(path), &gone, request).await?;
            // Mostly there is one, which need not be held against others.
            if ids.len() > 1 {
                let latest = self.in_turn(path, &mut gone, request).await?.pop();
                ids = latest.map(|latest| latest.id).into_iter().collect();
            }
            let id = ids.pop().ok_or_else(absent)?;
            match self.look(&id, path, request).await? {
                Read::Value(value) => return Ok(value),
                // A writer was faster: there is a later one, or none.
                Read::Gone => drop(gone.insert(id)),
                Read::Other => return Err(absent()),
            }
        }
        Err(moving())
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
        let new = New {
            kind: self.kind,
            name: &name,
            path: &name,
            group: self.group.as_deref(),
            turn: &turn,
            value,
        };
        let apart = self.keep(new, request).await?;
        // It is written: what is left of older ones does no harm, and goes with the next write.
        for object in older {
            if let Err(error) = self.destroy(&object.id, request).await {
                tracing::warn!(%error, "an older object of the same name was left");
            }
        }
        // The name can be free now. Where it is not, the object is found as it is.
        if let Some(id) = apart
            && let Err(failure) = self.done(ask::rename(&id, &name), request).await
        {
            tracing::debug!(error = %Error::from(failure), "the object has a name of its own");
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
        let ids: Vec<String> = self.all(request).await?.into_iter().collect();
        let mut paths = BTreeSet::new();
        for object in self.describe(&ids, request).await? {
            let described = match object {
                Ok(object) => object.described,
                // It is not ours to see, or was destroyed meanwhile.
                Err(Failure::Refused(..)) => continue,
                Err(failure) => return Err(failure.into()),
            };
            let is_ours = described.is_secret() && described.is_in(self.group.as_deref());
            if is_ours && !described.is_gone() {
                let keys = described.keys();
                let keys = keys.filter_map(|key| key.strip_prefix(self.prefix.as_str()));
                paths.extend(keys.filter_map(names::to_path));
            }
        }
        Ok(paths)
    }

    /// Reaches the server, and is let in. Reads no value.
    pub(crate) async fn probe(&self) -> Result<()> {
        let request = Request::default();
        let read = |payload: &Structure<'_>| Ok(ask::versions(payload)?);
        let spoken = self.server.one(ask::discover(), &request, read).await?;
        let version = self.server.version;
        if !spoken.contains(&version) {
            let spoken: Vec<_> = spoken.iter().map(Version::to_string).collect();
            let spoken = match spoken.as_slice() {
                [] => "does not say which it speaks".to_owned(),
                spoken => format!("speaks {}", spoken.join(", ")),
            };
            let address = self.server.pool.address();
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the KMIP server {address} does not speak version {version}: it {spoken}"),
            )
            .with_advice("set `version` to one that the server speaks"));
        }
        // Who asks for versions alone need not be known.
        let locate = ask::locate(None, self.group.as_deref(), Some(1), None);
        match self.done(locate, &request).await {
            Err(failure) if failure.is_absence() => Ok(()),
            done => Ok(done?),
        }
    }

    /// Reads an object, and what is known of it in the same message: so that a value is only taken from
    /// one that is what was looked for.
    async fn look(&self, id: &str, path: &SecretPath, request: &Request) -> Result<Read, Failure> {
        let asked = vec![described::describe(id), ask::get(id)];
        let read = |number, payload: &Structure<'_>| {
            ask::is_about(payload, id)?;
            Ok(match number {
                0 => Part::Described(Described::of(payload)?),
                _ => Part::Value(ask::value(payload)?),
            })
        };
        let mut parts = self.server.each(asked, request, read).await?;
        let (value, described) = (parts.pop(), parts.pop());
        match described.ok_or_else(missing)? {
            Err(failure) if failure.is_absence() => return Ok(Read::Gone),
            Ok(Part::Described(described)) if described.is_gone() => return Ok(Read::Gone),
            Ok(Part::Described(described)) if !self.is_of(&described, path) => {
                return Ok(Read::Other);
            }
            described => described?,
        };
        match value.ok_or_else(missing)? {
            Ok(Part::Value(Some(value))) => Ok(Read::Value(value)),
            Ok(_) => Ok(Read::Other),
            Err(failure) if failure.is_absence() => Ok(Read::Gone),
            Err(failure) => Err(failure),
        }
    }

    /// Registers an object. Gives its identifier where it has a name of its own, since the one that it
    /// should have is taken: by an older object, by one that was destroyed, or by somebody's who does
    /// not show it.
    async fn keep(&self, new: New<'_>, request: &Request) -> Result<Option<String>> {
        let id = |payload: &Structure<'_>| Ok(registered(payload)?);
        match self.server.one(register(new), request, id).await {
            Err(failure) if failure.may_be_taken() => {}
            done => return done.map(|_| None).map_err(Error::from),
        }
        let name = names::apart(new.name, new.turn);
        let again = New { name: &name, ..new };
        let id = match self.server.one(register(again), request, id).await {
            // It can be there: its answer was lost, and the request sent once more.
            Err(failure) if failure.may_be_taken() => match self.named(&name, request).await? {
                Some(id) => id,
                None => return Err(failure.into()),
            },
            id => id?,
        };
        if self.of_name(new.path, request).await?.contains(&id) {
            return Ok(Some(id));
        }
        // Nobody would find it.
        self.destroy(&id, request).await?;
        Err(Error::new(
            ErrorKind::AlreadyExists,
            "the KMIP server gives a name to one object only, and does not find objects by their Application Specific Information",
        )
        .with_advice("a value cannot be replaced in one step there: delete the secret first, then set it; between the two there is none"))
    }

    /// An object of this very name.
    async fn named(&self, name: &str, request: &Request) -> Result<Option<String>, Failure> {
        let locate = ask::locate(Some(By::Name(name)), self.group.as_deref(), None, None);
        let read = |payload: &Structure<'_>| Ok(ask::Located::of(payload)?);
        let mut found = self.server.one(locate, request, read).await?;
        Ok(found.ids.pop())
    }

    async fn destroy(&self, id: &str, request: &Request) -> Result<()> {
        let destroy = async || self.done(ask::destroy(id), request).await;
        let mut done = destroy().await;
        if done.as_ref().is_err_and(Failure::may_be_state) {
            match self.state(id, request).await {
                Some(described) if described.is_gone() => return Ok(()),
                Some(described) if described.is_active() => {
                    // Where that fails, the second destroying says why.
                    if let Err(failure) = self.done(ask::revoke(id), request).await {
                        tracing::debug!(error = %Error::from(failure), "not revoked");
                    }
                    done = destroy().await;
                }
                _ => {}
            }
        }
        match done {
            Err(failure) if failure.is_absence() => Ok(()),
            done => Ok(done?),
        }
    }

    /// What is known of an object, where that can be known.
    async fn state(&self, id: &str, request: &Request) -> Option<Described> {
        let objects = self.describe(&[id.to_owned()], request).await;
        let object = objects.ok()?.pop()?.ok()?;
        Some(object.described)
    }

    /// A request of whose answer only the success counts.
    async fn done(
        &self,
        asked: crate::message::Request<'_>,
        request: &Request,
    ) -> Result<(), Failure> {
        self.server.one(asked, request, |_| Ok(())).await
    }

    pub(crate) fn name(&self, path: &SecretPath) -> String {
        format!("{}{}", self.prefix, names::of_path(path))
    }
}

pub(crate) fn absent() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}

pub(crate) fn moving() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the secret is replaced faster than it can be read",
    )
}
