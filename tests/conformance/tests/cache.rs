//! What is given out again, for how long, and what is not. The clock is tokio's, stopped.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use common::{CANARY, SECOND, faulty, get, path, until, value};
use futures_util::future::{BoxFuture, join, join_all};
use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::layers::{self, Cache, CacheSettings, Call, Layer, LayerSettings};
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, ErrorKind, Field, GetOptions, Lease, ListOptions,
    MemoryStore, Metadata, Operation, Page, PutOptions, Recipe, Result, Secret, SecretBytes,
    SecretPath, SecretStore,
};
use tokio::time::Instant;

fn cached(store: Arc<FaultStore>) -> Arc<dyn SecretStore> {
    Cache::over(CacheSettings::new(30 * SECOND), store)
}

async fn read(store: &dyn SecretStore, name: &str) -> Result<Vec<u8>> {
    let secret = store.get(&path(name), &get()).await?;
    Ok(secret.value.expose().to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_value_is_given_again_until_its_time_is_over() {
    let inner = faulty([]).await;
    let store = cached(inner.clone());
    for _ in 0..10 {
        assert_eq!(read(&*store, "a").await.expect("there"), CANARY);
        tokio::time::sleep(2 * SECOND).await;
    }
    assert_eq!(inner.seen().len(), 1);
    tokio::time::sleep(10 * SECOND).await;
    read(&*store, "a").await.expect("there");
    assert_eq!(inner.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_version_field_and_sort_of_asking_is_a_key_of_its_own() {
    let memory = MemoryStore::new("site").with_fields(Field::new("value").expect("plain"));
    let put = |text: &'static [u8], field: &str| {
        let options = PutOptions::default().field(Some(Field::new(field).expect("plain")));
        let memory = &memory;
        async move {
            let value = SecretBytes::copy_from(text);
            memory
                .put(&path("a"), &value, &options)
                .await
                .expect("put")
                .version
        }
    };
    let first = put(b"one", "value").await;
    put(b"two", "value").await;
    put(b"three", "other").await;
    let inner = FaultStore::new(Arc::new(memory), []);
    let store = cached(inner.clone());
    let other = Some(Field::new("other").expect("plain"));
    for _ in 0..2 {
        for (options, expected) in [
            (get(), &b"two"[..]),
            (get().version(first.clone()), b"one"),
            (get().field(other.clone()), b"three"),
            (get().expired(true), b"two"),
        ] {
            let secret = store.get(&path("a"), &options).await.expect("there");
            assert_eq!(secret.value.expose(), expected);
        }
    }
    assert_eq!(inner.seen().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn failures_are_not_kept() {
    for kind in ErrorKind::ALL {
        let inner = faulty([Fault::Fail(*kind)]).await;
        let store = cached(inner.clone());
        let error = read(&*store, "a").await.expect_err("a fault");
        assert_eq!(error.kind(), *kind);
        read(&*store, "a").await.expect("asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_through_it_is_seen_at_once() {
    let inner = faulty([]).await;
    let store = cached(inner.clone());
    let (a, new) = (path("a"), SecretBytes::copy_from(b"new"));
    read(&*store, "a").await.expect("there");
    store
        .put(&a, &new, &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(read(&*store, "a").await.expect("there"), b"new");
    store
        .generate(&a, &Recipe::default(), &PutOptions::default())
        .await
        .expect("made");
    assert_ne!(read(&*store, "a").await.expect("there"), b"new");
    let deleted = store.delete(&a, &DeleteOptions::default()).await;
    deleted.expect("deleted");
    let gone = read(&*store, "a").await.expect_err("gone");
    assert_eq!(gone.kind(), ErrorKind::NotFound);

    // Even where the answer of the write was lost.
    let inner = faulty([Fault::None, Fault::LoseAnswer(ErrorKind::Unavailable)]).await;
    let store = cached(inner);
    read(&*store, "a").await.expect("there");
    store
        .put(&a, &new, &PutOptions::default())
        .await
        .expect_err("lost");
    assert_eq!(read(&*store, "a").await.expect("there"), b"new");
}

/// A read that began before a write and ends after it is not kept.
#[tokio::test(start_paused = true)]
async fn what_a_write_overtook_is_not_kept() {
    let memory = Arc::new(MemoryStore::new("site"));
    let (a, new) = (path("a"), SecretBytes::copy_from(b"new"));
    memory
        .put(&a, &value(), &PutOptions::default())
        .await
        .expect("seeded");
    // It reads at once, and answers after a second.
    let slow: Arc<dyn SecretStore> = Slow(SECOND).over(memory);
    let store = Cache::over(CacheSettings::new(30 * SECOND), slow);
    let write = async {
        tokio::time::sleep(SECOND / 2).await;
        store.put(&a, &new, &PutOptions::default()).await
    };
    let (old, written) = join(read(&*store, "a"), write).await;
    assert_eq!(old.expect("as it was"), CANARY);
    written.expect("put");
    assert_eq!(read(&*store, "a").await.expect("there"), b"new");
}

#[tokio::test(start_paused = true)]
async fn never_longer_than_the_store_would() {
    // By the secret's own expiry; the system's clock is not stopped, so that 10 s are 10 s here.
    let memory = Arc::new(MemoryStore::new("site"));
    let soon = SystemTime::now() + 10 * SECOND;
    let options = PutOptions::default().expires(Some(soon));
    memory
        .put(&path("a"), &value(), &options)
        .await
        .expect("seeded");
    let inner = FaultStore::new(memory, []);
    let store = cached(inner.clone());
    for (wait, asked) in [(0, 1), (9, 1), (2, 2)] {
        tokio::time::sleep(wait * SECOND).await;
        read(&*store, "a").await.expect("there");
        assert_eq!(inner.seen().len(), asked, "after {wait} s more");
    }

    // By a lease.
    let leased: Arc<dyn SecretStore> = Arc::new(Leased(MemoryStore::new("site")));
    leased
        .put(&path("a"), &value(), &PutOptions::default())
        .await
        .expect("seeded");
    let inner = FaultStore::new(leased, []);
    let store = cached(inner.clone());
    for (wait, asked) in [(0, 1), (4, 1), (2, 2)] {
        tokio::time::sleep(wait * SECOND).await;
        read(&*store, "a").await.expect("there");
        assert_eq!(inner.seen().len(), asked, "after {wait} s more");
    }
}

/// A machine that sleeps stops tokio's clock, as this test does, and not the time of day.
#[tokio::test(start_paused = true)]
async fn what_expired_while_the_machine_slept_is_not_given_again() {
    let memory = Arc::new(MemoryStore::new("site"));
    let soon = SystemTime::now() + Duration::from_millis(300);
    let options = PutOptions::default().expires(Some(soon));
    let put = memory.put(&path("a"), &value(), &options).await;
    put.expect("seeded");
    let store = cached(FaultStore::new(memory, []));
    read(&*store, "a").await.expect("there");
    while SystemTime::now() <= soon {
        std::thread::yield_now();
    }
    let error = read(&*store, "a").await.expect_err("expired");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Whose leader went away fetches what it waited for at once, and not one by one.
#[tokio::test(start_paused = true)]
async fn many_that_a_leader_left_are_fetched_together() {
    let inner = faulty(
        [Fault::Hang]
            .into_iter()
            .chain(vec![Fault::Delay(SECOND); 3]),
    )
    .await;
    let store = cached(inner.clone());
    let (paths, options) = (["a", "b", "c", "a"].map(path), get());
    let leader = tokio::time::timeout(2 * SECOND, store.get_many(&paths, &options));
    let follower = async {
        tokio::task::yield_now().await;
        store.get_many(&paths, &options).await
    };
    let start = Instant::now();
    let (leader, answers) = join(leader, follower).await;
    assert!(leader.is_err());
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((inner.seen().len(), start.elapsed().as_secs()), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn bounded_in_entries_and_bytes() {
    let inner = faulty([]).await;
    let settings = CacheSettings::new(30 * SECOND).bounded(2, 1000);
    let store = Cache::over(settings, inner.clone());
    for name in ["a", "b", "a", "c"] {
        read(&*store, name).await.expect("there");
    }
    // `b` was not asked for longest, and went for `c`.
    assert_eq!(inner.seen().len(), 3);
    read(&*store, "a").await.expect("there");
    read(&*store, "c").await.expect("there");
    assert_eq!(inner.seen().len(), 3);
    read(&*store, "b").await.expect("there");
    assert_eq!(inner.seen().len(), 4);

    // Room for one value and a bit, then for none.
    for (bytes, asked) in [(CANARY.len() + 3, [1, 1, 2, 3]), (3, [1, 2, 3, 4])] {
        let inner = faulty([]).await;
        let settings = CacheSettings::new(30 * SECOND).bounded(10, bytes);
        let store = Cache::over(settings, inner.clone());
        for (name, asked) in ["a", "a", "b", "a"].into_iter().zip(asked) {
            read(&*store, name).await.expect("there");
            assert_eq!(inner.seen().len(), asked, "{name} in {bytes}");
        }
    }
}

#[tokio::test]
async fn labels_count_among_the_bytes() {
    for (label, asked) in [(10, 1), (1000, 2)] {
        let inner = faulty([]).await;
        let labels = [("owner".to_owned(), "x".repeat(label))].into();
        let options = PutOptions::default().labels(labels);
        let put = inner.put(&path("a"), &value(), &options).await;
        put.expect("written");
        let before = inner.seen().len();
        let settings = CacheSettings::new(30 * SECOND).bounded(10, 1000);
        let store = Cache::over(settings, inner.clone());
        read(&*store, "a").await.expect("there");
        read(&*store, "a").await.expect("there");
        assert_eq!(inner.seen().len() - before, asked, "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_flight_serves_all_who_ask() {
    let inner = faulty([Fault::Delay(SECOND)]).await;
    let store = cached(inner.clone());
    let start = Instant::now();
    let answers = join_all((0..50).map(|_| read(&*store, "a"))).await;
    assert!(
        answers
            .iter()
            .all(|a| a.as_ref().is_ok_and(|v| v == CANARY))
    );
    assert_eq!((inner.seen().len(), start.elapsed().as_secs()), (1, 1));

    // A failure too is that of all who waited for it, and of nobody after.
    let fails = Fault::Fail(ErrorKind::Corrupt);
    let inner = faulty([fails.clone()]).await;
    let slow: Arc<dyn SecretStore> = Slow(SECOND).over(inner.clone());
    let store = Cache::over(CacheSettings::new(30 * SECOND), slow);
    let answers = join_all((0..50).map(|_| read(&*store, "a"))).await;
    let corrupt = |a: &Result<Vec<u8>>| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::Corrupt);
    assert!(answers.iter().all(corrupt));
    assert_eq!(inner.seen().len(), 1);
    read(&*store, "a").await.expect("asked again");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_away_strands_nobody() {
    let inner = faulty([Fault::Hang, Fault::Delay(SECOND)]).await;
    let store = cached(inner.clone());
    let leader = tokio::time::timeout(2 * SECOND, read(&*store, "a"));
    let others = async {
        tokio::time::sleep(SECOND).await;
        join_all((0..20).map(|_| read(&*store, "a"))).await
    };
    let start = Instant::now();
    let (leader, others) = join(leader, others).await;
    assert!(leader.is_err());
    assert!(others.iter().all(Result::is_ok));
    // The first of them fetched, once, for all.
    assert_eq!((inner.seen().len(), start.elapsed().as_secs()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn who_waits_keeps_a_deadline_of_its_own() {
    let inner = faulty([Fault::Delay(10 * SECOND)]).await;
    let store = cached(inner.clone());
    let start = Instant::now();
    let a = path("a");
    let hasty = get().request(until(start + 2 * SECOND));
    let waits = async {
        tokio::task::yield_now().await;
        let answer = store.get(&a, &hasty).await;
        (answer, start.elapsed().as_secs())
    };
    let (leader, (waited, after)) = join(read(&*store, "a"), waits).await;
    leader.expect("there");
    assert_eq!(waited.expect_err("late").kind(), ErrorKind::Timeout);
    assert_eq!(after, 2);

    // And a leader's deadline is no failure of those who wait longer: through the whole stack.
    let inner = faulty([Fault::Hang]).await;
    let mut settings = LayerSettings::default();
    settings.cache = Some(CacheSettings::new(30 * SECOND));
    settings.limits = Some(keyhaul_core::registry::Limits::new(4, None));
    let store = layers::standard(inner.clone(), &settings, None);
    let hasty = get().request(until(Instant::now() + 2 * SECOND));
    let others = async {
        tokio::task::yield_now().await;
        read(&*store, "a").await
    };
    let (leader, other) = join(store.get(&a, &hasty), others).await;
    assert_eq!(leader.expect_err("late").kind(), ErrorKind::Timeout);
    assert_eq!(other.expect("there"), CANARY);
}

#[tokio::test(start_paused = true)]
async fn of_many_only_what_is_missing_is_asked_for() {
    let inner = faulty([]).await;
    let store = cached(inner.clone());
    read(&*store, "b").await.expect("there");
    let paths = ["a", "b", "absent", "a", "absent", "c"].map(path);
    let answers = store.get_many(&paths, &get()).await;
    let found: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(found, [true, true, false, true, false, true]);
    let asked: Vec<_> = inner.seen().iter().map(|seen| seen.paths).collect();
    assert_eq!(asked, [1, 3]);

    // Two at the same time, each with one that the other fetches, wait for each other and end.
    let inner = faulty([Fault::Delay(SECOND), Fault::Delay(SECOND)]).await;
    let store = cached(inner.clone());
    let (one, two) = (["a", "b"].map(path), ["c", "b", "a"].map(path));
    let options = get();
    let both = join(
        store.get_many(&one, &options),
        store.get_many(&two, &options),
    );
    let (one, two) = tokio::time::timeout(5 * SECOND, both)
        .await
        .expect("both end");
    assert!(one.iter().chain(&two).all(Result::is_ok));
    let asked: Vec<_> = inner.seen().iter().map(|seen| seen.paths).collect();
    assert_eq!(asked, [2, 1]);
}

/// Has a store answer late with what it read at once.
#[derive(Debug)]
struct Slow(Duration);

impl Layer for Slow {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let answer = attempt().await;
        if call.operation == Operation::Get {
            tokio::time::sleep(self.0).await;
        }
        answer
    }

    /// Many are answered at once.
    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        call.store.get_many(paths, options).await
    }
}

/// Says that every value is lent for five seconds.
#[derive(Debug)]
struct Leased(MemoryStore);

#[async_trait]
impl SecretStore for Leased {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }
    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.capabilities().await
    }
    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let mut secret = self.0.get(path, options).await?;
        secret.metadata.lease = Some(Lease::new("lease/1", 5 * SECOND, false));
        Ok(secret)
    }
    async fn get_many(&self, paths: &[SecretPath], o: &GetOptions) -> Vec<Result<Secret>> {
        self.0.get_many(paths, o).await
    }
    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.0.stat(path, options).await
    }
    async fn put(&self, p: &SecretPath, v: &SecretBytes, o: &PutOptions) -> Result<Metadata> {
        self.0.put(p, v, o).await
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
