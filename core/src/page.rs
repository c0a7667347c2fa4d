//! Pages of a listing, for stores that answer with everything they have, in no order: keyrings,
//! tokens, a single folder.

use std::collections::BTreeSet;

use crate::{Error, ErrorKind, ListOptions, Page, Result, SecretPath};

/// The most that one page gives.
const PAGE: usize = 1000;

/// Refuses what no page can be, before anybody is asked.
///
/// # Errors
/// `InvalidReference` for a limit of 0 and for a cursor that [`of`] never gave.
pub fn check(options: &ListOptions) -> Result<()> {
    if options.limit == Some(0) {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "a page has at least one entry: the limit is 1 or more",
        ));
    }
    options.after.as_deref().map(Entry::of_cursor).transpose()?;
    Ok(())
}

/// The page of `paths` that was asked for. Where a path comes twice, it is listed once.
///
/// # Errors
/// As [`check`].
pub fn of(
    paths: impl IntoIterator<Item = SecretPath>,
    prefix: &SecretPath,
    options: &ListOptions,
) -> Result<Page> {
    check(options)?;
    let after = options.after.as_deref().map(Entry::of_cursor).transpose()?;
    let limit = options.limit.unwrap_or(PAGE).min(PAGE);
    let below = paths.into_iter().filter(|path| path.is_below(prefix));
    let entries: BTreeSet<Entry> = if options.shallow {
        below
            .map(|path| Entry::directly_below(prefix, &path))
            .collect::<Result<_>>()?
    } else {
        below.map(Entry::secret).collect()
    };
    let mut rest = entries
        .into_iter()
        .filter(|entry| after.as_ref().is_none_or(|after| entry > after));
    let taken: Vec<Entry> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(taken.last()).map(Entry::cursor);
    let (folders, secrets): (Vec<_>, Vec<_>) = taken.into_iter().partition(|entry| entry.is_folder);
    let paths = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.path).collect();
    Ok(Page::new(paths(secrets), paths(folders), next))
}

/// What a page lists, in the order it is listed in.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: SecretPath,
    is_folder: bool,
}

impl Entry {
    fn secret(path: SecretPath) -> Self {
        Self {
            path,
            is_folder: false,
        }
    }

    /// `path` itself, or the folder it is in.
    fn directly_below(prefix: &SecretPath, path: &SecretPath) -> Result<Self> {
        let mut below = path.segments().skip(prefix.segments().count());
        let first = below.next().unwrap_or_default();
        Ok(Self {
            path: prefix.join(first)?,
            is_folder: below.next().is_some(),
        })
    }

    /// A folder's cursor ends in `/`, which no path does.
    fn cursor(&self) -> String {
        format!("{}{}", self.path, if self.is_folder { "/" } else { "" })
    }

    fn of_cursor(cursor: &str) -> Result<Self> {
        let (path, is_folder) = match cursor.strip_suffix('/') {
            Some(path) => (path, true),
            None => (cursor, false),
        };
        let path = SecretPath::new(path).map_err(|_| {
            Error::new(
                ErrorKind::InvalidReference,
                "not the end of a page of this store",
            )
        })?;
        Ok(Self { path, is_folder })
    }
}
