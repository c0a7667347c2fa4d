//! One collection: items by their attributes.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::{StreamExt as _, TryStreamExt as _, join, stream, try_join};
use keyhaul_core::{Error, ErrorKind, Metadata, Secret, SecretBytes, SecretPath, wipe};
use secret_service::{Collection, Item, SecretService};

use super::AT_ONCE;
use super::error::{self, Failure};
use zbus::zvariant::ObjectPath;

use crate::config::Service;

/// The attributes by which other programs look passwords up.
const SERVICE: &str = "service";
const USERNAME: &str = "username";

/// What libsecret marks such items with. With it, `secret-tool store` replaces our item instead of
/// making one beside it.
const SCHEMA: (&str, &str) = ("xdg:schema", "org.freedesktop.Secret.Generic");

/// Where the default collection is by the protocol, which saves asking where it is.
const DEFAULT: ObjectPath<'static> =
    ObjectPath::from_static_str_unchecked("/org/freedesktop/secrets/aliases/default");

/// The items of a collection, and of one service.
pub(super) struct Items<'s> {
    collection: Collection<'s>,
    settings: &'s Service,
}

impl<'s> Items<'s> {
    /// Finds the collection. Where the service does not have the default one at its place, or has
    /// none, the first of the `tries` fails, and the next one asks.
    pub(super) async fn open(
        service: &'s SecretService<'static>,
        settings: &'s Service,
        tries: usize,
    ) -> Result<Self, Failure> {
        let collection = match &settings.collection {
            None if tries == 0 => service.get_collection_by_path(DEFAULT.into()).await?,
            None => default(service).await?,
            Some(name) => named(service, name).await?,
        };
        Ok(Self {
            collection,
            settings,
        })
    }

    /// Where the collection is locked, has it unlocked if a person may be asked. Whether it was.
    pub(super) async fn unlock(&self) -> Result<bool, Failure> {
        if !self.collection.is_locked().await? {
            return Ok(false);
        }
        if !self.settings.prompt {
            return Err(error::locked().into());
        }
        self.collection.unlock().await?;
        Ok(true)
    }

    pub(super) async fn get(&self, path: &SecretPath) -> Result<Secret, Failure> {
        let item = self.one(path).await?.ok_or_else(no_secret)?;
        // Wiped at once, not when the other answer has come as well.
        let value = async {
            let mut bytes = item.get_secret().await?;
            let value = SecretBytes::copy_from(&bytes);
            wipe(&mut bytes);
            Ok(value)
        };
        let (value, modified) = try_join!(value, item.get_modified())?;
        Ok(Secret::new(value, metadata(modified)))
    }

    pub(super) async fn stat(&self, path: &SecretPath) -> Result<Metadata, Failure> {
        let item = self.one(path).await?.ok_or_else(no_secret)?;
        Ok(metadata(item.get_modified().await?))
    }

