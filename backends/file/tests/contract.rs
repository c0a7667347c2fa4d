//! What the encrypted store promises, on a real file system.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    Alphabet, Capability, DeleteOptions, ErrorKind, Field, GetOptions, IdempotencyId, ListOptions,
    PutMode, PutOptions, Recipe, Registry, SecretBytes, SecretPath, SecretStore, SecretStoreExt,
    StoreConfig,
};
use keyhaul_file::{FileFactory, FileStore, MAX_VALUE};
use support::*;

#[tokio::test]
async fn every_value_comes_back_to_the_byte() {
    let host = Host::new();
    let store = host.store();
    let mut values: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    values.extend((0..70).map(|len| vec![0; len]));
    values.push((0..=255).collect());
    values.push(b"trailing newline\r\n".to_vec());
    values.push(vec![0xff; MAX_VALUE]);
    for value in values {
        put(&store, "web01/any", &value).await;
        assert_eq!(get(&store, "web01/any").await.expect("read"), value);
        // Another process has no key in memory.
        assert_eq!(get(&host.store(), "web01/any").await.expect("read"), value);
    }
}

#[tokio::test]
async fn nothing_under_the_root_holds_a_value_or_is_open_to_others() {
    let host = Host::new();
    let canary = b"canary-5f3e9b0d-in-clear-text";
    put(&host.store(), "web01/root", canary).await;
    let all = files(&host.root());
    assert!(all.len() >= 4, "{all:?}");
    for file in &all {
        let bytes = fs::read(file).expect("read");
        assert!(
            !bytes.windows(16).any(|part| part == &canary[..16]),
            "{file:?}"
        );
        assert_eq!(
            fs::metadata(file).expect("there").permissions().mode() & 0o7777,
            0o600
        );
    }
    // The control: the same search finds it in the clear-text store.
    let other = Host::new();
    put(&other.plain(), "web01/root", canary).await;
    let bytes = fs::read(other.root().join("web01/root")).expect("read");
    assert!(bytes.windows(16).any(|part| part == &canary[..16]));
    let mode = fs::metadata(host.identity())
        .expect("made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[tokio::test]
async fn too_large_is_refused_and_leaves_what_was_there() {
    let host = Host::new();
    let store = host.store();
    put(&store, "a", b"old").await;
    let value = SecretBytes::copy_from(&vec![1; MAX_VALUE + 1]);
    let error = store.put(&path("a"), &value, &PutOptions::default()).await;
    assert_eq!(error.expect_err("too large").kind(), ErrorKind::TooLarge);
    assert_eq!(get(&store, "a").await.expect("read"), b"old");
}

#[tokio::test]
async fn modes_say_what_may_be_there_already() {
    let host = Host::new();
    let store = host.store();
    let value = SecretBytes::copy_from(b"x");
    let create = PutOptions::default().mode(PutMode::Create);
    let kind = async |options: &PutOptions| {
        let done = store.put(&path("a"), &value, options).await;
        done.err().map(|error| error.kind())
    };
    assert_eq!(kind(&update("1")).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(&create).await, None);
    assert_eq!(kind(&create).await, Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(&update("2")).await, Some(ErrorKind::Conflict));
    assert_eq!(kind(&update("01")).await, Some(ErrorKind::Conflict));
    assert_eq!(kind(&update("1")).await, None);
    assert_eq!(kind(&update("1")).await, Some(ErrorKind::Conflict));
    assert_eq!(kind(&PutOptions::default()).await, None);
    let now = store.stat(&path("a"), &GetOptions::default()).await;
    assert_eq!(now.expect("there").version, Some(version("3")));
}

#[tokio::test]
async fn versions_are_kept_as_many_as_asked() {
    let host = Host::new();
    let config = host.config_with(vec![("keep-versions", Value::Integer(3))]);
    let store = FileStore::open(&config).expect("valid");
    for n in 1..=5 {
        let made = put(&store, "a", format!("value {n}").as_bytes()).await;
        assert_eq!(made, n.to_string());
    }
    for n in 1..=6 {
        let wanted = version(&n.to_string());
        let options = GetOptions::default().version(Some(wanted.clone()));
        let found = store.get(&path("a"), &options).await;
        match n {
            3..=5 => {
                let found = found.expect("kept");
                assert_eq!(found.value.expose(), format!("value {n}").as_bytes());
                assert_eq!(found.metadata.version, Some(wanted));
            }
            _ => assert_eq!(found.expect_err("not kept").kind(), ErrorKind::NotFound),
        }
    }
}

#[tokio::test]
async fn labels_belong_to_the_version_they_were_written_with() {
    let host = Host::new();
    let store = host.store();
    let labels: BTreeMap<_, _> = [("owner".to_owned(), "tenant ö \"1\"".to_owned())].into();
    let value = SecretBytes::copy_from(b"x");
    let options = PutOptions::default().labels(labels.clone());
    let written = store
        .put(&path("a"), &value, &options)
        .await
        .expect("written");
    assert_eq!(written.labels, labels);
    let found = store.stat(&path("a"), &GetOptions::default()).await;
    assert_eq!(found.expect("there"), written);
    put(&store, "a", b"y").await;
    let found = store.stat(&path("a"), &GetOptions::default()).await;
    assert!(found.expect("there").labels.is_empty());
    let first = GetOptions::default().version(Some(version("1")));
    let found = store.stat(&path("a"), &first).await;
    assert_eq!(found.expect("there").labels, labels);
}

#[tokio::test]
async fn an_expired_secret_says_since_when_and_how_to_read_it() {
    let host = Host::new();
    let store = host.store();
    let value = SecretBytes::copy_from(b"x");
    // 2001-09-09T01:46:40Z: a thousand million seconds.
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let options = PutOptions::default().expires(Some(past));
    let written = store
        .put(&path("old"), &value, &options)
        .await
        .expect("written");
    assert_eq!(written.expires, Some(past));
    let error = refused(&store, "old").await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.message().contains("expired at 2001-09-09T01:46:40Z"),
        "{error}"
    );
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("--expired"))
    );
    let found = store.stat(&path("old"), &GetOptions::default()).await;
    assert_eq!(found.expect("kept"), written);
    let anyway = GetOptions::default().expired(true);
    assert!(store.get(&path("old"), &anyway).await.is_ok());
    let create = PutOptions::default().mode(PutMode::Create);
    let again = store.put(&path("old"), &value, &create).await;
    assert_eq!(again.expect_err("there").kind(), ErrorKind::AlreadyExists);

    let future = SystemTime::now() + Duration::from_secs(3600);
    let options = PutOptions::default().expires(Some(future));
    store
        .put(&path("new"), &value, &options)
        .await
        .expect("written");
    assert!(get(&store, "new").await.is_ok());
}

