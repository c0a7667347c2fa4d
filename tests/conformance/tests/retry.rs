//! What is tried again, when, and what is not. The clock is tokio's, stopped.

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use common::{CANARY, SECOND, create, faulty, get, path, until, value};
use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::layers::{Layer, Retry};
use keyhaul_core::{
    Capability, DeleteOptions, ErrorKind, IdempotencyId, ListOptions, MemoryStore, PutMode,
    PutOptions, Recipe, SecretPath,
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn passing_failures_are_tried_again_and_others_are_not() {
    for kind in ErrorKind::ALL.iter().copied() {
        let inner = faulty([Fault::Fail(kind)]).await;
        let answer = Retry::new(3)
            .over(inner.clone())
            .get(&path("a"), &get())
            .await;
        let passes = [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::RateLimited,
        ];
        assert_eq!(answer.is_ok(), passes.contains(&kind), "{kind}");
        assert_eq!(
            inner.seen().len(),
            if answer.is_ok() { 2 } else { 1 },
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_counted_and_the_last_error_is_told() {
    for retries in [0, 1, 3] {
        let inner = faulty(std::iter::repeat_n(Fault::Fail(ErrorKind::Unavailable), 9)).await;
        let store = Retry::new(retries).over(inner.clone());
        let error = store
            .get(&path("a"), &get())
            .await
            .expect_err("keeps failing");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(inner.seen().len() as u32, retries + 1);
    }
}

/// 100 ms, 200 ms, 400 ms … 5 s, 5 s are the ceilings; below them every wait is as likely.
#[tokio::test(start_paused = true)]
async fn waits_are_random_below_a_ceiling_that_doubles() {
    let mut totals = HashSet::new();
    let mut longest = Duration::ZERO;
    let mut sum = Duration::ZERO;
    for _ in 0..200 {
        let inner = faulty(std::iter::repeat_n(Fault::Fail(ErrorKind::Unavailable), 9)).await;
        let start = Instant::now();
        let answer = Retry::new(3).over(inner).get(&path("a"), &get()).await;
        answer.expect_err("keeps failing");
        totals.insert(start.elapsed());
        longest = longest.max(start.elapsed());
        sum += start.elapsed();
    }
    // 700 ms is the sum of the ceilings, and tokio's clock rounds each wait up by at most 1 ms.
    assert!(longest <= Duration::from_millis(703), "{longest:?}");
    // Uniform waits have a mean of half the ceilings and, of 200, a standard error of 9 ms.
    let mean = sum / 200;
    let expected = Duration::from_millis(351);
    assert!(
        mean.abs_diff(expected) < Duration::from_millis(54),
        "{mean:?}"
    );
    assert!(totals.len() > 50, "{} different waits of 200", totals.len());
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_longer_than_the_last_ceiling() {
    let inner = faulty(std::iter::repeat_n(Fault::Fail(ErrorKind::Unavailable), 50)).await;
    let start = Instant::now();
    let answer = Retry::new(40)
        .over(inner.clone())
        .get(&path("a"), &get())
        .await;
    answer.expect_err("keeps failing");
    assert_eq!(inner.seen().len(), 41);
    assert!(
        start.elapsed() <= 40 * Duration::from_millis(5001),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_asks_to_be_left_alone_is() {
    let inner = faulty([Fault::FailFor(ErrorKind::RateLimited, 7 * SECOND)]).await;
    let start = Instant::now();
    let answer = Retry::new(3).over(inner).get(&path("a"), &get()).await;
    answer.expect("passes");
    let waited = start.elapsed();
    let most = 7 * SECOND + Duration::from_millis(101);
    assert!(waited >= 7 * SECOND && waited <= most, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_too_long_fails_at_once() {
    let inner = faulty([Fault::FailFor(ErrorKind::RateLimited, 3600 * SECOND)]).await;
    let start = Instant::now();
    let error = Retry::new(3)
        .over(inner)
        .get(&path("a"), &get())
        .await
        .expect_err("not now");
    assert_eq!(error.retry_after(), Some(3600 * SECOND));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn no_wait_goes_past_the_deadline_of_the_request() {
    let inner = faulty([Fault::FailFor(ErrorKind::RateLimited, 7 * SECOND)]).await;
    let start = Instant::now();
    let options = get().request(until(start + 6 * SECOND));
    let store = Retry::new(3).over(inner.clone());
    let error = store.get(&path("a"), &options).await.expect_err("no time");
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(inner.seen().len(), 1);

    // The control: with two seconds more there is time.
    let inner = faulty([Fault::FailFor(ErrorKind::RateLimited, 7 * SECOND)]).await;
    let options = get().request(until(start + 8 * SECOND));
    Retry::new(3)
        .over(inner)
        .get(&path("a"), &options)
        .await
        .expect("in time");
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_is_no_false_already_exists() {
    let inner = faulty([Fault::LoseAnswer(ErrorKind::Timeout)]).await;
    let store = Retry::new(3).over(inner.clone());
    store
        .put(&path("new"), &value(), &create())
        .await
        .expect("recognised");
    let seen = inner.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].idempotency.is_some());
    assert_eq!(seen[0].idempotency, seen[1].idempotency);
    let secret = store.get(&path("new"), &get()).await.expect("there");
    assert_eq!(secret.value.expose(), CANARY);

    let inner = faulty([Fault::LoseAnswer(ErrorKind::Unavailable)]).await;
    let store = Retry::new(3).over(inner.clone());
    let made = store
        .generate(&path("new"), &Recipe::default(), &create())
        .await;
    let secret = store.get(&path("new"), &get()).await.expect("there");
    assert_eq!(made.expect("recognised").version, secret.metadata.version);
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_answer_was_lost_is_no_false_conflict() {
    let inner = faulty([Fault::None, Fault::LoseAnswer(ErrorKind::Timeout)]).await;
    let store = Retry::new(3).over(inner.clone());
    let version = store.stat(&path("a"), &get()).await.expect("there").version;
    let options = PutOptions::default().mode(PutMode::Update(version.expect("a version")));
    store
        .put(&path("a"), &value(), &options)
        .await
        .expect("recognised");
    assert_eq!(inner.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_idempotency_id_is_kept() {
    let inner = faulty([Fault::Fail(ErrorKind::Unavailable)]).await;
    let id = IdempotencyId::random().expect("randomness");
    let options = create().idempotency(Some(id));
    let store = Retry::new(3).over(inner.clone());
    store
        .put(&path("new"), &value(), &options)
        .await
        .expect("passes");
    assert!(inner.seen().iter().all(|seen| seen.idempotency == Some(id)));
}

#[tokio::test(start_paused = true)]
async fn writes_that_would_not_be_recognised_are_not_repeated() {
    // Overwrite, anywhere.
    let inner = faulty([Fault::Fail(ErrorKind::Unavailable)]).await;
    let store = Retry::new(3).over(inner.clone());
    let id = IdempotencyId::random().expect("randomness");
    let options = PutOptions::default().idempotency(Some(id));
    let error = store
        .put(&path("a"), &value(), &options)
        .await
        .expect_err("not repeated");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(inner.seen().len(), 1);

    // Create, where the store does not know idempotency ids.
    let memory =
        MemoryStore::new("site").with_capabilities(Capability::all() - Capability::IDEMPOTENT);
    let inner = FaultStore::new(
        Arc::new(memory),
        [Fault::LoseAnswer(ErrorKind::Unavailable)],
    );
    let store = Retry::new(3).over(inner.clone());
    let error = store
        .put(&path("new"), &value(), &create())
        .await
        .expect_err("not repeated");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "and no AlreadyExists");
    assert_eq!(inner.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn delete_stat_list_and_probe_are_repeated() {
    let fault = || faulty([Fault::LoseAnswer(ErrorKind::Unavailable)]);
    let over = |inner| Retry::new(1).over(inner);
    over(fault().await)
        .stat(&path("a"), &get())
        .await
        .expect("passes");
    over(fault().await).probe().await.expect("passes");
    let store = over(fault().await);
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await
        .expect("passes");
    assert_eq!(page.secrets, ["a", "b", "c"].map(path));
    let inner = fault().await;
    over(inner.clone())
        .delete(&path("a"), &DeleteOptions::default())
        .await
        .expect("passes");
    assert_eq!(inner.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_many_only_what_failed_for_a_passing_reason_is_asked_again() {
    let inner = faulty([
        Fault::Half(vec![0, 3], ErrorKind::Unavailable),
        Fault::Half(vec![1], ErrorKind::Timeout),
    ])
    .await;
    let store = Retry::new(3).over(inner.clone());
    let paths = ["a", "absent", "b", "c", "a"].map(path);
    let answers = store.get_many(&paths, &get()).await;
    let kinds: Vec<_> = answers
        .iter()
        .map(|a| a.as_ref().err().map(|e| e.kind()))
        .collect();
    assert_eq!(kinds, [None, Some(ErrorKind::NotFound), None, None, None]);
    let asked: Vec<_> = inner.seen().iter().map(|seen| seen.paths).collect();
    assert_eq!(asked, [5, 2, 1]);

    let inner = faulty(std::iter::repeat_n(
        Fault::Half(vec![0], ErrorKind::Unavailable),
        9,
    ))
    .await;
    let answers = Retry::new(2)
        .over(inner.clone())
        .get_many(&["a", "b"].map(path), &get())
        .await;
    assert!(answers[0].is_err() && answers[1].is_ok());
    let asked: Vec<_> = inner.seen().iter().map(|seen| seen.paths).collect();
    assert_eq!(asked, [2, 1, 1]);
}
