//! What each layer does, around a store that fails on purpose. The clock is tokio's, stopped: it
//! moves only when everything waits, so that times are exact.

mod common;

use common::{SECOND, create, faulty, get, path, until, value};
use keyhaul_conformance::Fault;
use keyhaul_core::layers::{self, Context, Deadline, Layer, LayerSettings, Timeout};
use keyhaul_core::{DeleteOptions, ErrorKind, ListOptions, Operation, Recipe, Request, SecretPath};
use tokio::time::Instant;

#[tokio::test]
async fn context_names_operation_path_and_store() {
    let faults = std::iter::repeat_n(Fault::Fail(ErrorKind::Corrupt), 7);
    let store = Context.over(faulty(faults).await);
    let (a, recipe) = (path("a"), Recipe::default());
    let errors = [
        (store.get(&a, &get()).await.err(), Some("a"), Operation::Get),
        (
            store.stat(&a, &get()).await.err(),
            Some("a"),
            Operation::Stat,
        ),
        (
            store.put(&a, &value(), &create()).await.err(),
            Some("a"),
            Operation::Put,
        ),
        (
            store.generate(&a, &recipe, &create()).await.err(),
            Some("a"),
            Operation::Generate,
        ),
        (
            store.delete(&a, &DeleteOptions::default()).await.err(),
            Some("a"),
            Operation::Delete,
        ),
        (
            store
                .list(&SecretPath::root(), &ListOptions::default())
                .await
                .err(),
            None,
            Operation::List,
        ),
        (store.probe().await.err(), None, Operation::Probe),
    ];
    for (error, path, operation) in errors {
        let error = error.expect("a fault");
        let context = error.context();
        assert_eq!(context.operation, Some(operation));
        assert_eq!(context.store.as_deref(), Some("site"), "{error}");
        assert_eq!(context.path.as_deref(), path, "{error}");
    }
}

#[tokio::test]
async fn context_names_the_path_of_each_of_many() {
    let store = Context.over(faulty([Fault::Half(vec![2], ErrorKind::Corrupt)]).await);
    let paths = ["absent", "a", "b"].map(path);
    let answers = store.get_many(&paths, &get()).await;
    for (answer, name) in [(&answers[0], "absent"), (&answers[2], "b")] {
        let error = answer.as_ref().expect_err("a fault");
        assert_eq!(error.context().path.as_deref(), Some(name));
    }
    assert!(answers[1].is_ok());
}

#[tokio::test(start_paused = true)]
async fn timeout_gives_up_in_time_and_drops_the_attempt() {
    let inner = faulty([Fault::Hang, Fault::Hang, Fault::Delay(2 * SECOND)]).await;
    let store = Timeout::new(3 * SECOND).over(inner.clone());
    let start = Instant::now();
    let error = store.get(&path("a"), &get()).await.expect_err("hangs");
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.context().path.as_deref(), Some("a"));
    assert_eq!(error.context().store.as_deref(), Some("site"));
    assert_eq!(inner.dropped(), 1);

    let answers = store.get_many(&["a", "b"].map(path), &get()).await;
    let named = |answer: &Result<_, keyhaul_core::Error>| {
        let error = answer.as_ref().err()?;
        Some((error.kind(), error.context().path.clone()?))
    };
    let named: Vec<_> = answers.iter().map(named).collect();
    let timed_out = |name: &str| Some((ErrorKind::Timeout, name.to_owned()));
    assert_eq!(named, [timed_out("a"), timed_out("b")]);
    assert_eq!(inner.dropped(), 2);

    // The control: what is slower, but not too slow, comes.
    store.get(&path("a"), &get()).await.expect("in time");
    assert_eq!(inner.dropped(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_total_and_the_sooner_of_two() {
    for (callers, expected) in [(None, 10), (Some(4), 4), (Some(20), 10)] {
        let inner = faulty([Fault::Hang]).await;
        let store = Deadline::new(10 * SECOND).over(inner.clone());
        let start = Instant::now();
        let request = callers.map_or(Request::default(), |s| until(start + s * SECOND));
        let error = store
            .get(&path("a"), &get().request(request))
            .await
            .expect_err("hangs");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.context().path.as_deref(), Some("a"));
        assert_eq!(start.elapsed().as_secs(), u64::from(expected));
        assert_eq!(inner.dropped(), 1);
        let seen = inner.seen()[0].request.deadline;
        assert_eq!(seen, Some((start + expected * SECOND).into_std()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_end_in_time_does_not_begin() {
    let inner = faulty([]).await;
    let store = Deadline::new(10 * SECOND).over(inner.clone());
    let options = get().request(until(Instant::now()));
    let error = store.get(&path("a"), &options).await.expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let answers = store.get_many(&["a", "b"].map(path), &options).await;
    assert!(
        answers
            .iter()
            .all(|a| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::Timeout))
    );
    assert!(inner.seen().is_empty());
    // `probe` carries no request and has the layer's own limit.
    store.probe().await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn the_stack_retries_what_hangs_until_the_deadline() {
    let mut settings = LayerSettings::default();
    // An attempt of 10 s, a wait of at most 100 ms, and the next.
    let inner = faulty([Fault::Hang]).await;
    let store = layers::standard(inner.clone(), &settings, None);
    let start = Instant::now();
    store
        .get(&path("a"), &get())
        .await
        .expect("the second attempt");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!((inner.seen().len(), inner.dropped()), (2, 1));

    let inner = faulty(std::iter::repeat_n(Fault::Hang, 9)).await;
    let store = layers::standard(inner.clone(), &settings, None);
    let start = Instant::now();
    let error = store.get(&path("a"), &get()).await.expect_err("hangs");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!((inner.seen().len(), inner.dropped()), (3, 3));

    settings.retries = 0;
    let inner = faulty([Fault::Hang]).await;
    let start = Instant::now();
    let answer = layers::standard(inner, &settings, None)
        .get(&path("a"), &get())
        .await;
    answer.expect_err("hangs");
    assert_eq!(start.elapsed().as_secs(), 10);
}