#[tokio::test]
async fn a_repeated_write_answers_as_the_first_time_and_writes_nothing() {
    let host = Host::new();
    let store = host.store();
    let id = IdempotencyId::random().expect("random");
    let options = PutOptions::default()
        .mode(PutMode::Create)
        .idempotency(Some(id));
    let write = async |value: &[u8]| {
        let value = SecretBytes::copy_from(value);
        store.put(&path("a"), &value, &options).await
    };
    let first = write(b"first").await.expect("created");
    assert_eq!(write(b"again").await.expect("the same answer"), first);
    assert_eq!(get(&store, "a").await.expect("read"), b"first");
    // Even after somebody else wrote.
    put(&store, "a", b"second").await;
    assert_eq!(write(b"again").await.expect("the same answer"), first);
    assert_eq!(get(&store, "a").await.expect("read"), b"second");
    // The control: another id is another write.
    let other = IdempotencyId::random().expect("random");
    let options = options.clone().idempotency(Some(other));
    let error = store
        .put(&path("a"), &SecretBytes::copy_from(b"x"), &options)
        .await;
    assert_eq!(error.expect_err("there").kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn deleting_is_final_conditional_where_asked_and_repeatable() {
    let host = Host::new();
    let store = host.store();
    put(&store, "a/b/c", b"1").await;
    put(&store, "a/b/c", b"2").await;
    let stale = DeleteOptions::default().version(Some(version("1")));
    let error = store.delete(&path("a/b/c"), &stale).await;
    assert_eq!(error.expect_err("stale").kind(), ErrorKind::Conflict);
    let current = DeleteOptions::default().version(Some(version("2")));
    store
        .delete(&path("a/b/c"), &current)
        .await
        .expect("deleted");
    assert_eq!(refused(&store, "a/b/c").await.kind(), ErrorKind::NotFound);
    store
        .delete(&path("a/b/c"), &DeleteOptions::default())
        .await
        .expect("again");
    store
        .delete(&path("never/was"), &DeleteOptions::default())
        .await
        .expect("absent");
    let secrets = host.root().join("secrets");
    assert_eq!(
        fs::read_dir(secrets).expect("there").count(),
        0,
        "empty folders go"
    );
}

#[tokio::test]
async fn generated_values_follow_the_recipe_and_the_mode() {
    let host = Host::new();
    let store = host.store();
    let recipe = Recipe::new(Alphabet::Hex, 48).expect("valid");
    let create = PutOptions::default().mode(PutMode::Create);
    store
        .generate(&path("a"), &recipe, &create)
        .await
        .expect("made");
    let value = get(&store, "a").await.expect("read");
    assert!(value.len() == 48 && value.iter().all(u8::is_ascii_hexdigit));
    let again = store.generate(&path("a"), &recipe, &create).await;
    assert_eq!(again.expect_err("there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(get(&store, "a").await.expect("read"), value);
}

#[tokio::test]
async fn what_it_cannot_do_is_unsupported_before_anything_else() {
    let host = Host::new();
    let store = host.store();
    let can = store.capabilities().await.expect("known");
    assert!(!can.has(Capability::FIELDS) && !can.has(Capability::GENERATES_REMOTELY));
    let field = Some(Field::new("user").expect("valid"));
    let get = GetOptions::default().field(field.clone());
    let put = PutOptions::default().field(field);
    let value = SecretBytes::copy_from(&vec![0; MAX_VALUE + 1]);
    let errors = [
        store.get(&path("a"), &get).await.map(drop),
        store.stat(&path("a"), &get).await.map(drop),
        store.put(&path("a"), &value, &put).await.map(drop),
        store
            .generate(&path("a"), &Recipe::default(), &put)
            .await
            .map(drop),
    ];
    for error in errors {
        assert_eq!(error.expect_err("no fields").kind(), ErrorKind::Unsupported);
    }
    let many = store.get_many(&[path("a"), path("b")], &get).await;
    assert_eq!(many.len(), 2);
    assert!(
        !host.root().exists() && !host.identity().exists(),
        "no effect"
    );
}

#[tokio::test]
async fn many_reads_answer_in_order_each_for_itself() {
    let host = Host::new();
    let store = host.store();
    put(&store, "web01/a", b"a").await;
    put(&store, "web01/b", b"b").await;
    fs::write(host.file("web01/b"), b"junk").expect("spoiled");
    let paths = [
        path("web01/a"),
        path("web01/b"),
        path("web01/c"),
        path("web01/a"),
        SecretPath::root(),
    ];
    let found = store.get_many(&paths, &GetOptions::default()).await;
    let kinds: Vec<_> = found
        .iter()
        .map(|one| one.as_ref().err().map(|error| error.kind()))
        .collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(ErrorKind::Corrupt),
            Some(ErrorKind::NotFound),
            None,
            Some(ErrorKind::InvalidReference)
        ]
    );
}

#[tokio::test]
async fn a_store_that_need_not_be_there_is_empty_and_one_that_must_be_is_unavailable() {
    let host = Host::new();
    let store = host.store();
    let error = refused(&store, "a").await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.message().contains("nothing has been written"),
        "{error}"
    );
    assert_eq!(
        store.list_all(&SecretPath::root()).await.expect("empty"),
        []
    );
    store.probe().await.expect("nothing is wrong");
    assert!(!host.root().exists(), "reading makes nothing");

    let config = host.config_with(vec![("create", Value::Boolean(false))]);
    let store = FileStore::open(&config).expect("valid");
    let value = SecretBytes::copy_from(b"x");
    let errors = [
        store
            .get(&path("a"), &GetOptions::default())
            .await
            .map(drop),
        store
            .list(&SecretPath::root(), &ListOptions::default())
            .await
            .map(drop),
        store
            .put(&path("a"), &value, &PutOptions::default())
            .await
            .map(drop),
        store.delete(&path("a"), &DeleteOptions::default()).await,
        store.probe().await,
    ];
    for error in errors {
        let error = error.expect_err("not made");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("there is no store at"), "{error}");
    }
    assert!(!host.root().exists() && !host.identity().exists());
}

