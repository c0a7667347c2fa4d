//! Lists without what is deleted.

use keyhaul_core::{ListOptions, Page, Result, SecretPath};

use super::super::call::Call;
use super::super::state::Tombstone;
use super::is_hidden;

/// A page without what is deleted, and without folders that hold nothing else.
///
/// # Errors
/// What the store says.
pub(crate) async fn without_deleted(call: &Call, prefix: &SecretPath, page: Page) -> Result<Page> {
    let deleted = call.shared().state.tombstones_below(prefix.as_str());
    if deleted.is_empty() {
        return Ok(page);
    }
    let mut secrets = Vec::with_capacity(page.secrets.len());
    for path in page.secrets {
        if !is_deleted(call, &deleted, &path).await? {
            secrets.push(path);
        }
    }
    let mut folders = Vec::with_capacity(page.folders.len());
    for folder in page.folders {
        let below = |tombstone: &Tombstone| {
            let rest = tombstone.subject.strip_prefix(folder.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if !deleted.iter().any(below) || holds_more(call, &deleted, &folder).await? {
            folders.push(folder);
        }
    }
    Ok(Page::new(secrets, folders, page.next))
}

async fn is_deleted(call: &Call, deleted: &[Tombstone], path: &SecretPath) -> Result<bool> {
    let of = |tombstone: &&Tombstone| tombstone.subject == path.as_str();
    match deleted.iter().find(of) {
        None => Ok(false),
        Some(tombstone) => {
            let looked = is_hidden(call.shared(), tombstone, path, call.request());
            call.ask(looked).await
        }
    }
}

/// Whether anything in the folder is not deleted.
async fn holds_more(call: &Call, deleted: &[Tombstone], folder: &SecretPath) -> Result<bool> {
    let mut options = ListOptions::default().request(call.request());
    loop {
        let page = call.ask(call.shared().store.list(folder, &options)).await?;
        for path in &page.secrets {
            if !is_deleted(call, deleted, path).await? {
                return Ok(true);
            }
        }
        match page.next {
            None => return Ok(false),
            next => options.after = next,
        }
    }
}
