//! Listing a policy as one store.

use std::collections::BTreeSet;

use super::super::Resolver;
use crate::policy::Route;
use crate::store::{ListOptions, Page};
use crate::{Error, ErrorKind, Reference, Result, SecretPath};

/// The most entries of a page that is made here, whatever limit is asked for.
const MAX_PAGE: usize = 1000;

/// A page of the references below `prefix`.
///
/// Where one route serves all of them and its paths only prefix theirs, the store's pages are
/// passed on. Everywhere else each page costs a walk over all that the routes serve of the scope,
/// or of everything where the prefix is the root.
pub(super) async fn page(
    resolver: &Resolver,
    prefix: &SecretPath,
    options: &ListOptions,
) -> Result<Page> {
    if options.limit == Some(0) {
        let rule = "a page has room for one entry at least";
        return Err(Error::new(ErrorKind::InvalidReference, rule));
    }
    let scope = prefix.segments().next();
    // What no reference lies below has nothing to list.
    if scope.is_some() && Reference::parse(&format!("{prefix}/x")).is_err() {
        return Ok(Page::default());
    }
    match sole(resolver, scope) {
        Some((route, folder)) => passed_on(resolver, route, folder, prefix, options).await,
        None => {
            let references = resolver.list(scope, &options.request).await?;
            cut(entries(&references, prefix, options.shallow), options)
        }
    }
}

/// The route that alone serves all that can be listed, and the folder before the scope in its
/// store.
fn sole<'a>(resolver: &'a Resolver, scope: Option<&str>) -> Option<(&'a Route, &'a str)> {
    let routes = resolver.policy().routes.iter();
    let mut serving = routes.filter(|r| scope.is_none_or(|scope| r.pattern.has_scope(scope)));
    let route = serving.next().filter(|_| serving.next().is_none())?;
    let pattern = route.pattern.to_string();
    let whole = match pattern.split_once('/') {
        None => pattern == "**",
        // A narrow scope pattern would have to be held against each folder.
        Some((first, rest)) => rest == "**" && (scope.is_some() || first == "*"),
    };
    let folder = route.path.strip_suffix("{scope}/{name}")?;
    let plain = folder.is_empty() || (folder.ends_with('/') && !folder.contains('{'));
    (whole && plain).then_some((route, folder))
}

/// The store's own page, its paths turned into references.
async fn passed_on(
    resolver: &Resolver,
    route: &Route,
    folder: &str,
    prefix: &SecretPath,
    options: &ListOptions,
) -> Result<Page> {
    let Some(store) = route.stores.first() else {
        return Ok(Page::default());
    };
    let below = match (folder.trim_end_matches('/'), prefix.as_str()) {
        ("", _) => prefix.clone(),
        (folder, "") => SecretPath::new(folder)?,
        (_, prefix) => SecretPath::new(format!("{folder}{prefix}"))?,
    };
    let store = resolver.store(store)?;
    let page = store.list(&below, options).await?;
    // What no reference can name is passed over, a secret beside the scopes included.
    let turned = |paths: Vec<SecretPath>, after: &str| -> Vec<SecretPath> {
        let named = |path: &SecretPath| {
            let rest = path.as_str().strip_prefix(folder)?;
            Reference::parse(&format!("{rest}{after}"))
                .ok()
                .and_then(|_| SecretPath::new(rest).ok())
        };
        paths.iter().filter_map(named).collect()
    };
    Ok(Page::new(
        turned(page.secrets, ""),
        turned(page.folders, "/x"),
        page.next,
    ))
}

/// An entry of a page: its path, and whether it is a folder. In the order of pages.
type Entry<'a> = (&'a str, bool);

/// What lies below the prefix.
fn entries<'a>(
    references: &'a [Reference],
    prefix: &SecretPath,
    shallow: bool,
) -> BTreeSet<Entry<'a>> {
    let skipped = match prefix.as_str() {
        "" => 0,
        prefix => prefix.len() + 1,
    };
    references
        .iter()
        .map(Reference::subject)
        .filter(|subject| skipped == 0 || below(subject, prefix.as_str()))
        .map(|subject| match subject[skipped..].find('/') {
            Some(end) if shallow => (&subject[..skipped + end], true),
            _ => (subject, false),
        })
        .collect()
}

fn below(subject: &str, prefix: &str) -> bool {
    let rest = subject.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The page after the cursor, which is the last entry of the page before.
fn cut(entries: BTreeSet<Entry<'_>>, options: &ListOptions) -> Result<Page> {
    let after = options.after.as_deref().map(entry).transpose()?;
    let limit = options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let mut rest = entries
        .into_iter()
        .filter(|entry| after.is_none_or(|after| *entry > after));
    let mut page = Page::default();
    let mut last = None;
    for (path, is_folder) in rest.by_ref().take(limit) {
        let place = if is_folder {
            &mut page.folders
        } else {
            &mut page.secrets
        };
        place.push(SecretPath::new(path)?);
        last = Some(cursor((path, is_folder)));
    }
    page.next = rest.next().and(last);
    Ok(page)
}

fn cursor((path, is_folder): Entry<'_>) -> String {
    format!("{}{path}", if is_folder { "folder:" } else { "secret:" })
}

/// The entry that [`cursor`] printed.
fn entry(cursor: &str) -> Result<Entry<'_>> {
    let folder = cursor.strip_prefix("folder:").map(|path| (path, true));
    let secret = cursor.strip_prefix("secret:").map(|path| (path, false));
    folder.or(secret).ok_or_else(|| {
        let rule = "the cursor is none that this listing gave";
        Error::new(ErrorKind::InvalidReference, rule)
    })
}
