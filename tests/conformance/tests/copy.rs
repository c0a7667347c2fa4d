//! From one store to another: what is written, what is left alone, and what is an error.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::path;
use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::copy::{Copied, CopyOptions, Item, copy};
use keyhaul_core::{
    Capability, Error, ErrorKind, Field, GetOptions, MemoryStore, Metadata, Operation, PutOptions,
    Request, Result, SecretBytes, SecretPath, SecretStore, SecretStoreExt as _,
};

const ALL: Capability = Capability::all();

fn memory(name: &str) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(name))
}

fn maps(name: &str) -> Arc<MemoryStore> {
    let main = Field::new("value").expect("plain");
    Arc::new(MemoryStore::new(name).with_fields(main))
}

fn restricted(can: Capability) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new("to").with_capabilities(can))
}

async fn write(store: &dyn SecretStore, name: &str, text: &str) -> Metadata {
    write_with(store, name, text, PutOptions::default()).await
}

async fn write_with(
    store: &dyn SecretStore,
    name: &str,
    text: &str,
    options: PutOptions,
) -> Metadata {
    let value = SecretBytes::copy_from(text.as_bytes());
    let put = store.put(&path(name), &value, &options).await;
    put.expect("written")
}

async fn read(store: &dyn SecretStore, name: &str) -> Option<String> {
    let secret = store.get(&path(name), &GetOptions::default()).await.ok()?;
    Some(String::from_utf8_lossy(secret.value.expose()).into_owned())
}

fn everything() -> CopyOptions {
    CopyOptions::new(SecretPath::root(), Request::default())
}

/// `from` is a store as it is, so that tests need no upcast.
async fn copied<F: SecretStore, T: SecretStore>(
    from: &Arc<F>,
    to: &Arc<T>,
    options: &CopyOptions,
) -> Result<Vec<Item>> {
    copy(from.clone(), to.clone(), options, |_, _| {}).await
}

/// Each path with what became of it, in a word.
fn told(items: &[Item]) -> Vec<String> {
    let word = |outcome: &Result<Copied>| match outcome {
        Ok(Copied::Written(versions)) => format!("{versions}"),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.kind().name().to_owned(),
    };
    let line = |item: &Item| format!("{} {}", item.path, word(&item.outcome));
    items.iter().map(line).collect()
}

fn only_error(items: Vec<Item>) -> Error {
    let mut errors = items.into_iter().filter_map(|item| item.outcome.err());
    let error = errors.next().expect("an error");
    assert!(errors.next().is_none());
    error
}

