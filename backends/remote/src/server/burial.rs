//! Soft deletion: what is deleted stays in the store, hidden, until its window is over.
//!
//! A tombstone is about one version, as it was written at one moment: whatever else becomes current,
//! by whatever way, is neither hidden nor deleted. A store whose metadata tell no such thing, or that
//! cannot delete by version, deletes at once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use keyhaul_core::{
    Capability, DeleteOptions, Error, ErrorKind, Field, GetOptions, ListOptions, Metadata, Page,
    PutMode, PutOptions, Recipe, Reference, Request, Result, SecretBytes, SecretPath, Version,
};
use serde::de::IgnoredAny;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout_at;

use super::Shared;
use super::call::{Call, fail, late};
use super::failure::{internal, of_store};
use super::state::Tombstone;

/// How many changes can be made to different secrets without waiting for each other by chance.
pub(super) const SUBJECTS: usize = 64;

/// The right to change a secret: between looking and burying nobody else writes.
pub(super) type Turn = OwnedMutexGuard<()>;

/// A value that is to be written.
pub(super) enum Value {
    /// Somebody gave it.
    Given(SecretBytes),
    /// It is made by this recipe.
    Made(Recipe),
}

/// Makes a change while nothing else changes this secret, and waits for it as long as the caller
/// does. The turn is over when the change is, whoever waits: a store may still be at it.
///
/// # Errors
/// The change's own; `Timeout` where it takes longer than the caller waits.
pub(super) async fn alone<T, F>(call: &Arc<Call>, subject: &str, change: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let turns = Arc::clone(turns_of(call.shared(), subject));
    let turn = timeout_at(call.deadline.into(), turns.lock_owned());
    let turn = turn.await.map_err(|_| late())?;
    let mut task = tokio::spawn(async move {
        let result = change.await;
        drop(turn);
        result
    });
    let defect = |_| Err(internal("a defect of the service"));
    if let Ok(result) = timeout_at(call.deadline.into(), &mut task).await {
        return result.unwrap_or_else(defect);
    }
    let (call, subject) = (Arc::clone(call), subject.to_owned());
    tokio::spawn(async move {
        let mut entry = call.entry(Some(subject));
        entry.reason = Some("it ended when its caller waited no longer".into());
        if let Err(error) = task.await.unwrap_or_else(defect) {
            fail(&mut entry, &error);
        }
        // What cannot be recorded has been logged.
        let _ = call.record(vec![entry]).await;
    });
    Err(late())
}

/// The turn, where nobody has it now.
pub(super) fn turn(shared: &Shared, subject: &str) -> Option<Turn> {
    Arc::clone(turns_of(shared, subject)).try_lock_owned().ok()
}

fn turns_of<'a>(shared: &'a Shared, subject: &str) -> &'a Arc<Mutex<()>> {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    // As many as a hash can say are enough, whatever it loses on the way.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below 64")]
    let at = (hasher.finish() % shared.subjects.len() as u64) as usize;
    &shared.subjects[at]
}

/// That the secret is not deleted. Costs nothing where there is no tombstone.
///
/// # Errors
/// `NotFound` where it is; what the store says otherwise.
pub(super) async fn alive(call: &Call, subject: &str, path: &SecretPath) -> Result<()> {
    let shared = call.shared();
    let Some(tombstone) = shared.state.tombstone(subject) else {
        return Ok(());
    };
    match call
        .ask(is_hidden(shared, &tombstone, path, call.request()))
        .await?
    {
        true => Err(nothing()),
        false => Ok(()),
    }
}