#[tokio::test]
async fn a_writer_waits_for_the_lock_and_no_longer_than_it_may() {
    let host = Host::new();
    let store = host.store();
    put(&store, "a", b"old").await;
    let lock = fs::File::open(host.root().join(".lock")).expect("there");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let soon = std::time::Instant::now() + Duration::from_millis(50);
    let request = keyhaul_core::Request::default().deadline(Some(soon));
    let options = PutOptions::default().request(request);
    let value = SecretBytes::copy_from(b"new");
    let error = store
        .put(&path("a"), &value, &options)
        .await
        .expect_err("held");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(get(&store, "a").await.expect("readers do not wait"), b"old");
    drop(lock);
    assert!(
        store
            .put(&path("a"), &value, &PutOptions::default())
            .await
            .is_ok()
    );
}

#[test]
fn configurations_are_refused_with_the_rule() {
    let host = Host::new();
    let registry = Registry::new().with(FileFactory);
    let text = |text: &str| Value::Text(text.into());
    let identity = || ("identity", text("file:/etc/keyhaul/identity"));
    for (url, all, rule) in [
        ("file:///s", vec![], "needs `identity`"),
        (
            "file:///s",
            vec![("identity", text("env:ID"))],
            "environment",
        ),
        ("file:///", vec![identity()], "not `/`"),
        ("file://host/s", vec![identity()], "this host"),
        ("file:///s?x=1", vec![identity()], "no query"),
        (
            "file:///s",
            vec![identity(), ("keep-versions", Value::Integer(0))],
            "1 to 100",
        ),
        (
            "file:///s",
            vec![identity(), ("keep-versions", Value::Integer(101))],
            "1 to 100",
        ),
        (
            "file:///s",
            vec![
                identity(),
                ("recipients", Value::Texts(vec!["AGE-SECRET-KEY-1X".into()])),
            ],
            "recipient 1",
        ),
        (
            "file:///s",
            vec![identity(), ("recipent", text("x"))],
            "unknown option",
        ),
        ("file+plain:///s", vec![identity()], "no meaning"),
    ] {
        let config = StoreConfig::new("s", url, Options::at("t:2:1", all), "t:1:1");
        let error = registry.open(&config.expect("a URL")).expect_err(rule);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.message().contains(rule), "{error}");
        assert!(!format!("{error:?}").contains("SECRET-KEY-1X"));
    }
    assert!(registry.open(&host.config()).is_ok());
    assert!(!host.root().exists(), "opening does no I/O");
}