#[tokio::test]
async fn values_labels_and_expiry_arrive_and_the_second_time_nothing_is_written() {
    let (from, to) = (memory("from"), memory("to"));
    let later = SystemTime::now() + Duration::from_secs(3600);
    let carried = PutOptions::default()
        .labels([("owner".to_owned(), "tenant-7".to_owned())].into())
        .expires(Some(later));
    write_with(&*from, "web01/root", "one", carried).await;
    write(&*from, "web01/data", "two").await;
    write(&*from, "web02", "three").await;
    let mut progress = Vec::new();
    let options = everything();
    let items = copy(from.clone(), to.clone(), &options, |done, of| {
        progress.push((done, of));
    });
    let items = items.await.expect("copied");
    assert_eq!(told(&items), ["web01/data 1", "web01/root 1", "web02 1"]);
    assert_eq!(progress, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    for name in ["web01/root", "web01/data", "web02"] {
        assert_eq!(read(&*to, name).await, read(&*from, name).await);
    }
    let stat = to.stat(&path("web01/root"), &GetOptions::default()).await;
    let stat = stat.expect("there");
    assert_eq!(stat.expires, Some(later));
    assert_eq!(stat.labels["owner"], "tenant-7");

    let to = FaultStore::new(to, []);
    let items = copied(&from, &to, &everything()).await.expect("copied");
    assert_eq!(
        told(&items),
        ["web01/data Same", "web01/root Same", "web02 Same"]
    );
    let is_read = |operation| operation != Operation::Put;
    assert!(to.seen().iter().all(|seen| is_read(seen.operation)));
}

#[tokio::test]
async fn a_prefix_is_the_secret_there_and_what_is_below() {
    let (from, to) = (memory("from"), memory("to"));
    for name in ["web01", "web01/root", "web010/root", "a"] {
        write(&*from, name, name).await;
    }
    let mut options = everything();
    options.prefix = path("web01");
    let items = copied(&from, &to, &options).await.expect("copied");
    assert_eq!(told(&items), ["web01 1", "web01/root 1"]);
    options.prefix = path("nothing");
    let items = copied(&from, &to, &options).await.expect("nothing to do");
    assert!(items.is_empty());
}

#[tokio::test]
async fn what_differs_is_an_error_unless_it_may_be_replaced() {
    let (from, to) = (memory("from"), memory("to"));
    for name in ["a", "b", "c"] {
        write(&*from, name, "new").await;
    }
    write(&*to, "b", "other").await;
    let labels = PutOptions::default().labels([("k".to_owned(), "v".to_owned())].into());
    write_with(&*to, "c", "new", labels).await;
    let mut options = everything();
    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(told(&items), ["a 1", "b AlreadyExists", "c AlreadyExists"]);
    let error = items[1].outcome.as_ref().expect_err("differs");
    assert_eq!(error.context().path.as_deref(), Some("b"));
    assert_eq!(error.context().store.as_deref(), Some("to"));
    assert!(!format!("{error:?}").contains("new"));
    assert_eq!(read(&*to, "b").await.as_deref(), Some("other"));

    options.overwrite = true;
    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(told(&items), ["a Same", "b 1", "c 1"]);
    assert_eq!(read(&*to, "b").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_dry_run_tells_and_writes_nothing() {
    let (from, to) = (memory("from"), memory("to"));
    for name in ["a", "b", "c"] {
        write(&*from, name, "new").await;
    }
    write(&*to, "b", "new").await;
    write(&*to, "c", "other").await;
    let mut options = everything();
    options.dry_run = true;
    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(told(&items), ["a 1", "b Same", "c AlreadyExists"]);
    let there = to.list_all(&SecretPath::root()).await.expect("listed");
    assert_eq!(there, ["b", "c"].map(path));
}

#[tokio::test]
async fn what_failed_is_told_and_copied_the_next_time() {
    let (from, to) = (memory("from"), memory("to"));
    for name in ["a", "b", "c"] {
        write(&*from, name, name).await;
    }
    // The memory store never waits: a look and a write for each. The second write is done, and its
    // answer lost.
    let fails = Fault::LoseAnswer(ErrorKind::StorageFull);
    let faults = [Fault::None, Fault::None, Fault::None, fails];
    let faulty = FaultStore::new(to.clone(), faults);
    let items = copied(&from, &faulty, &everything()).await.expect("begun");
    assert_eq!(told(&items), ["a 1", "b StorageFull", "c 1"]);
    assert_eq!(only_error(items).kind(), ErrorKind::StorageFull);
    let items = copied(&from, &to, &everything()).await.expect("begun");
    assert!(items.iter().all(|item| item.outcome.is_ok()));
    for name in ["a", "b", "c"] {
        assert_eq!(read(&*to, name).await.as_deref(), Some(name));
    }
}

/// A store that keeps something else than it was given, which only reading back shows.
#[tokio::test]
async fn verify_reads_back() {
    use async_trait::async_trait;
    use keyhaul_core::*;

    #[derive(Debug)]
    struct Forgetful(Arc<MemoryStore>);

    #[async_trait]
    impl SecretStore for Forgetful {
        fn descriptor(&self) -> &Descriptor {
            self.0.descriptor()
        }
        async fn capabilities(&self) -> Result<Capabilities> {
            self.0.capabilities().await
        }
        async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
            self.0.get(path, options).await
        }
        async fn get_many(&self, paths: &[SecretPath], o: &GetOptions) -> Vec<Result<Secret>> {
            self.0.get_many(paths, o).await
        }
        async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
            self.0.stat(path, options).await
        }
        async fn put(&self, p: &SecretPath, v: &SecretBytes, o: &PutOptions) -> Result<Metadata> {
            let short = SecretBytes::copy_from(&v.expose()[..v.len() - 1]);
            self.0.put(p, &short, o).await
        }
        async fn generate(&self, p: &SecretPath, r: &Recipe, o: &PutOptions) -> Result<Metadata> {
            self.0.generate(p, r, o).await
        }
        async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
            self.0.delete(path, options).await
        }
        async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
            self.0.list(prefix, options).await
        }
        async fn probe(&self) -> Result<()> {
            self.0.probe().await
        }
    }

    let from = memory("from");
    write(&*from, "a", "new").await;
    let mut options = everything();
    // Without it, nothing is noticed.
    let to = Arc::new(Forgetful(memory("to")));
    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(told(&items), ["a 1"]);
    options.verify = true;
    let to = Arc::new(Forgetful(memory("to")));
    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(only_error(items).kind(), ErrorKind::Corrupt);
    // And what is right is found right.
    let items = copied(&from, &memory("to"), &options).await.expect("begun");
    assert_eq!(told(&items), ["a 1"]);
}

