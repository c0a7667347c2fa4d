//! Listing.
//!
//! The server lists one level, whole and in its order, with folders as names that end in a slash.
//! With the slash they sort among the secrets just where what is in them belongs, so that a walk
//! that opens each folder in its place gives byte order, and need not go further than a page.

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream;
use keyhaul_core::{Error, ErrorKind, ListOptions, Page, Request, Result, SecretPath};
use serde::Deserialize;

use super::paths::{KvVersion, Mount};
use super::{Kv, unread};
use crate::http::Call;

/// The most entries of a page, whatever limit is asked for.
const MAX_PAGE: usize = 1000;
/// How many folders are opened, or secrets looked at, at the same time.
const AT_ONCE: usize = 16;

const FOLDER: &str = "folder:";
const SECRET: &str = "secret:";

#[derive(Deserialize)]
struct Listed {
    data: Keys,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

/// What lies in a folder. Secrets sort before the folders of their name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: SecretPath,
    is_folder: bool,
}

impl Entry {
    fn cursor(&self) -> String {
        let kind = if self.is_folder { FOLDER } else { SECRET };
        format!("{kind}{}", self.path)
    }

    fn of_cursor(cursor: &str) -> Result<Self> {
        let strip = |kind| cursor.strip_prefix(kind).map(SecretPath::new);
        let (path, is_folder) = match (strip(SECRET), strip(FOLDER)) {
            (Some(Ok(path)), _) => (path, false),
            (_, Some(Ok(path))) => (path, true),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidReference,
                    "not the end of a page of this store",
                ));
            }
        };
        Ok(Self { path, is_folder })
    }

    /// The text by which a walk is in order.
    fn key(&self) -> String {
        let slash = if self.is_folder { "/" } else { "" };
        format!("{}{slash}", self.path)
    }

    /// Whether all of it comes at or before `after`, in a walk.
    fn is_before(&self, after: &str) -> bool {
        let key = self.key();
        match self.is_folder {
            true => key.as_str() < after && !after.starts_with(&key),
            false => key.as_str() <= after,
        }
    }
}

impl Kv {
    pub(crate) async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let request = &options.request;
        let mount = self.mounted.get(&self.wire, request).await?;
        if options.limit == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidReference,
                "a page has at least 1 entry",
            ));
        }
        let limit = options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let after = options.after.as_deref().map(Entry::of_cursor).transpose()?;
        let lister = Lister {
            kv: self,
            mount: &mount,
            request,
        };
        // One more tells whether there is a next page.
        let mut entries = if options.shallow {
            lister.shallow(prefix, after.as_ref(), limit + 1).await?
        } else {
            let after = after.map(|after| after.path.as_str().to_owned());
            lister.deep(prefix, after.as_deref(), limit + 1).await?
        };
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(Entry::cursor);
        let (folders, secrets): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.is_folder);
        let paths = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.path).collect();
        Ok(Page::new(paths(secrets), paths(folders), next))
    }
}

struct Lister<'a> {
    kv: &'a Kv,
    mount: &'a Mount,
    request: &'a Request,
}

