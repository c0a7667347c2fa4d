//! Soft deletion: what is deleted stays in the store, hidden, until its window is over.
//!
//! A tombstone is about one version: whatever else becomes current, by whatever way, is not hidden.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use keyhaul_core::{
    Capability, DeleteOptions, Error, ErrorKind, GetOptions, ListOptions, Metadata, Page, PutMode,
    Reference, Request, Result, SecretPath, Version,
};
use tokio::sync::{Mutex, MutexGuard};

use super::Shared;
use super::call::Call;
use super::failure::of_store;
use super::state::Tombstone;

/// How many changes can be made to different secrets without waiting for each other by chance.
pub(super) const SUBJECTS: usize = 64;

/// Waits until nothing else changes this secret: between looking and burying nobody writes.
pub(super) async fn alone<'a>(subjects: &'a [Mutex<()>], subject: &str) -> MutexGuard<'a, ()> {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    // As many as a hash can say are enough, whatever it loses on the way.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below 64")]
    let at = (hasher.finish() % subjects.len() as u64) as usize;
    subjects[at].lock().await
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
        .ask(lies_there(shared, &tombstone, path, call.request()))
        .await?
    {
        true => Err(nothing()),
        false => Ok(()),
    }
}

/// Makes room for what is about to be written: what was deleted does not come back as an old
/// version of it.
///
/// # Errors
/// `NotFound` for an update, which has nothing to update; what store and state say.
pub(super) async fn clear(
    call: &Call,
    subject: &str,
    path: &SecretPath,
    mode: &PutMode,
) -> Result<()> {
    let shared = call.shared();
    let Some(tombstone) = shared.state.tombstone(subject) else {
        return Ok(());
    };
    if call
        .ask(lies_there(shared, &tombstone, path, call.request()))
        .await?
    {
        if matches!(mode, PutMode::Update(_)) {
            return Err(nothing());
        }
        let options = DeleteOptions::default().request(call.request());
        call.ask(shared.store.delete(path, &options)).await?;
    }
    shared.state.exhume(subject).await.map(drop)
}

/// Deletes: behind a tombstone, or at once where there is no window. Says until when it can be
/// brought back.
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
    if let Some(tombstone) = shared.state.tombstone(subject)
        && call
            .ask(lies_there(shared, &tombstone, path, call.request()))
            .await?
    {
        return Ok(Some(tombstone.until));
    }
    let window = call.live.delete_window;
    if window.is_zero() {
        call.ask(shared.store.delete(path, options)).await?;
        return Ok(None);
    }
    let capabilities = call.ask(shared.store.capabilities()).await?;
    let needed = match options.version {
        Some(_) => Capability::DELETE | Capability::UPDATE,
        None => Capability::DELETE,
    };
    if !capabilities.has(needed) {
        // In the store's own words, and without effect.
        call.ask(shared.store.delete(path, options)).await?;
        return Ok(None);
    }
    let looked = GetOptions::default().expired(true).request(call.request());
    let metadata = match call.ask(shared.store.stat(path, &looked)).await {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if options.version.is_some() && options.version != metadata.version {
        let rule = "another version is current than the one to be deleted";
        return Err(Error::new(ErrorKind::Conflict, rule));
    }
    let until = jiff::SignedDuration::try_from(window)
        .ok()
        .and_then(|window| shared.state.now().checked_add(window).ok())
        .unwrap_or(Timestamp::MAX);
    let tombstone = Tombstone {
        subject: subject.to_owned(),
        version: metadata.version.map(|version| version.as_str().to_owned()),
        until,
    };
    shared.state.bury(&tombstone).await?;
    Ok(Some(until))
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
    let looked = GetOptions::default().expired(true).request(call.request());
    let metadata = match call.ask(shared.store.stat(path, &looked)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone()),
        looked => looked?,
    };
    if !is_of(&tombstone, &metadata) {
        return Err(gone());
    }
    shared.state.exhume(subject).await?;
    Ok(metadata)
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

/// Deletes for good what has been deleted for long enough.
pub(super) async fn sweep(shared: &Shared) {
    for tombstone in shared.state.due() {
        let _alone = alone(&shared.subjects, &tombstone.subject).await;
        // Restored, or written anew, while we waited.
        if shared.state.tombstone(&tombstone.subject).as_ref() != Some(&tombstone) {
            continue;
        }
        match purge(shared, &tombstone).await {
            Ok(()) => tracing::info!(secret = tombstone.subject, "deleted for good"),
            Err(error) => {
                tracing::warn!(secret = tombstone.subject, %error, "not deleted for good yet");
            }
        }
    }
}

async fn purge(shared: &Shared, tombstone: &Tombstone) -> Result<()> {
    let path = SecretPath::new(tombstone.subject.as_str())?;
    if lies_there(shared, tombstone, &path, Request::default()).await? {
        let capabilities = shared.store.capabilities().await?;
        let version = tombstone.version.clone().map(Version::new).transpose()?;
        let version = version.filter(|_| capabilities.has(Capability::UPDATE));
        let options = DeleteOptions::default().version(version);
        shared.store.delete(&path, &options).await?;
    }
    shared.state.exhume(&tombstone.subject).await.map(drop)
}

/// Whether what the tombstone is about is still what the store holds.
async fn lies_there(
    shared: &Shared,
    tombstone: &Tombstone,
    path: &SecretPath,
    request: Request,
) -> Result<bool> {
    let options = GetOptions::default().expired(true).request(request);
    match shared.store.stat(path, &options).await {
        Ok(metadata) => Ok(is_of(tombstone, &metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_of(tombstone: &Tombstone, metadata: &Metadata) -> bool {
    tombstone.version.as_deref() == metadata.version.as_ref().map(Version::as_str)
}

async fn is_buried(call: &Call, buried: &[Tombstone], path: &SecretPath) -> Result<bool> {
    let of = |tombstone: &&Tombstone| tombstone.subject == path.as_str();
    match buried.iter().find(of) {
        None => Ok(false),
        Some(tombstone) => {
            let looked = lies_there(call.shared(), tombstone, path, call.request());
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

/// As a store says it of what never was.
fn nothing() -> Error {
    of_store(Error::new(ErrorKind::NotFound, "no such secret"))
}
