//! What whose token allows which, against a real OpenBao: what is denied, and what is done without a
//! right that another way needs.

mod support;

use keyhaul_core::{
    DeleteOptions, Error, ErrorKind, Field, GetOptions, ListOptions, PutMode, PutOptions, Recipe,
    SecretStore as _,
};
use serde_json::{Value, json};
use support::{fresh, mount, path, secret, server, store_as};

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
async fn a_missing_right_is_named_as_the_line_of_policy() {
    let mount = mount(2);
    server().write(
        &format!("{mount}/data/vms/web01"),
        &json!({"data": {"value": "x"}}),
    );
    let policy = fresh("half");
    server().policy(
        &policy,
        &format!("path \"{mount}/data/other\" {{ capabilities = [\"read\"] }}"),
    );
    let token = server().token(&[&policy], "1h");
    let store = store_as(&token, &mount, &[]);
    let at = path("vms/web01");
    let lacks = |error: Error, line: &str| {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.message().contains(line), "{error}");
    };
    let line = |part: &str, right: &str| {
        format!("path \"{mount}/{part}/vms/web01\" {{ capabilities = [\"{right}\"] }}")
    };
    lacks(
        store.get(&at, &read()).await.expect_err("denied"),
        &line("data", "read"),
    );
    lacks(
        store.stat(&at, &read()).await.expect_err("denied"),
        &line("metadata", "read"),
    );
    let create = PutOptions::default().mode(PutMode::Create);
    lacks(
        store
            .put(&at, &secret("y"), &create)
            .await
            .expect_err("denied"),
        &line("data", "create"),
    );
    let delete = store.delete(&at, &DeleteOptions::default()).await;
    lacks(delete.expect_err("denied"), &line("metadata", "delete"));
    let list = store.list(&path("vms"), &ListOptions::default()).await;
    lacks(
        list.expect_err("denied"),
        &format!("path \"{mount}/metadata/vms/\""),
    );
    let answers = store.get_many(&[path("other"), at], &read()).await;
    let kinds: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect_err("neither").kind())
        .collect();
    assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::PermissionDenied]);
}

#[tokio::test]
async fn who_may_create_need_not_be_able_to_read() {
    let mount = mount(2);
    let policy = fresh("creator");
    server().policy(
        &policy,
        &format!("path \"{mount}/data/*\" {{ capabilities = [\"create\"] }}"),
    );
    let store = store_as(&server().token(&[&policy], "1h"), &mount, &[]);
    let create = PutOptions::default().mode(PutMode::Create);
    let at = path("vms/new");
    store
        .generate(&at, &Recipe::default(), &create)
        .await
        .expect("generated");
    let again = store
        .generate(&at, &Recipe::default(), &create)
        .await
        .expect_err("there");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
    let denied = store.get(&at, &read()).await.expect_err("denied");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    let made = raw(&format!("{mount}/data/vms/new"));
    assert_eq!(made["metadata"]["version"], 1);
}

#[tokio::test]
async fn fields_are_written_where_patching_is_denied() {
    let mount = mount(2);
    server().write(
        &format!("{mount}/data/a"),
        &json!({"data": {"user": "u", "n": 1.5}}),
    );
    let policy = fresh("no-patch");
    let rights = "[\"create\", \"read\", \"update\"]";
    server().policy(
        &policy,
        &format!("path \"{mount}/data/*\" {{ capabilities = {rights} }}"),
    );
    let store = store_as(&server().token(&[&policy], "1h"), &mount, &[]);
    let options = PutOptions::default().field(field("key"));
    let first = store
        .put(&path("a"), &secret("k1"), &options)
        .await
        .expect("put");
    assert_eq!(
        raw(&format!("{mount}/data/a"))["data"],
        json!({"user": "u", "n": 1.5, "key": "k1"})
    );
    let version = first.version.expect("a version");
    let update = options.clone().mode(PutMode::Update(version));
    store
        .put(&path("a"), &secret("k2"), &update)
        .await
        .expect("update");
    let stale = store
        .put(&path("a"), &secret("k3"), &update)
        .await
        .expect_err("stale");
    assert_eq!(stale.kind(), ErrorKind::Conflict);

    // Eight writers of different fields, each by reading and comparing.
    let store = std::sync::Arc::new(store);
    let tasks = (0..8).map(|number| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            let options = PutOptions::default().field(field(&format!("f{number}")));
            store
                .put(&path("a"), &secret("x"), &options)
                .await
                .map(drop)
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic").expect("put");
    }
    let data = raw(&format!("{mount}/data/a"))["data"].clone();
    assert_eq!(data.as_object().expect("a map").len(), 11, "{data}");
}