/// Writes. In the place of what was deleted, the new value is there before the old one can no longer
/// be restored: a write that is refused changes nothing.
///
/// # Errors
/// `NotFound` for an update of what is deleted; what store and state say.
pub(super) async fn write(
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
    if let Err(error) = shared.state.exhume(subject).await {
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

/// Deletes: behind a tombstone, or at once where there is no window, or the store cannot say later
/// that it is still the same secret. Says until when it can be brought back.
///
/// # Errors
/// `Conflict` where another version is current; what store and state say.
pub(super) async fn bury(
    call: &Call,
    reference: &Reference,
    path: &SecretPath,
    options: &DeleteOptions,
) -> Result<Option<Timestamp>> {
    let shared = call.shared();
    let subject = reference.subject();
    if let Some(tombstone) = shared.state.tombstone(subject) {
        match look(shared, path, call.request()).await.map_err(of_store)? {
            Some(metadata) if is_of(&tombstone, &metadata) => {
                check(options, &metadata)?;
                return Ok(Some(tombstone.until));
            }
            Some(_) => {}
            None => return shared.state.exhume(subject).await.map(|_| None),
        }
    }
    let window = call.live.delete_window;
    if window.is_zero() {
        return at_once(call, path, options).await;
    }
    let capabilities = shared.store.capabilities().await.map_err(of_store)?;
    if !capabilities.has(Capability::READ | Capability::DELETE | Capability::UPDATE) {
        return at_once(call, path, options).await;
    }
    let Some(metadata) = look(shared, path, call.request()).await.map_err(of_store)? else {
        return Ok(None);
    };
    check(options, &metadata)?;
    let Some((version, created)) = identity(&metadata) else {
        return at_once(call, path, options).await;
    };
    let until = jiff::SignedDuration::try_from(window)
        .ok()
        .and_then(|window| shared.state.now().checked_add(window).ok())
        .unwrap_or(Timestamp::MAX);
    in_time(call)?;
    let tombstone = Tombstone {
        subject: subject.to_owned(),
        version: version.to_owned(),
        created,
        until,
        // What is running is counted when it is over.
        left: window.saturating_add(super::sweep::EVERY),
    };
    shared.state.bury(&tombstone).await?;
    Ok(Some(until))
}

async fn at_once(
    call: &Call,
    path: &SecretPath,
    options: &DeleteOptions,
) -> Result<Option<Timestamp>> {
    in_time(call)?;
    let deleted = call.shared().store.delete(path, options).await;
    deleted.map(|()| None).map_err(of_store)
}

fn check(options: &DeleteOptions, metadata: &Metadata) -> Result<()> {
    if options.version.is_none() || options.version == metadata.version {
        return Ok(());
    }
    let rule = "another version is current than the one to be deleted";
    Err(Error::new(ErrorKind::Conflict, rule))
}

/// Brings back what was deleted.
///
/// # Errors
/// `NotFound` where nothing is there to be brought back.
pub(super) async fn exhume(call: &Call, subject: &str, path: &SecretPath) -> Result<Metadata> {
    let shared = call.shared();
    let gone = || {
        Error::new(ErrorKind::NotFound, "there is nothing that could be restored")
            .with_advice("what is deleted can be restored within the service's window, until something new is written in its place")
    };
    let tombstone = shared.state.tombstone(subject).ok_or_else(gone)?;
    match look(shared, path, call.request()).await.map_err(of_store)? {
        Some(metadata) if is_of(&tombstone, &metadata) => {
            in_time(call)?;
            shared.state.exhume(subject).await?;
            Ok(metadata)
        }
        _ => Err(gone()),
    }
}

/// A page without what is deleted, and without folders that hold nothing else.
///
/// # Errors
/// What the store says.
pub(super) async fn without_buried(call: &Call, prefix: &SecretPath, page: Page) -> Result<Page> {
    let buried = call.shared().state.buried_below(prefix.as_str());
    if buried.is_empty() {
        return Ok(page);
    }
    let mut secrets = Vec::with_capacity(page.secrets.len());
    for path in page.secrets {
        if !is_buried(call, &buried, &path).await? {
            secrets.push(path);
        }
    }
    let mut folders = Vec::with_capacity(page.folders.len());
    for folder in page.folders {
        let below = |tombstone: &Tombstone| {
            let rest = tombstone.subject.strip_prefix(folder.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if !buried.iter().any(below) || holds_more(call, &buried, &folder).await? {
            folders.push(folder);
        }
    }
    Ok(Page::new(secrets, folders, page.next))
}

/// What the store holds there now, expired or not.
pub(super) async fn look(
    shared: &Shared,
    path: &SecretPath,
    request: Request,
) -> Result<Option<Metadata>> {
    let options = GetOptions::default().expired(true).request(request);
    match shared.store.stat(path, &options).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether this is what was deleted.
pub(super) fn is_of(tombstone: &Tombstone, metadata: &Metadata) -> bool {
    identity(metadata) == Some((tombstone.version.as_str(), tombstone.created))
}

/// What no successor has too: a version may begin anew, the time it was written does not come again.
fn identity(metadata: &Metadata) -> Option<(&str, Timestamp)> {
    let created = Timestamp::try_from(metadata.created?).ok()?;
    Some((metadata.version.as_ref()?.as_str(), created))
}

/// Whether nobody shall see what the store holds there: the tombstone's own, or nothing.
async fn is_hidden(
    shared: &Shared,
    tombstone: &Tombstone,
    path: &SecretPath,
    request: Request,
) -> Result<bool> {
    let found = look(shared, path, request).await?;
    Ok(found.is_none_or(|metadata| is_of(tombstone, &metadata)))
}

async fn is_buried(call: &Call, buried: &[Tombstone], path: &SecretPath) -> Result<bool> {
    let of = |tombstone: &&Tombstone| tombstone.subject == path.as_str();
    match buried.iter().find(of) {
        None => Ok(false),
        Some(tombstone) => {
            let looked = is_hidden(call.shared(), tombstone, path, call.request());
            call.ask(looked).await
        }
    }
}

/// Whether anything in the folder is not deleted.
async fn holds_more(call: &Call, buried: &[Tombstone], folder: &SecretPath) -> Result<bool> {
    let mut options = ListOptions::default().request(call.request());
    loop {
        let page = call.ask(call.shared().store.list(folder, &options)).await?;
        for path in &page.secrets {
            if !is_buried(call, buried, path).await? {
                return Ok(true);
            }
        }
        match page.next {
            None => return Ok(false),
            next => options.after = next,
        }
    }
}

/// That the caller still waits: what nobody waits for is not begun.
fn in_time(call: &Call) -> Result<()> {
    if Instant::now() < call.deadline {
        Ok(())
    } else {
        Err(late())
    }
}

/// As a store says it of what never was.
fn nothing() -> Error {
    of_store(Error::new(ErrorKind::NotFound, "no such secret"))
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Given(value) => value.len(),
            Self::Made(recipe) => recipe.length(),
        }
    }
}
