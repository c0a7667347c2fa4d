//! What other programs and keyhaul say to each other through a Secret Service.

mod support;

use keyhaul_core::{DeleteOptions, ErrorKind, GetOptions, ListOptions, PutOptions, SecretPath};
use keyhaul_servers::SecretService;
use support::{open, path, says, secret, text};

const URL: &str = "keyring+secret-service:";

/// `secret-tool` in the service's session.
fn tool(service: &SecretService, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = service.command("secret-tool");
    command.args(arguments);
    says(command, input)
}

fn search(service: &SecretService, name: &str) -> usize {
    let arguments = ["search", "--all", "service", "keyhaul", "username", name];
    let found = tool(service, &arguments, b"");
    String::from_utf8_lossy(&found).matches("secret = ").count()
}

#[tokio::test]
async fn secret_tool_finds_what_keyhaul_wrote_and_the_reverse() {
    let service = SecretService::start();
    let store = open(URL, &[("bus", text(&service.address()))]);
    let (get, put) = (GetOptions::default(), PutOptions::default());
    let lookup = |name| {
        tool(
            &service,
            &["lookup", "service", "keyhaul", "username", name],
            b"",
        )
    };
    let keep = |name, value: &str| {
        let arguments = [
            "store",
            "--label=by hand",
            "service",
            "keyhaul",
            "username",
            name,
        ];
        tool(&service, &arguments, value.as_bytes())
    };

    let disk = path("web01/root-disk");
    store
        .put(&disk, &secret("from keyhaul"), &put)
        .await
        .expect("put");
    assert_eq!(lookup("web01/root-disk"), b"from keyhaul");
    // Replaced, not added beside.
    keep("web01/root-disk", "by secret-tool");
    let came = store.get(&disk, &get).await.expect("get");
    assert_eq!(came.value, secret("by secret-tool"));
    assert_eq!(search(&service, "web01/root-disk"), 1);

    keep("web02/vnc", "its own");
    let vnc = path("web02/vnc");
    assert_eq!(
        store.get(&vnc, &get).await.expect("get").value,
        secret("its own")
    );
    store
        .put(&vnc, &secret("now keyhaul's"), &put)
        .await
        .expect("put");
    assert_eq!(lookup("web02/vnc"), b"now keyhaul's");
    assert_eq!(search(&service, "web02/vnc"), 1);

    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await;
    assert_eq!(page.expect("list").secrets, [disk.clone(), vnc]);
    tool(
        &service,
        &["clear", "service", "keyhaul", "username", "web01/root-disk"],
        b"",
    );
    let gone = store.get(&disk, &get).await.expect_err("cleared");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

/// As other languages' keyring libraries write: an attribute or two more, another label.
#[tokio::test]
async fn attributes_of_others_are_kept_and_do_not_hide_an_item() {
    let service = SecretService::start();
    let options = [
        ("bus", text(&service.address())),
        ("service", text("backup")),
    ];
    let store = open(URL, &options);
    let more = [
        "service",
        "backup",
        "username",
        "nightly",
        "application",
        "Python keyring library",
    ];
    let arguments = [&["store", "--label=Password for nightly"], more.as_slice()].concat();
    tool(&service, &arguments, b"old");
    let nightly = path("nightly");
    let came = store
        .get(&nightly, &GetOptions::default())
        .await
        .expect("get");
    assert_eq!(came.value, secret("old"));
    store
        .put(&nightly, &secret("new"), &PutOptions::default())
        .await
        .expect("put");
    // All of the attributes still lead to it.
    let arguments = [&["lookup"], more.as_slice()].concat();
    assert_eq!(tool(&service, &arguments, b""), b"new");
    // Another service's items are another store's.
    let other = open(URL, &[("bus", text(&service.address()))]);
    let absent = other.get(&nightly, &GetOptions::default()).await;
    assert_eq!(absent.expect_err("not ours").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn of_several_items_none_is_guessed_and_delete_is_the_way_out() {
    let service = SecretService::start();
    let store = open(URL, &[("bus", text(&service.address()))]);
    for (extra, value) in [("one", "1"), ("two", "2")] {
        let arguments = [
            "store",
            "--label=x",
            "service",
            "keyhaul",
            "username",
            "a/b",
            "extra",
            extra,
        ];
        tool(&service, &arguments, value.as_bytes());
    }
    let (several, put) = (path("a/b"), PutOptions::default());
    let error = store
        .get(&several, &GetOptions::default())
        .await
        .expect_err("which?");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("secret-tool search --all"))
    );
    let refused = store.put(&several, &secret("3"), &put).await;
    assert_eq!(refused.expect_err("which?").kind(), ErrorKind::Corrupt);
    assert_eq!(search(&service, "a/b"), 2);
    // They are one path.
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await;
    assert_eq!(page.expect("list").secrets, std::slice::from_ref(&several));
    store
        .delete(&several, &DeleteOptions::default())
        .await
        .expect("delete");
    store.put(&several, &secret("3"), &put).await.expect("put");
    assert_eq!(search(&service, "a/b"), 1);
}

#[tokio::test]
async fn two_writers_at_once_leave_one_item() {
    let service = SecretService::start();
    let stores = [1, 2, 3, 4].map(|_| open(URL, &[("bus", text(&service.address()))]));
    let writers = stores.map(|store| {
        tokio::spawn(async move {
            for round in 0..5 {
                let path = path(&format!("contested/{round}"));
                let put = store.put(&path, &secret("x"), &PutOptions::default()).await;
                put.expect("put");
            }
        })
    });
    for writer in writers {
        writer.await.expect("no panic");
    }
    for round in 0..5 {
        assert_eq!(search(&service, &format!("contested/{round}")), 1);
    }
}
