//! No more at once than a store can bear. The clock is tokio's, stopped.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{CANARY, SECOND, faulty, get, path, until};
use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::layers::{self, Layer, LayerSettings, Throttle, Timeout};
use keyhaul_core::registry::Limits;
use keyhaul_core::{ErrorKind, MemoryStore, PutOptions, SecretBytes, SecretPath, SecretStore};
use tokio::time::Instant;

/// A store each of whose requests takes a second.
async fn slow(requests: usize) -> Arc<FaultStore> {
    faulty(std::iter::repeat_n(Fault::Delay(SECOND), requests)).await
}

fn paths(names: &[&str]) -> Vec<SecretPath> {
    names.iter().map(|name| path(name)).collect()
}

#[tokio::test(start_paused = true)]
async fn many_are_asked_for_one_by_one_so_many_at_once() {
    // 7 requests of a second each, 2 or 7 or 1 at a time.
    for (concurrency, seconds) in [(2, 4), (7, 1), (100, 1), (1, 7), (0, 7)] {
        let inner = slow(7).await;
        let store = Throttle::new(Limits::new(concurrency, None)).over(inner.clone());
        let start = Instant::now();
        let asked = paths(&["a", "b", "absent", "a", "c", "b", "a"]);
        let answers = store.get_many(&asked, &get()).await;
        assert_eq!(start.elapsed().as_secs(), seconds, "{concurrency}");
        let found: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(found, [true, true, false, true, true, true, true]);
        assert_eq!(inner.seen().len(), 7);
        assert!(inner.seen().iter().all(|seen| seen.paths == 1));
    }
    // The control: without it the store is asked once for all.
    let inner = slow(1).await;
    inner.get_many(&paths(&["a", "b"]), &get()).await;
    assert_eq!(inner.seen()[0].paths, 2);
}

/// The order is that of the paths, whichever answer comes first.
#[tokio::test(start_paused = true)]
async fn answers_keep_their_places() {
    let store = MemoryStore::new("site");
    let names: Vec<String> = (0..20).map(|n| format!("secret-{n}")).collect();
    for name in &names {
        let value = SecretBytes::copy_from(name.as_bytes());
        let (path, options) = (path(name), PutOptions::default());
        store.put(&path, &value, &options).await.expect("seeded");
    }
    let delays = (0..20).map(|n| Fault::Delay(Duration::from_millis(500 - n * 20)));
    let inner = FaultStore::new(Arc::new(store), delays);
    let store = Throttle::new(Limits::new(20, None)).over(inner);
    let asked: Vec<_> = names.iter().map(|name| path(name)).collect();
    let answers = store.get_many(&asked, &get()).await;
    for (name, answer) in names.iter().zip(answers) {
        assert_eq!(answer.expect("there").value.expose(), name.as_bytes());
    }
}

/// A secret that takes long holds up its own turn, and nobody else's.
#[tokio::test(start_paused = true)]
async fn the_others_do_not_wait_behind_one_that_hangs() {
    let first = [Fault::Delay(10 * SECOND)];
    let others = std::iter::repeat_n(Fault::Delay(SECOND / 10), 49);
    let inner = faulty(first.into_iter().chain(others)).await;
    let store = Throttle::new(Limits::new(2, None)).over(inner.clone());
    let start = Instant::now();
    let answers = store.get_many(&vec![path("a"); 50], &get()).await;
    assert!(answers.iter().all(Result::is_ok));
    // 4.9 s for the others, beside it.
    assert_eq!(start.elapsed().as_millis(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_after_a_burst() {
    let inner = faulty([]).await;
    let store = Throttle::new(Limits::new(4, Some(10))).over(inner.clone());
    let start = Instant::now();
    store.get_many(&vec![path("a"); 24], &get()).await;
    // 4 at once, then one each tenth of a second; each wait is rounded up to a millisecond.
    let took = start.elapsed().as_millis();
    assert!((2000..2060).contains(&took), "{took}");
    // Idle for long, it has room for a burst again, and not for more.
    tokio::time::sleep(60 * SECOND).await;
    let start = Instant::now();
    store.get_many(&vec![path("a"); 4], &get()).await;
    assert_eq!(start.elapsed().as_millis(), 0);
    store.get(&path("a"), &get()).await.expect("there");
    assert!(start.elapsed().as_millis() >= 100);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_is_no_part_of_an_attempts_time() {
    // Each takes a second of the second and a half that an attempt may take; the last waits four.
    let inner = Timeout::new(Duration::from_millis(1500)).over(slow(5).await);
    let store = Throttle::new(Limits::new(1, None)).over(inner);
    let answers = store.get_many(&vec![path("a"); 5], &get()).await;
    assert!(answers.iter().all(Result::is_ok));
    // The control: the other way round, waiting uses it up.
    let inner = Throttle::new(Limits::new(1, None)).over(slow(5).await);
    let store = Timeout::new(Duration::from_millis(1500)).over(inner);
    let answers = store.get_many(&vec![path("a"); 5], &get()).await;
    assert!(answers.iter().all(Result::is_err));
}

/// Through the whole stack, whose deadline must not take away what has arrived.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_has_arrived_is_given() {
    let inner = slow(10).await;
    let mut settings = LayerSettings::default();
    settings.limits = Some(Limits::new(2, None));
    settings.breaker = Some(Default::default());
    let store = layers::standard(inner.clone(), &settings, None);
    let start = Instant::now();
    let options = get().request(until(start + Duration::from_millis(2500)));
    let asked = paths(&["a", "b", "c", "absent", "a", "b", "c", "a"]);
    let answers = store.get_many(&asked, &options).await;
    assert_eq!(start.elapsed().as_millis(), 2500);
    let kinds: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(|error| error.kind()))
        .collect();
    let (late, none) = (Some(ErrorKind::Timeout), Some(ErrorKind::NotFound));
    assert_eq!(kinds, [None, None, None, none, late, late, late, late]);
    for (answer, path) in answers.iter().zip(&asked) {
        match answer {
            Ok(secret) => assert_eq!(secret.value.expose(), CANARY),
            Err(error) => assert_eq!(error.context().path.as_deref(), Some(path.as_str())),
        }
    }
    // What was under way was dropped, and what waited was never begun.
    assert_eq!((inner.seen().len(), inner.dropped()), (6, 2));
}

#[tokio::test(start_paused = true)]
async fn who_is_dropped_while_waiting_leaves_the_turn_to_others() {
    let inner = faulty([Fault::Hang, Fault::Hang]).await;
    let store = Throttle::new(Limits::new(1, Some(1000))).over(inner);
    for _ in 0..2 {
        let (a, options) = (path("a"), get());
        let first = store.get(&a, &options);
        tokio::time::timeout(SECOND, first)
            .await
            .expect_err("hangs");
    }
    store.get(&path("a"), &get()).await.expect("a turn is free");
}