#[tokio::test]
async fn versions_arrive_oldest_first_and_a_broken_copy_goes_on() {
    let (from, to) = (memory("from"), memory("to"));
    for text in ["one", "two", "three"] {
        write(&*from, "a", text).await;
        // The memory store counts for all its secrets: there are gaps in each one's numbers.
        write(&*from, "other", text).await;
    }
    let mut options = everything();
    options.prefix = path("a");
    options.versions = true;
    // The look, the first version, and the second is refused.
    let faults = [
        Fault::None,
        Fault::None,
        Fault::Fail(ErrorKind::Unavailable),
    ];
    let faulty = FaultStore::new(to.clone(), faults);
    let items = copied(&from, &faulty, &options).await.expect("begun");
    assert_eq!(only_error(items).kind(), ErrorKind::Unavailable);
    assert_eq!(read(&*to, "a").await.as_deref(), Some("one"));

    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(told(&items), ["a 2"]);
    for (version, text) in [("1", "one"), ("2", "two"), ("3", "three")] {
        let version = keyhaul_core::Version::new(version).ok();
        let get = GetOptions::default().version(version);
        let secret = to.get(&path("a"), &get).await.expect("kept");
        assert_eq!(secret.value.expose(), text.as_bytes());
    }
    let items = copied(&from, &to, &options).await.expect("begun");
    assert_eq!(told(&items), ["a Same"]);

    // Where one of the two has none, the current value is what there is.
    let plain = restricted(ALL - Capability::VERSIONS);
    let items = copied(&from, &plain, &options).await.expect("begun");
    assert_eq!(told(&items), ["a 1"]);
    assert_eq!(read(&*plain, "a").await.as_deref(), Some("three"));
}

/// A value that came back: what a broken copy left could be any of its versions.
#[tokio::test]
async fn a_broken_copy_of_a_value_that_came_back_loses_no_version() {
    let from = memory("from");
    let history = ["one", "two", "one", "three"];
    for text in history {
        write(&*from, "a", text).await;
    }
    let mut options = everything();
    options.versions = true;
    for arrived in 1..history.len() {
        let to = memory("to");
        // The look and what arrived; the next is refused.
        let mut faults = vec![Fault::None; arrived + 1];
        faults.push(Fault::Fail(ErrorKind::Unavailable));
        let faulty = FaultStore::new(to.clone(), faults);
        let items = copied(&from, &faulty, &options).await.expect("begun");
        assert_eq!(only_error(items).kind(), ErrorKind::Unavailable);
        let items = copied(&from, &to, &options).await.expect("begun");
        assert_eq!(told(&items), [format!("a {}", history.len() - arrived)]);
        for (index, text) in history.iter().enumerate() {
            let version = keyhaul_core::Version::new((index + 1).to_string()).ok();
            let get = GetOptions::default().version(version);
            let secret = to.get(&path("a"), &get).await.expect("kept");
            assert_eq!(secret.value.expose(), text.as_bytes(), "after {arrived}");
        }
    }
}

