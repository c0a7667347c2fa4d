//! Writing, also in the place of what was deleted.

use std::collections::HashMap;

use keyhaul_core::{
    Capability, DeleteOptions, Error, ErrorKind, Field, GetOptions, Metadata, PutMode, PutOptions,
    Recipe, Result, SecretBytes, SecretPath, Version,
};
use serde::de::IgnoredAny;

use super::super::call::Call;
use super::super::failure::of_store;
use super::super::state::Tombstone;
use super::{in_time, is_of, look, nothing};

/// A value that is to be written.
pub(crate) enum Value {
    /// Somebody gave it.
    Given(SecretBytes),
    /// It is made by this recipe.
    Made(Recipe),
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Given(value) => value.len(),
            Self::Made(recipe) => recipe.length(),
        }
    }
}

/// Writes. In the place of what was deleted, the new value is there before the old one can no longer
/// be restored: a write that is refused changes nothing.
///
/// # Errors
/// `NotFound` for an update of what is deleted; what store and state say.
pub(crate) async fn write(
    call: &Call,
    subject: &str,
    path: &SecretPath,
    value: &Value,
    options: PutOptions,
) -> Result<Metadata> {
    let shared = call.shared();
    let Some(tombstone) = shared.state.tombstone(subject) else {
        return put(call, path, value, &options).await;
    };
    let metadata = match look(shared, path, call.request()).await.map_err(of_store)? {
        Some(metadata) if is_of(&tombstone, &metadata) => {
            let metadata = over(call, &tombstone, path, value, options).await?;
            if metadata.version.as_ref().map(Version::as_str) == Some(tombstone.version.as_str()) {
                // A repetition of what wrote it, before it was deleted: it stays so.
                return Ok(metadata);
            }
            metadata
        }
        _ => put(call, path, value, &options).await?,
    };
    if let Err(error) = shared.state.take_tombstone(subject).await {
        // It is about nothing any more, and hides nothing: the sweep takes it away.
        tracing::warn!(secret = subject, %error, "a tombstone cannot be taken away");
    }
    Ok(metadata)
}

/// Writes over what was deleted.
async fn over(
    call: &Call,
    tombstone: &Tombstone,
    path: &SecretPath,
    value: &Value,
    options: PutOptions,
) -> Result<Metadata> {
    if matches!(options.mode, PutMode::Update(_)) {
        return Err(nothing());
    }
    let store = &call.shared().store;
    let capabilities = store.capabilities().await.map_err(of_store)?;
    let missing = needed(&options) - capabilities.can;
    if !missing.is_empty() {
        let rule = format!(
            "the store lacks the capability {}",
            missing.names().join(", ")
        );
        return Err(Error::new(ErrorKind::Unsupported, rule));
    }
    if value.len() > capabilities.max_value {
        let rule = format!("a value has at most {} bytes here", capabilities.max_value);
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    let version = Version::new(tombstone.version.as_str())?;
    if capabilities.has(Capability::UPDATE) && is_all(call, path, &options).await? {
        let options = options.mode(PutMode::Update(version));
        return put(call, path, value, &options).await;
    }
    // Its siblings in the map would come back with a field that is written.
    in_time(call)?;
    let version = Some(version).filter(|_| capabilities.has(Capability::UPDATE));
    let delete = DeleteOptions::default()
        .version(version)
        .request(call.request());
    store.delete(path, &delete).await.map_err(of_store)?;
    put(call, path, value, &options).await
}

async fn put(
    call: &Call,
    path: &SecretPath,
    value: &Value,
    options: &PutOptions,
) -> Result<Metadata> {
    in_time(call)?;
    let store = &call.shared().store;
    let put = match value {
        Value::Given(value) => store.put(path, value, options).await,
        Value::Made(recipe) => store.generate(path, recipe, options).await,
    };
    put.map_err(of_store)
}

/// What a write needs beside the value's room.
fn needed(options: &PutOptions) -> Capability {
    let mut wanted = match options.mode {
        PutMode::Create => Capability::CREATE,
        _ => Capability::WRITE,
    };
    wanted.set(Capability::LABELS, !options.labels.is_empty());
    wanted.set(Capability::EXPIRY, options.expires.is_some());
    if let Some(field) = &options.field {
        wanted |= Capability::FIELDS;
        wanted.set(Capability::UPDATE, !field.is_all());
    }
    wanted
}

/// Whether the write replaces all that is there, and leaves no other field of a map.
async fn is_all(call: &Call, path: &SecretPath, options: &PutOptions) -> Result<bool> {
    if options.field.as_ref().is_some_and(Field::is_all) {
        return Ok(true);
    }
    let store = &call.shared().store;
    let read = |field: Option<Field>| {
        GetOptions::default()
            .field(field)
            .expired(true)
            .request(call.request())
    };
    let map = match store.get(path, &read(Some(Field::all()))).await {
        Ok(map) => map.value,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(true),
        Err(error) if is_none(&error) => return Ok(false),
        Err(error) => return Err(of_store(error)),
    };
    let fields: Result<HashMap<String, IgnoredAny>, _> = serde_json::from_slice(map.expose());
    if !fields.is_ok_and(|fields| fields.len() == 1) {
        return Ok(false);
    }
    match store.get(path, &read(options.field.clone())).await {
        Ok(_) => Ok(true),
        Err(error) if is_none(&error) => Ok(false),
        Err(error) => Err(of_store(error)),
    }
}

fn is_none(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
}