    /// Replaces the value of the item that is there, whatever else is known of it, or makes one.
    pub(super) async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
    ) -> Result<Metadata, Failure> {
        let found = self.one(path).await?;
        let value = value.expose();
        // What other programs print or paste; libsecret takes only text for a password.
        let content = match std::str::from_utf8(value) {
            Ok(_) => "text/plain",
            Err(_) => "application/octet-stream",
        };
        let item = match found {
            Some(item) => {
                item.set_secret(value, content).await?;
                item
            }
            None => {
                let label = format!("{}: {path}", self.settings.service);
                let mut attributes = self.attributes(path);
                attributes.insert(SCHEMA.0, SCHEMA.1);
                // Replacing: of two that find nothing at once, the later has its value in the one item.
                self.collection
                    .create_item(&label, attributes, value, true, content)
                    .await?
            }
        };
        Ok(metadata(item.get_modified().await?))
    }

    /// Deletes every item of this path: where several are in each other's way, this is the way out.
    pub(super) async fn delete(&self, path: &SecretPath) -> Result<(), Failure> {
        for item in self.search(self.attributes(path)).await? {
            item.delete().await?;
        }
        Ok(())
    }

    /// The paths of all items. An item whose name is no path is another program's.
    pub(super) async fn paths(&self) -> Result<Vec<SecretPath>, Failure> {
        let service = HashMap::from([(SERVICE, self.settings.service.as_str())]);
        let items = self.search(service).await?;
        let asked: Vec<_> = items.iter().map(Item::get_attributes).collect();
        let attributes: Vec<_> = stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let path = |mut of: HashMap<String, String>| SecretPath::new(of.remove(USERNAME)?).ok();
        Ok(attributes.into_iter().filter_map(path).collect())
    }

    async fn one(&self, path: &SecretPath) -> Result<Option<Item<'_>>, Failure> {
        let mut items = self.search(self.attributes(path)).await?;
        let last = items.pop();
        if items.is_empty() {
            return Ok(last);
        }
        let service = &self.settings.service;
        Err(Error::new(
            ErrorKind::Corrupt,
            "several items of the keyring have this path, and each could be meant",
        )
        .with_advice(format!(
            "see them: secret-tool search --all {SERVICE} {service} {USERNAME} PATH; remove all but one in Passwords and Keys (seahorse), or delete the secret and write it anew"
        ))
        .into())
    }

    /// The items with these attributes. What a locked collection answers counts for nothing; that
    /// it is locked comes to light meanwhile.
    async fn search(&self, attributes: HashMap<&str, &str>) -> Result<Vec<Item<'_>>, Failure> {
        let (unlocked, found) = join!(
            self.unlock(),
            self.collection.search_items(attributes.clone())
        );
        if unlocked? {
            return Ok(self.collection.search_items(attributes).await?);
        }
        Ok(found?)
    }

    fn attributes<'a>(&'a self, path: &'a SecretPath) -> HashMap<&'a str, &'a str> {
        HashMap::from([
            (SERVICE, self.settings.service.as_str()),
            (USERNAME, path.as_str()),
        ])
    }
}

async fn default<'s>(service: &'s SecretService<'static>) -> Result<Collection<'s>, Failure> {
    match service.get_default_collection().await {
        Err(secret_service::Error::NoResult) => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the keyring has no default collection",
        )
        .with_advice(
            "make one in Passwords and Keys (seahorse) or with gnome-keyring-daemon --unlock, or name another: keyring+secret-service:/COLLECTION",
        )
        .into()),
        found => Ok(found?),
    }
}

/// The collection of this alias, of this last part of its object's path, or of this label.
async fn named<'s>(
    service: &'s SecretService<'static>,
    name: &str,
) -> Result<Collection<'s>, Failure> {
    match service.get_collection_by_alias(name).await {
        Err(secret_service::Error::NoResult) => {}
        found => return Ok(found?),
    }
    let mut known = Vec::new();
    let mut labelled = Vec::new();
    for collection in service.get_all_collections().await? {
        let path = collection.collection_path.as_str();
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        if last == name {
            return Ok(collection);
        }
        if collection.get_label().await? == name {
            labelled.push(collection);
        }
        known.push(last);
    }
    if labelled.len() < 2
        && let Some(collection) = labelled.pop()
    {
        return Ok(collection);
    }
    let rule = if labelled.is_empty() {
        format!("the keyring has no collection `{name}`")
    } else {
        format!("several collections of the keyring are labelled `{name}`")
    };
    Err(Error::new(ErrorKind::InvalidConfig, rule)
        .with_advice(format!("it has: {}", known.join(", ")))
        .into())
}

/// The service tells when an item was changed last, in seconds.
fn metadata(modified: u64) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.created = UNIX_EPOCH.checked_add(Duration::from_secs(modified));
    metadata
}

fn no_secret() -> Error {
    Error::new(ErrorKind::NotFound, "no such item in the collection")
}