/// Listed, and gone when it is read.
#[tokio::test]
async fn what_was_deleted_meanwhile_is_told_and_is_no_failure() {
    let from = memory("from");
    for name in ["a", "b"] {
        write(&*from, name, name).await;
    }
    // The list, `a`, and what is known of it.
    let gone = Fault::Fail(ErrorKind::NotFound);
    let from = FaultStore::new(from, [Fault::None, gone.clone(), gone]);
    let mut options = everything();
    options.prefix = SecretPath::root();
    let items = copied(&from, &memory("to"), &options).await.expect("begun");
    assert_eq!(told(&items), ["a Gone", "b 1"]);
}

#[tokio::test]
async fn maps_are_copied_whole_and_else_the_field_that_is_meant() {
    let (from, to) = (maps("from"), maps("to"));
    let whole = PutOptions::default().field(Some(Field::all()));
    let map = r#"{"value": "pass", "user": "admin", "port": 3260}"#;
    write_with(&*from, "a", map, whole.clone()).await;
    let items = copied(&from, &to, &everything()).await.expect("begun");
    assert_eq!(told(&items), ["a 1"]);
    for (field, text) in [("value", "pass"), ("user", "admin"), ("port", "3260")] {
        let get = GetOptions::default().field(Field::new(field).ok());
        let secret = to.get(&path("a"), &get).await.expect("there");
        assert_eq!(secret.value.expose(), text.as_bytes());
    }
    // The same map in another order is the same.
    let other = r#"{"port":3260,"user":"\u0061dmin","value":"pass"}"#;
    write_with(&*to, "a", other, whole.clone()).await;
    let items = copied(&from, &to, &everything()).await.expect("begun");
    assert_eq!(told(&items), ["a Same"]);

    let plain = memory("plain");
    let items = copied(&from, &plain, &everything()).await.expect("begun");
    assert_eq!(told(&items), ["a 1"]);
    assert_eq!(read(&*plain, "a").await.as_deref(), Some("pass"));
    // A map without that field has no value to copy.
    write_with(&*from, "b", r#"{"user": "admin"}"#, whole).await;
    let items = copied(&from, &plain, &everything()).await.expect("begun");
    assert_eq!(told(&items), ["a Same", "b NotFound"]);
}

#[tokio::test]
async fn what_expires_is_not_made_to_live_for_ever_and_what_has_expired_stays() {
    let from = memory("from");
    let later = SystemTime::now() + Duration::from_secs(3600);
    let past = SystemTime::now() - Duration::from_secs(1);
    let until = |at| PutOptions::default().expires(Some(at));
    write_with(&*from, "later", "x", until(later)).await;
    write_with(&*from, "past", "x", until(past)).await;
    write(&*from, "never", "x").await;
    let plain = restricted(ALL - Capability::EXPIRY);
    let items = copied(&from, &plain, &everything()).await.expect("begun");
    assert_eq!(
        told(&items),
        ["later Unsupported", "never 1", "past Expired"]
    );
    assert_eq!(read(&*plain, "later").await, None);
}

#[tokio::test]
async fn stores_that_cannot_do_it_are_refused_before_anything_is_read() {
    let full = memory("full");
    write(&*full, "a", "x").await;
    let cases = [
        (ALL - Capability::LIST, ALL, "list"),
        (ALL - Capability::READ, ALL, "read"),
        (ALL, ALL - Capability::READ, "read"),
        (ALL, Capability::READ | Capability::UPDATE, "write, create"),
    ];
    for (from, to, missing) in cases {
        let from = FaultStore::new(restricted(from), []);
        let error = copied(&from, &restricted(to), &everything()).await;
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().ends_with(missing), "{error}");
        assert!(from.seen().is_empty());
    }
    // Without Create or Update a copy is possible all the same.
    let plain = restricted(Capability::READ | Capability::WRITE);
    let items = copied(&full, &plain, &everything()).await.expect("begun");
    assert_eq!(told(&items), ["a 1"]);
}