impl Lister<'_> {
    /// Up to `limit` entries directly below `prefix`, behind `after`.
    async fn shallow(
        &self,
        prefix: &SecretPath,
        after: Option<&Entry>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let mut level = self.level(prefix).await?;
        level.sort_unstable();
        level.retain(|entry| after.is_none_or(|after| entry > after));
        self.living(level, limit).await
    }

    /// Up to `limit` secrets below `prefix`, behind `after`, in byte order.
    async fn deep(
        &self,
        prefix: &SecretPath,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let ahead = |mut level: Vec<Entry>| {
            level.sort_by_cached_key(Entry::key);
            level.retain(|entry| after.is_none_or(|after| !entry.is_before(after)));
            level
        };
        let mut found = Vec::new();
        let mut queue: VecDeque<Entry> = ahead(self.level(prefix).await?).into();
        while found.len() < limit && !queue.is_empty() {
            // Opens the folders that come next, together, each in its place.
            let missing = limit - found.len();
            let mut next = Vec::new();
            let mut folders = 0;
            while let Some(entry) = queue.pop_front() {
                folders += usize::from(entry.is_folder);
                next.push(entry);
                if folders == AT_ONCE || next.len() - folders == missing {
                    break;
                }
            }
            let opened: Vec<_> = next.iter().map(|entry| self.opened(entry)).collect();
            for level in try_join_all(opened).await?.into_iter().rev() {
                for entry in ahead(level).into_iter().rev() {
                    queue.push_front(entry);
                }
            }
            let mut secrets = Vec::new();
            while queue.front().is_some_and(|entry| !entry.is_folder) {
                secrets.extend(queue.pop_front());
                if secrets.len() == missing {
                    break;
                }
            }
            found.extend(self.living(secrets, missing).await?);
        }
        Ok(found)
    }

    /// What is in a folder, or the secret itself.
    async fn opened(&self, entry: &Entry) -> Result<Vec<Entry>> {
        if entry.is_folder {
            self.level(&entry.path).await
        } else {
            Ok(vec![entry.clone()])
        }
    }

    /// The server's list of one level.
    async fn level(&self, prefix: &SecretPath) -> Result<Vec<Entry>> {
        let call = Call::list(self.mount.metadata(prefix));
        let answer = self.kv.send(self.request, call, "list").await?;
        match answer.status {
            404 if answer.is_absence() => return Ok(Vec::new()),
            _ if answer.is_success() => {}
            _ => return Err(unread(&answer, prefix)),
        }
        let keys = answer.json::<Listed>()?.data.keys;
        let entries = keys.iter().filter_map(|key| {
            let (name, is_folder) = match key.strip_suffix('/') {
                Some(name) => (name, true),
                None => (key.as_str(), false),
            };
            // Others can write names that no path of ours has; whoever asks for one by name is told.
            let path = prefix.join(name).ok()?;
            Some(Entry { path, is_folder })
        });
        Ok(entries.collect())
    }

    /// Up to `limit` of `entries`, less those marked deleted, in a store that marks: elsewhere what the
    /// server lists is there.
    async fn living(&self, mut entries: Vec<Entry>, limit: usize) -> Result<Vec<Entry>> {
        if !self.kv.soft_delete || self.mount.version == KvVersion::One {
            entries.truncate(limit);
            return Ok(entries);
        }
        let looked: Vec<_> = entries.iter().map(|entry| self.lives(entry)).collect();
        let mut looked = stream::iter(looked).buffered(AT_ONCE);
        let mut living = Vec::new();
        for entry in &entries {
            if let Some(lives) = looked.next().await
                && lives?
            {
                living.push(entry.clone());
            }
            if living.len() == limit {
                break;
            }
        }
        Ok(living)
    }

    /// Whether a secret's current version is there, or anything in a folder is.
    fn lives<'f>(&'f self, entry: &'f Entry) -> BoxFuture<'f, Result<bool>> {
        Box::pin(async move {
            if entry.is_folder {
                return Ok(!self.deep(&entry.path, None, 1).await?.is_empty());
            }
            let about = self.kv.about(self.mount, &entry.path, self.request).await?;
            Ok(about.is_some_and(|about| about.is_live()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        Entry {
            path: SecretPath::new(key.trim_end_matches('/')).expect("a path"),
            is_folder: key.ends_with('/'),
        }
    }

    #[test]
    fn a_walk_skips_only_what_lies_wholly_before_the_cursor() {
        for (key, after, before) in [
            ("a", "a", true),
            ("a/", "a", false),
            ("a/", "a/b", false),
            ("a/", "a0", true),
            ("a!", "a/b", true),
            ("b", "a/b", false),
            ("a/", "a!", false),
        ] {
            assert_eq!(entry(key).is_before(after), before, "{key} {after}");
        }
    }

    #[test]
    fn cursors_round_trip_and_foreign_ones_are_refused() {
        for key in ["a/b", "a/b/", "folder:x", "secret:y/"] {
            assert_eq!(
                Entry::of_cursor(&entry(key).cursor()).expect("own"),
                entry(key)
            );
        }
        for text in ["", "a", "secret:", "folder:/", "\u{1}no cursor"] {
            let error = Entry::of_cursor(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
        }
    }
}
