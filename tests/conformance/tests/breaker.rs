//! Failing fast while a store is down. The clock is tokio's, stopped.

mod common;

use std::time::Duration;

use common::{SECOND, faulty, get, path, until};
use keyhaul_conformance::Fault;
use keyhaul_core::layers::{self, Breaker, BreakerSettings, Layer, LayerSettings, Retry};
use keyhaul_core::registry::Limits;
use keyhaul_core::{Error, ErrorKind, SecretStore};
use tokio::time::Instant;

const DOWN: Fault = Fault::Fail(ErrorKind::Unavailable);

fn breaker(failures: u32) -> Breaker {
    Breaker::new(BreakerSettings::new(failures, 5 * SECOND))
}

async fn ask(store: &dyn SecretStore) -> Result<(), Error> {
    store.get(&path("a"), &get()).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn after_so_many_failures_the_store_is_not_asked() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
        let inner = faulty(vec![Fault::Fail(kind); 3]).await;
        let store = breaker(3).over(inner.clone());
        for _ in 0..3 {
            let error = ask(&*store).await.expect_err("down");
            assert!(!error.is_refused());
        }
        for _ in 0..10 {
            let error = ask(&*store).await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.is_refused() && error.duplicate().is_refused());
            assert_eq!(error.context().store.as_deref(), Some("site"));
            assert_eq!(error.context().path.as_deref(), Some("a"));
            let words = error.message();
            assert!(words.contains("down since 2"), "{words}");
            assert!(words.contains(kind.words()), "{words}");
            assert!(words.contains("a fault made on purpose"), "{words}");
            assert!(words.contains("asked again in 5 s"), "{words}");
        }
        assert_eq!(inner.seen().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn only_failures_in_a_row_count_and_only_of_a_store_that_is_away() {
    let others = ErrorKind::ALL
        .iter()
        .filter(|kind| !matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout));
    for kind in others {
        // Two of three, an answer of the store, two of three.
        let faults = [DOWN, DOWN, Fault::Fail(*kind), DOWN, DOWN];
        let inner = faulty(faults).await;
        let store = breaker(3).over(inner.clone());
        for _ in 0..5 {
            ask(&*store).await.expect_err("a fault");
        }
        ask(&*store).await.expect("up");
        assert_eq!(inner.seen().len(), 6, "{kind}");
    }
}

