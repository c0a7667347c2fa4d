//! Listing: a walk in byte order that stops when the page is full.

use keyhaul_core::{Error, ErrorKind, ListOptions, Page, Result, SecretPath};

use crate::cursor::Cursor;
use crate::names::{Naming, continues};
use crate::tree::{Folder, Kind};

/// The most that one page gives.
const PAGE: usize = 1000;

/// The secrets below `prefix`, which lie under `base`.
pub(crate) fn list(
    base: Folder,
    naming: Naming,
    prefix: &SecretPath,
    options: &ListOptions,
) -> Result<Page> {
    if options.limit == Some(0) {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "a page has at least one entry: the limit is 1 or more",
        ));
    }
    let mut cursor = Cursor::new(base);
    let Some(folder) = cursor.go(&naming.folders(prefix))? else {
        return Ok(Page::default());
    };
    let mut listing = Listing {
        naming,
        after: options.after.as_deref().unwrap_or_default(),
        limit: options.limit.unwrap_or(PAGE).clamp(1, PAGE),
        page: Page::default(),
        last: String::new(),
    };
    let full = if options.shallow {
        listing.level(folder, prefix)?
    } else {
        listing.walk(folder, prefix)?
    };
    let mut page = listing.page;
    page.next = full.then_some(listing.last);
    Ok(page)
}

struct Listing<'a> {
    naming: Naming,
    /// The last entry of the page before. A folder's ends in `/`.
    after: &'a str,
    limit: usize,
    page: Page,
    last: String,
}

/// An entry whose name is a segment of a path.
#[derive(Debug)]
struct Item {
    segment: String,
    is_folder: bool,
    names: Vec<String>,
}

impl Listing<'_> {
    /// Everything below `folder`; whether there is more than fits.
    fn walk(&mut self, folder: &Folder, at: &SecretPath) -> Result<bool> {
        let depth = at.segments().count();
        let mut items = self.items(folder, depth)?;
        // As whole paths sort: what lies in folder `a` begins with `a/`, and `a-b` comes before.
        items.sort_by_cached_key(|item| {
            format!("{}{}", item.segment, if item.is_folder { "/" } else { "" })
        });
        for item in items {
            let Ok(path) = at.join(&item.segment) else {
                continue;
            };
            if item.is_folder {
                let inside = format!("{path}/");
                if self.after > inside.as_str() && !self.after.starts_with(&inside) {
                    continue;
                }
                if let Some(folder) = enter(folder, &item.names)?
                    && self.walk(&folder, &path)?
                {
                    return Ok(true);
                }
            } else if path.as_str() > self.after {
                if self.is_full() {
                    return Ok(true);
                }
                self.last = path.to_string();
                self.page.secrets.push(path);
            }
        }
        Ok(false)
    }

    /// What lies directly in `folder`; whether there is more than fits.
    fn level(&mut self, folder: &Folder, at: &SecretPath) -> Result<bool> {
        let depth = at.segments().count();
        let mut items = self.items(folder, depth)?;
        items.sort_by(|a, b| (&a.segment, a.is_folder).cmp(&(&b.segment, b.is_folder)));
        let after = match self.after.strip_suffix('/') {
            Some(path) => (path, true),
            None => (self.after, false),
        };
        for item in items {
            let Ok(path) = at.join(&item.segment) else {
                continue;
            };
            if (path.as_str(), item.is_folder) <= after {
                continue;
            }
            // A folder is there for what is in it; a killed writer can leave an empty one.
            if item.is_folder && !self.holds_any(folder, &item.names, depth + 1)? {
                continue;
            }
            if self.is_full() {
                return Ok(true);
            }
            if item.is_folder {
                self.last = format!("{path}/");
                self.page.folders.push(path);
            } else {
                self.last = path.to_string();
                self.page.secrets.push(path);
            }
        }
        Ok(false)
    }

    fn is_full(&self) -> bool {
        self.page.secrets.len() + self.page.folders.len() == self.limit
    }

    fn holds_any(&self, folder: &Folder, names: &[String], depth: usize) -> Result<bool> {
        let Some(folder) = enter(folder, names)? else {
            return Ok(false);
        };
        let items = self.items(&folder, depth)?;
        if items.iter().any(|item| !item.is_folder) {
            return Ok(true);
        }
        for item in items {
            if self.holds_any(&folder, &item.names, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn items(&self, folder: &Folder, depth: usize) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        self.collect(folder, depth, &[], &mut items)?;
        Ok(items)
    }

    /// The items in `folder`, where a segment that began with `before` may continue.
    fn collect(
        &self,
        folder: &Folder,
        depth: usize,
        before: &[String],
        items: &mut Vec<Item>,
    ) -> Result<()> {
        for (name, kind) in folder.entries()? {
            let mut names = before.to_vec();
            names.push(name);
            let name = &names[before.len()];
            let segment = match kind {
                // A link where a secret would be is listed, since it is in a secret's way; reading it
                // says what is wrong.
                Kind::File | Kind::Link => self.naming.file_segment(&names),
                Kind::Folder if continues(name) => {
                    if let Some(inner) = folder.enter(name)? {
                        self.collect(&inner, depth, &names, items)?;
                    }
                    continue;
                }
                Kind::Folder => self.naming.folder_segment(&names, depth),
                Kind::Other => None,
            };
            match segment {
                Some(segment) => items.push(Item {
                    segment,
                    is_folder: kind == Kind::Folder,
                    names,
                }),
                None => {
                    tracing::debug!(path = %folder.path().join(name).display(), "not keyhaul's, left out of the listing");
                }
            }
        }
        Ok(())
    }
}

fn enter(folder: &Folder, names: &[String]) -> Result<Option<Folder>> {
    let mut inner = None;
    for name in names {
        inner = match inner.as_ref().unwrap_or(folder).enter(name)? {
            Some(folder) => Some(folder),
            None => return Ok(None),
        };
    }
    Ok(inner)
}
