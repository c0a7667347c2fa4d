//! Listing.

use keyhaul_core::{Capability, DeleteOptions, ErrorKind, ListOptions, Page, SecretPath};

use super::Trial;
use super::names::ODD;
use crate::ground::Ground;
use crate::outcome::{Expect as _, Failure, Outcome, holds, same};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "a listing has all that is below its prefix, in byte order, and nothing else",
        Capability::LIST,
        |ground| Box::pin(deep(ground)),
    )
    .seeded(),
    Trial::new(
        "a shallow listing has what is directly below, and folders",
        Capability::LIST,
        |ground| Box::pin(shallow(ground)),
    )
    .seeded(),
    Trial::new(
        "a prefix with nothing below it gives an empty page",
        Capability::LIST,
        |ground| Box::pin(nothing(ground)),
    ),
    Trial::new(
        "pages of any size add up to the whole listing",
        Capability::LIST,
        |ground| Box::pin(pages(ground)),
    )
    .seeded(),
    Trial::new(
        "a page goes on although the entry before it is gone",
        Capability::LIST.union(Capability::DELETE),
        |ground| Box::pin(gone_between_pages(ground)),
    )
    .seeded(),
    Trial::new(
        "names come out of a listing as they went in",
        Capability::LIST,
        |ground| Box::pin(odd_names(ground)),
    )
    .seeded(),
    Trial::new(
        "what is deleted is no longer listed, nor its empty folders",
        Capability::LIST.union(Capability::DELETE),
        |ground| Box::pin(after_delete(ground)),
    )
    .seeded(),
    Trial::new(
        "a listing refuses pages of no entries, and is not led astray by a foreign cursor",
        Capability::LIST,
        |ground| Box::pin(bad_pages(ground)),
    ),
];

/// By byte: `!` is before `-`, `-` before `/`, `/` before letters, capitals before small letters.
const TREE: &[&str] = &[
    "B", "a", "a!", "a-b", "a/b", "a/b/c", "a/d/e", "ab/c", "z/y y", "z/\u{e9}",
];
const TOP_SECRETS: &[&str] = &["B", "a", "a!", "a-b"];
const TOP_FOLDERS: &[&str] = &["a", "ab", "z"];

/// Makes the tree, in an order that is not the listing's.
async fn plant(ground: &Ground) -> Outcome {
    // 7 and the number of names have no divisor in common: each comes once.
    for index in 0..TREE.len() {
        ground
            .seed(&ground.path(TREE[index * 7 % TREE.len()]))
            .await?;
    }
    Ok(())
}

/// All pages of a listing of at most `limit` entries each.
async fn whole(ground: &Ground, prefix: &SecretPath, options: ListOptions) -> Outcome<Page> {
    let mut options = options;
    let mut all = Page::default();
    for _ in 0..10_000 {
        let page = ground.list(prefix, &options).await.succeeds("list")?;
        let entries = page.secrets.len() + page.folders.len();
        if let Some(limit) = options.limit {
            holds(
                entries <= limit,
                format!("at most {limit} entries"),
                format!("{entries}"),
            )?;
        }
        all.secrets.extend(page.secrets);
        all.folders.extend(page.folders);
        match page.next {
            None => return Ok(all),
            next => options.after = next,
        }
    }
    Err(Failure::new("a last page", "10000 pages without one"))
}

fn names<'p>(ground: &'p Ground, paths: &'p [SecretPath]) -> Vec<&'p str> {
    paths.iter().map(|path| ground.rest(path)).collect()
}

async fn deep(ground: Ground) -> Outcome {
    plant(&ground).await?;
    let below: [(Option<&str>, &[&str]); 6] = [
        (None, TREE),
        (Some("a"), &["a/b", "a/b/c", "a/d/e"]),
        (Some("a/b"), &["a/b/c"]),
        (Some("ab"), &["ab/c"]),
        (Some("z"), &["z/y y", "z/\u{e9}"]),
        (Some("B"), &[]),
    ];
    for (prefix, expected) in below {
        let path = prefix.map_or(ground.prefix().clone(), |name| ground.path(name));
        let page = whole(&ground, &path, ListOptions::default()).await?;
        let what = format!("below `{}`", prefix.unwrap_or_default());
        same(&names(&ground, &page.secrets), &expected.to_vec(), &what)?;
        same(&page.folders, &vec![], "no folders in a deep listing")?;
    }
    Ok(())
}