/// Callers in a hurry do not close a store to those who have time. The store itself knows their
/// deadline, and answers at it.
#[tokio::test(start_paused = true)]
async fn a_callers_own_deadline_does_not_count() {
    let late = Fault::Fail(ErrorKind::Timeout);
    let inner = faulty(vec![late.clone(); 9]).await;
    let store = breaker(3).over(inner.clone());
    let hasty = get().request(until(Instant::now()));
    for _ in 0..9 {
        let error = store.get(&path("a"), &hasty).await.expect_err("late");
        assert!(!error.is_refused());
    }
    ask(&*store).await.expect("up");
    // The control: with time left, it is the store's fault.
    let inner = faulty(vec![late; 3]).await;
    let store = breaker(3).over(inner);
    let patient = get().request(until(Instant::now() + SECOND));
    for _ in 0..3 {
        store.get(&path("a"), &patient).await.expect_err("late");
    }
    assert!(ask(&*store).await.expect_err("down").is_refused());
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_after_a_pause_that_doubles_up_to_a_bound() {
    let inner = faulty(vec![DOWN; 10]).await;
    let store = breaker(1).over(inner.clone());
    ask(&*store).await.expect_err("down");
    let mut asked = 1;
    for pause in [5, 10, 20, 40, 60, 60] {
        tokio::time::sleep(Duration::from_millis(pause * 1000 - 10)).await;
        assert!(ask(&*store).await.expect_err("too soon").is_refused());
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Of several that come then, one tries.
        let (one, two) = tokio::join!(ask(&*store), ask(&*store));
        let refused = [one, two].map(|answer| answer.expect_err("down").is_refused());
        assert_eq!(refused.iter().filter(|refused| **refused).count(), 1);
        asked += 1;
        assert_eq!(inner.seen().len(), asked, "after {pause} s");
        // The pause began a moment ago.
        tokio::time::sleep(Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_is_up_again() {
    let inner = faulty([DOWN, DOWN, DOWN, Fault::None, DOWN, DOWN]).await;
    let store = breaker(3).over(inner.clone());
    for _ in 0..3 {
        ask(&*store).await.expect_err("down");
    }
    tokio::time::sleep(6 * SECOND).await;
    ask(&*store).await.expect("up");
    // It counts from the beginning.
    for _ in 0..2 {
        assert!(!ask(&*store).await.expect_err("a fault").is_refused());
    }
    ask(&*store).await.expect("up");
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_dropped_lets_another_try() {
    let inner = faulty([DOWN, Fault::Hang]).await;
    let store = breaker(1).over(inner.clone());
    ask(&*store).await.expect_err("down");
    tokio::time::sleep(6 * SECOND).await;
    tokio::time::timeout(SECOND, ask(&*store))
        .await
        .expect_err("hangs");
    ask(&*store).await.expect("the next one tries");
}

/// Of many in one request, one answer of another sort shows a store that is there.
#[tokio::test(start_paused = true)]
async fn many_fail_together_or_not_at_all() {
    let paths = ["a", "b"].map(path);
    let half = Fault::Half(vec![0], ErrorKind::Unavailable);
    let inner = faulty([half.clone(), half, DOWN]).await;
    let store = breaker(1).over(inner.clone());
    for _ in 0..3 {
        store.get_many(&paths, &get()).await;
    }
    for answer in store.get_many(&paths, &get()).await {
        assert!(answer.expect_err("refused").is_refused());
    }
    assert_eq!(inner.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn retry_does_not_repeat_what_was_refused() {
    let inner = faulty(vec![DOWN; 9]).await;
    let store = Retry::new(8).over(breaker(2).over(inner.clone()));
    let start = Instant::now();
    let error = ask(&*store).await.expect_err("down");
    assert!(error.is_refused());
    assert_eq!(inner.seen().len(), 2);
    // Two waits, of at most 100 and 200 ms: after the second the refusal came.
    assert!(start.elapsed() <= Duration::from_millis(302));
}

#[tokio::test(start_paused = true)]
async fn five_hundred_references_to_a_dead_server_fail_soon() {
    for (rate, fault) in [(None, DOWN), (Some(50), DOWN), (Some(50), Fault::Hang)] {
        let hangs = matches!(fault, Fault::Hang);
        let inner = faulty(vec![fault; 2000]).await;
        let mut settings = LayerSettings::default();
        settings.limits = Some(Limits::new(16, rate));
        settings.breaker = Some(BreakerSettings::default());
        let store = layers::standard(inner.clone(), &settings, None);
        let start = Instant::now();
        let answers = store.get_many(&vec![path("a"); 500], &get()).await;
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().is_err_and(|e| e.kind().is_transient()))
        );
        // Those under way when it was found down, and a trial at most.
        let seen = inner.seen().len();
        assert!(seen <= 17, "{seen} attempts at {rate:?}");
        let most = if hangs { 12 } else { 1 };
        assert!(
            start.elapsed() < most * SECOND,
            "{:?} at {rate:?}",
            start.elapsed()
        );

        // The control: without it, each is tried four times.
        if !hangs {
            let inner = faulty(vec![DOWN; 2000]).await;
            settings.breaker = None;
            settings.limits = Some(Limits::new(16, None));
            let store = layers::standard(inner.clone(), &settings, None);
            store.get_many(&vec![path("a"); 500], &get()).await;
            assert_eq!(inner.seen().len(), 2000);
        }
    }
}
