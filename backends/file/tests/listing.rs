//! Names of every sort, and pages of them.

mod support;

use keyhaul_core::{
    DeleteOptions, GetOptions, ListOptions, SecretPath, SecretStore, SecretStoreExt,
};
use support::*;

#[tokio::test]
async fn names_of_every_sort_are_secrets_of_their_own() {
    let host = Host::new();
    let store = host.store();
    let mut names: Vec<String> = [
        "a",
        "A",
        "a/b",
        "a/b/c",
        "a.secret",
        "a.secret/b",
        ".hidden",
        ".tmp-1",
        ".lock",
        "web 01/röt",
        "web 01/ro\u{308}t",
        "100%",
        "%41",
        "a%/b",
        "~next",
        "a~next",
        "-",
        "a\\b",
        "*?",
        "\u{1f511}/\u{1f511}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("long".repeat(256));
    names.push("ö".repeat(512));
    names.push(format!("{}/deep/{}", "f".repeat(300), "g".repeat(300)));
    names.push("d/".repeat(511) + "d");
    for name in &names {
        put(&store, name, name.as_bytes()).await;
    }
    let paths: Vec<SecretPath> = names.iter().map(|name| path(name)).collect();
    let found = store.get_many(&paths, &GetOptions::default()).await;
    for (name, found) in names.iter().zip(found) {
        assert_eq!(found.expect(name).value.expose(), name.as_bytes(), "{name}");
    }
    names.sort();
    let listed = store.list_all(&SecretPath::root()).await.expect("listed");
    let listed: Vec<&str> = listed.iter().map(SecretPath::as_str).collect();
    assert_eq!(listed, names);
    for name in &names {
        store
            .delete(&path(name), &DeleteOptions::default())
            .await
            .expect("deleted");
    }
    assert_eq!(
        store.list_all(&SecretPath::root()).await.expect("listed"),
        []
    );
}

#[tokio::test]
async fn pages_of_any_size_add_up_to_the_whole() {
    let host = Host::new();
    let store = host.store();
    // `-` and `.` sort before `/`, `0` after: where walking by folder and sorting by path differ.
    let mut names = vec![
        "a", "a-b", "a-b/c", "a.x/y", "a/b", "a/b-c", "a/b/c", "a/b/d", "a0/b", "b/c/d/e", "c",
    ];
    for name in &names {
        put(&store, name, b"x").await;
    }
    names.sort_unstable();
    let whole = store.list_all(&SecretPath::root()).await.expect("listed");
    assert_eq!(
        whole.iter().map(SecretPath::as_str).collect::<Vec<_>>(),
        names
    );
    for (prefix, shallow, secrets, folders) in [
        ("", false, names.clone(), vec![]),
        ("a", false, vec!["a/b", "a/b-c", "a/b/c", "a/b/d"], vec![]),
        (
            "",
            true,
            vec!["a", "a-b", "c"],
            vec!["a", "a-b", "a.x", "a0", "b"],
        ),
        ("a", true, vec!["a/b", "a/b-c"], vec!["a/b"]),
        ("b/c/d/e", false, vec![], vec![]),
        ("nothing", true, vec![], vec![]),
    ] {
        let prefix = if prefix.is_empty() {
            SecretPath::root()
        } else {
            path(prefix)
        };
        let all = secrets.len() + folders.len();
        for limit in 1..=all + 1 {
            let mut options = ListOptions::default().shallow(shallow).limit(Some(limit));
            let (mut found, mut inside, mut pages) = (vec![], vec![], 0);
            loop {
                let page = store.list(&prefix, &options).await.expect("listed");
                let on_page = page.secrets.len() + page.folders.len();
                assert!(on_page <= limit && (on_page == limit || page.next.is_none()));
                found.extend(page.secrets.iter().map(|path| path.as_str().to_owned()));
                inside.extend(page.folders.iter().map(|path| path.as_str().to_owned()));
                pages += 1;
                match page.next {
                    Some(next) => options.after = Some(next),
                    None => break,
                }
            }
            assert_eq!(
                (&found, &inside),
                (
                    &secrets.iter().map(|s| s.to_string()).collect(),
                    &folders.iter().map(|s| s.to_string()).collect()
                ),
                "{prefix} {limit}"
            );
            assert_eq!(pages, all.div_ceil(limit).max(1));
        }
    }
}
