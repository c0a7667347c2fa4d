//! What the contract leaves open, against a real OpenBao: what others wrote, what others may, and
//! what people get wrong.

mod support;

use keyhaul_core::{
    DeleteOptions, Error, ErrorKind, Field, GetOptions, ListOptions, PutMode, PutOptions,
    SecretBytes, SecretStore as _, Version,
};
use serde_json::{Value, json};
use support::{mount, path, secret, server, store, text_at};

fn field(name: &str) -> Option<Field> {
    Some(Field::new(name).expect("a field"))
}

fn read() -> GetOptions {
    GetOptions::default()
}

/// What the server has at a path, for whoever is not keyhaul.
fn raw(at: &str) -> Value {
    server().read(at)["data"].clone()
}

#[tokio::test]
async fn what_others_wrote_is_read_and_what_keyhaul_writes_others_read() {
    let mount = mount(2);
    let store = store(&mount, &[]);
    let map = json!({"data": {"value": "h\u{e9}\"\\\n<&>\u{1f600}", "port": 3260, "on": true}});
    server().write(&format!("{mount}/data/vms/a"), &map);
    assert_eq!(
        text_at(&store, "vms/a", &read()).await,
        "h\u{e9}\"\\\n<&>\u{1f600}"
    );
    let port = read().field(field("port"));
    assert_eq!(text_at(&store, "vms/a", &port).await, "3260");

    let value = secret("p\u{e4}ss\"\n");
    store
        .put(&path("vms/b"), &value, &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(
        raw(&format!("{mount}/data/vms/b"))["data"],
        json!({"value": "p\u{e4}ss\"\n"})
    );
}

#[tokio::test]
async fn bytes_are_marked_in_the_same_version_and_a_stale_marker_is_void() {
    let mount = mount(2);
    let store = store(&mount, &[]);
    let at = path("vms/a");
    let bytes = SecretBytes::copy_from(b"\xff\0\xfe");
    store
        .put(&at, &bytes, &PutOptions::default())
        .await
        .expect("put");
    let data = raw(&format!("{mount}/data/vms/a"))["data"].clone();
    assert_eq!(data["value"], "/wD+");
    assert!(
        data["value:encoding"]
            .as_str()
            .is_some_and(|marker| marker.starts_with("base64 "))
    );
    assert!(store.get(&at, &read()).await.expect("get").value == bytes);

    // Somebody patches the value alone, with what would be base64 too.
    let patched = json!({"data": {"value": "AAAA", "value:encoding": data["value:encoding"]}});
    server().write(&format!("{mount}/data/vms/a"), &patched);
    assert_eq!(text_at(&store, "vms/a", &read()).await, "AAAA");

    // And keyhaul's own text takes the marker away.
    store
        .put(&at, &bytes, &PutOptions::default())
        .await
        .expect("put");
    store
        .put(&at, &secret("text"), &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(
        raw(&format!("{mount}/data/vms/a"))["data"],
        json!({"value": "text"})
    );
}

#[tokio::test]
async fn deleted_and_destroyed_versions_are_told_apart_and_can_be_written_over() {
    let mount = mount(2);
    let store = store(&mount, &[]);
    let at = path("a");
    for text in ["one", "two"] {
        store
            .put(&at, &secret(text), &PutOptions::default())
            .await
            .expect("put");
    }
    server().write(&format!("{mount}/destroy/a"), &json!({"versions": [1]}));
    server().delete(&format!("{mount}/data/a"));
    let words = async |options: GetOptions| {
        let get = store.get(&at, &options).await.expect_err("gone");
        let stat = store.stat(&at, &options).await.expect_err("gone");
        assert_eq!(
            (get.kind(), get.message()),
            (ErrorKind::NotFound, stat.message())
        );
        get.message().to_owned()
    };
    let one = read().version(Some(Version::new("1").expect("a version")));
    assert_eq!(words(one).await, "version 1 of the secret was destroyed");
    assert_eq!(words(read()).await, "version 2 of the secret was deleted");
    let create = PutOptions::default().mode(PutMode::Create);
    let made = store
        .put(&at, &secret("three"), &create)
        .await
        .expect("create");
    assert_eq!(made.version, Some(Version::new("3").expect("a version")));
    let again = store
        .put(&at, &secret("four"), &create)
        .await
        .expect_err("there");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn soft_deletion_can_be_undone_and_hides_secrets_and_folders() {
    let mount = mount(2);
    let store = store(&mount, &[("delete", "soft")]);
    for at in ["x/a", "x/b", "y/c"] {
        for text in ["one", "two"] {
            store
                .put(&path(at), &secret(text), &PutOptions::default())
                .await
                .expect("put");
        }
    }
    for at in ["x/a", "y/c"] {
        store
            .delete(&path(at), &DeleteOptions::default())
            .await
            .expect("deleted");
    }
    let old = read().version(Some(Version::new("1").expect("a version")));
    let error = store
        .get(&path("x/a"), &old)
        .await
        .expect_err("all versions");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let root = keyhaul_core::SecretPath::root();
    let shallow = ListOptions::default().shallow(true);
    let page = store.list(&root, &shallow).await.expect("listed");
    assert_eq!(page.folders, [path("x")]);
    let page = store
        .list(&root, &ListOptions::default())
        .await
        .expect("listed");
    assert_eq!(page.secrets, [path("x/b")]);
    server().write(&format!("{mount}/undelete/y/c"), &json!({"versions": [2]}));
    assert_eq!(text_at(&store, "y/c", &read()).await, "two");
}

#[tokio::test]
async fn wrong_mounts_and_versions_are_the_configurations_fault() {
    let (one, two) = (mount(1), mount(2));
    server().write(&format!("{one}/a"), &json!({"value": "x"}));
    server().write(&format!("{two}/data/a"), &json!({"data": {"value": "x"}}));
    let config = |error: Error, words: &str| {
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.message().contains(words), "{error}");
    };
    for (mount, wrong, right) in [(&one, "2", "1"), (&two, "1", "2")] {
        let words = format!("is KV version {right}, and the policy says {wrong}");
        let store = store(mount, &[("kv-version", wrong)]);
        config(
            store.get(&path("a"), &read()).await.expect_err("wrong"),
            &words,
        );
        let put = store
            .put(&path("b"), &secret("x"), &PutOptions::default())
            .await;
        config(put.expect_err("wrong"), &words);
        config(store.probe().await.expect_err("wrong"), &words);
    }
    // Nothing was written where nobody looks for it.
    let listed = server().request(
        "GET",
        &format!("{one}?list=true"),
        server().root_token(),
        None,
    );
    assert_eq!(listed.json["data"]["keys"], json!(["a"]));
    let nothing = store("no/such/mount", &[("kv-version", "2")]);
    config(
        nothing.get(&path("a"), &read()).await.expect_err("none"),
        "no such path",
    );
    let unknown = store("no/such/mount", &[]);
    let error = unknown.get(&path("a"), &read()).await.expect_err("none");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        error
            .message()
            .contains("nothing is mounted at `no/such/mount`"),
        "{error}"
    );
    let folder = store(&format!("{two}/vms"), &[]);
    config(
        folder.get(&path("a"), &read()).await.expect_err("no mount"),
        "is mounted at",
    );
    let auth = store("cubbyhole", &[]);
    config(
        auth.get(&path("a"), &read()).await.expect_err("no kv"),
        "no key-value engine",
    );
}

#[tokio::test]
async fn either_form_of_a_stores_path_is_taken_and_data_in_a_secrets_path_is_a_name() {
    let mount = mount(2);
    server().write(
        &format!("{mount}/data/vms/x"),
        &json!({"data": {"value": "x"}}),
    );
    let copied = store(&format!("{mount}/data"), &[]);
    assert_eq!(text_at(&copied, "vms/x", &read()).await, "x");
    // `data` can be the scope of whoever asks: who may read all below it may not read all there is.
    let store = store(&mount, &[]);
    let copied = path("data/vms/x");
    for error in [
        store.get(&copied, &read()).await.map(drop),
        store.stat(&copied, &read()).await.map(drop),
    ] {
        let error = error.expect_err("another secret");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let advice = error.advice().unwrap_or_default();
        assert!(advice.contains("if `vms/x` is meant"), "{advice}");
    }
    store
        .put(&path("data/vms/x"), &secret("own"), &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(text_at(&store, "data/vms/x", &read()).await, "own");
    assert_eq!(text_at(&store, "vms/x", &read()).await, "x");
    let error = store
        .get(&path("data/vms/y"), &read())
        .await
        .expect_err("neither");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_mount_replaced_by_the_other_version_is_noticed_by_a_new_store() {
    let mount = mount(1);
    let before = store(&mount, &[]);
    before
        .put(&path("a"), &secret("one"), &PutOptions::default())
        .await
        .expect("put");
    server().delete(&format!("sys/mounts/{mount}"));
    server().kv(&mount, 2);
    let after = store(&mount, &[]);
    after
        .put(&path("a"), &secret("two"), &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(text_at(&after, "a", &read()).await, "two");
    // The one that believes the old answer finds nothing, never a wrong value.
    let error = before
        .get(&path("a"), &read())
        .await
        .expect_err("not where it looks");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn version_1_keeps_siblings_of_the_field_that_is_meant_and_refuses_named_ones() {
    let mount = mount(1);
    server().write(
        &format!("{mount}/a"),
        &json!({"user": "u", "value": "old", "n": 1.5}),
    );
    let store = store(&mount, &[]);
    assert_eq!(
        text_at(&store, "a", &read().field(field("user"))).await,
        "u"
    );
    store
        .put(&path("a"), &secret("new"), &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(
        raw(&format!("{mount}/a")),
        json!({"user": "u", "value": "new", "n": 1.5})
    );
    let named = PutOptions::default().field(field("user"));
    let error = store
        .put(&path("a"), &secret("x"), &named)
        .await
        .expect_err("no compare-and-set");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn labels_are_replaced_and_those_the_server_would_refuse_are_refused_before_the_write() {
    let mount = mount(2);
    let store = store(&mount, &[]);
    let labels =
        |text: &str| PutOptions::default().labels([("owner".to_owned(), text.to_owned())].into());
    store
        .put(&path("a"), &secret("x"), &labels("me"))
        .await
        .expect("put");
    let about = raw(&format!("{mount}/metadata/a"));
    assert_eq!(about["custom_metadata"], json!({"owner": "me"}));
    for (text, kind) in [
        ("", ErrorKind::InvalidReference),
        ("a\nb", ErrorKind::InvalidReference),
        (&*"x".repeat(513), ErrorKind::TooLarge),
    ] {
        let error = store
            .put(&path("a"), &secret("y"), &labels(text))
            .await
            .expect_err("refused");
        assert_eq!(error.kind(), kind);
    }
    assert_eq!(raw(&format!("{mount}/metadata/a"))["current_version"], 1);
}

#[tokio::test]
async fn a_conditional_delete_conflicts_with_an_update_of_the_same_version() {
    let mount = mount(2);
    let store = store(&mount, &[]);
    let at = path("a");
    let version = store
        .put(&at, &secret("x"), &PutOptions::default())
        .await
        .expect("put")
        .version;
    let update = PutOptions::default().mode(PutMode::Update(version.clone().expect("a version")));
    let delete = DeleteOptions::default().version(version);
    let value = secret("y");
    let (deleted, updated) =
        tokio::join!(store.delete(&at, &delete), store.put(&at, &value, &update));
    match (&deleted, &updated) {
        (Ok(()), Err(error)) => assert!(
            matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound),
            "{error}"
        ),
        (Err(error), Ok(_)) => assert_eq!(error.kind(), ErrorKind::Conflict),
        _ => panic!("one wins: {deleted:?} {updated:?}"),
    }
}