async fn shallow(ground: Ground) -> Outcome {
    plant(&ground).await?;
    let below: [(Option<&str>, &[&str], &[&str]); 5] = [
        (None, TOP_SECRETS, TOP_FOLDERS),
        (Some("a"), &["a/b"], &["a/b", "a/d"]),
        (Some("a/d"), &["a/d/e"], &[]),
        (Some("ab"), &["ab/c"], &[]),
        (Some("B"), &[], &[]),
    ];
    for (prefix, secrets, folders) in below {
        let path = prefix.map_or(ground.prefix().clone(), |name| ground.path(name));
        let page = whole(&ground, &path, ListOptions::default().shallow(true)).await?;
        let what = format!("directly below `{}`", prefix.unwrap_or_default());
        same(&names(&ground, &page.secrets), &secrets.to_vec(), &what)?;
        let what = format!("folders {what}");
        same(&names(&ground, &page.folders), &folders.to_vec(), &what)?;
    }
    Ok(())
}

async fn nothing(ground: Ground) -> Outcome {
    for shallow in [false, true] {
        let options = ListOptions::default().shallow(shallow);
        for prefix in [ground.prefix().clone(), ground.path("no/such/folder")] {
            let page = ground.list(&prefix, &options).await.succeeds("list")?;
            same(&page, &Page::default(), "a listing of nothing")?;
        }
    }
    Ok(())
}

async fn pages(ground: Ground) -> Outcome {
    plant(&ground).await?;
    for limit in 1..=TREE.len() + 1 {
        let options = ListOptions::default().limit(Some(limit));
        let page = whole(&ground, ground.prefix(), options.clone()).await?;
        let what = format!("pages of {limit}");
        same(&names(&ground, &page.secrets), &TREE.to_vec(), &what)?;
        let page = whole(&ground, ground.prefix(), options.shallow(true)).await?;
        let what = format!("shallow pages of {limit}");
        same(&names(&ground, &page.secrets), &TOP_SECRETS.to_vec(), &what)?;
        same(&names(&ground, &page.folders), &TOP_FOLDERS.to_vec(), &what)?;
    }
    Ok(())
}

async fn gone_between_pages(ground: Ground) -> Outcome {
    plant(&ground).await?;
    let mut options = ListOptions::default().limit(Some(3));
    let first = ground
        .list(ground.prefix(), &options)
        .await
        .succeeds("list")?;
    for path in &first.secrets {
        ground
            .delete(path, &DeleteOptions::default())
            .await
            .succeeds("delete")?;
    }
    options.after = first.next;
    let rest = whole(&ground, ground.prefix(), options).await?;
    let expected = TREE[first.secrets.len()..].to_vec();
    same(
        &names(&ground, &rest.secrets),
        &expected,
        "the pages after the first",
    )
}

async fn odd_names(ground: Ground) -> Outcome {
    for name in ODD {
        ground.seed(&ground.path(name)).await?;
    }
    let page = whole(&ground, ground.prefix(), ListOptions::default()).await?;
    let mut expected = ODD.to_vec();
    expected.sort_unstable();
    same(&names(&ground, &page.secrets), &expected, "names")
}

async fn after_delete(ground: Ground) -> Outcome {
    plant(&ground).await?;
    for name in ["a/b", "a/b/c", "a/d/e", "B"] {
        let path = ground.path(name);
        ground
            .delete(&path, &DeleteOptions::default())
            .await
            .succeeds("delete")?;
    }
    let page = whole(&ground, ground.prefix(), ListOptions::default()).await?;
    let left = vec!["a", "a!", "a-b", "ab/c", "z/y y", "z/\u{e9}"];
    same(&names(&ground, &page.secrets), &left, "what is left")?;
    let page = whole(
        &ground,
        ground.prefix(),
        ListOptions::default().shallow(true),
    )
    .await?;
    same(
        &names(&ground, &page.secrets),
        &vec!["a", "a!", "a-b"],
        "what is left",
    )?;
    same(
        &names(&ground, &page.folders),
        &vec!["ab", "z"],
        "folders that are left",
    )
}

async fn bad_pages(ground: Ground) -> Outcome {
    let empty = ListOptions::default().limit(Some(0));
    let came = ground.list(ground.prefix(), &empty).await;
    came.fails(ErrorKind::InvalidReference, "a page of at most 0 entries")?;
    // A store whose cursors are plain texts cannot tell; it may take it.
    let foreign = ListOptions::default().after(Some("\u{1}no cursor".into()));
    match ground.list(ground.prefix(), &foreign).await {
        Ok(page) => same(&page, &Page::default(), "a listing of nothing"),
        came => came.fails(
            ErrorKind::InvalidReference,
            "a page after what is no cursor",
        ),
    }
}
