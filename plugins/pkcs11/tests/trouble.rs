//! What tokens do that a file never does: PINs that lock, tokens that are taken out, sessions that
//! run out, calls that do not return.

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyhaul_core::registry::Value;
use keyhaul_core::{Capability, ErrorKind, GetOptions, PutOptions, Request};
use support::{Hsm, PIN, impatient, in_own_process, layered, path, secret, text};

#[tokio::test]
async fn a_wrong_pin_is_tried_once() {
    if !in_own_process("a_wrong_pin_is_tried_once") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    hsm.set_pin("wrong");
    // Two names for one token, as a policy may have them.
    let stores = [layered(hsm.store()), layered(hsm.store())];
    let [store, _] = &stores;
    let (a, options) = (path("a"), GetOptions::default());
    for came in join_all((0..20).map(|n| stores[n % 2].get(&a, &options))).await {
        let error = came.expect_err("the PIN is wrong");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(
            error
                .advice()
                .is_some_and(|advice| advice.contains("file:"))
        );
        assert!(!format!("{error:?}").contains("wrong\""));
    }
    let error = store.probe().await.expect_err("the PIN is still wrong");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert_eq!(hsm.calls("C_Login"), 1);

    hsm.set_pin(PIN);
    store.probe().await.expect("the PIN is right");
    assert_eq!(hsm.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_wrong_pin_of_one_store_is_not_tried_for_another_in_turn() {
    if !in_own_process("a_wrong_pin_of_one_store_is_not_tried_for_another_in_turn") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    hsm.set_pin("wrong");
    let one = hsm.store();
    let other = hsm.store_with(&[("pin", text("env:KEYHAUL_TEST_PIN"))]);
    // The other's is missing: that is no try.
    let error = other.probe().await.expect_err("no PIN at all");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert_eq!(hsm.calls("C_Login"), 0);
    for wrong in ["wrong", "worse", "wrong", "worse"] {
        hsm.set_pin(wrong);
        let error = one.probe().await.expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    }
    // Each of them once, although they came in turn.
    assert_eq!(hsm.calls("C_Login"), 2);
}

#[tokio::test]
async fn no_pin_is_tried_where_the_token_could_lock() {
    if !in_own_process("no_pin_is_tried_where_the_token_could_lock") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = layered(hsm.store());
    for trouble in ["final-try", "locked"] {
        hsm.trouble(trouble);
        let error = store.probe().await.expect_err(trouble);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert_eq!(hsm.calls("C_Login"), 0);
    }
    hsm.trouble("");
    store.probe().await.expect("nothing in the way");
    assert_eq!(hsm.calls("C_Login"), 1);
}

#[tokio::test]
async fn a_token_that_was_taken_out_is_used_again_once_it_is_back() {
    if !in_own_process("a_token_that_was_taken_out_is_used_again_once_it_is_back") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = hsm.store();
    let (a, options) = (path("a"), GetOptions::default());
    store
        .put(&a, &secret("value"), &PutOptions::default())
        .await
        .expect("put");
    hsm.trouble("removed");
    for _ in 0..2 {
        let error = store.get(&a, &options).await.expect_err("taken out");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let error = store.capabilities().await.expect_err("taken out");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    hsm.trouble("");
    let came = store.get(&a, &options).await.expect("put in again");
    assert_eq!(came.value.expose(), b"value");
    assert_eq!(hsm.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_read_only_token_is_read_and_says_that_it_takes_no_writes() {
    if !in_own_process("a_read_only_token_is_read_and_says_that_it_takes_no_writes") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = hsm.store();
    let (a, value, put) = (path("a"), secret("value"), PutOptions::default());
    store.put(&a, &value, &put).await.expect("put");
    let can = store.capabilities().await.expect("told").can;
    assert!(can.contains(Capability::WRITE));

    hsm.trouble("read-only");
    let can = store.capabilities().await.expect("told").can;
    assert_eq!(can, Capability::READ | Capability::LIST);
    let error = store.put(&a, &secret("other"), &put).await;
    let error = error.expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let error = store.delete(&a, &Default::default()).await;
    let error = error.expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let came = store.get(&a, &GetOptions::default()).await.expect("read");
    assert_eq!(came.value.expose(), b"value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_with_few_sessions_serves_many_requests() {
    if !in_own_process("a_token_with_few_sessions_serves_many_requests") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    hsm.trouble("two-sessions");
    let store = hsm.store();
    let (a, options) = (path("a"), GetOptions::default());
    store
        .put(&a, &secret("value"), &PutOptions::default())
        .await
        .expect("put");
    for came in join_all((0..200).map(|_| store.get(&a, &options))).await {
        assert_eq!(came.expect("read").value.expose(), b"value");
    }
    assert_eq!(hsm.calls("C_Login"), 1);
    // The control: a third session was wanted, and refused.
    assert!(hsm.calls("C_OpenSession") > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_that_hangs_costs_its_thread() {
    if !in_own_process("a_read_that_hangs_costs_its_thread") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = hsm.store_with(&[("sessions", Value::Integer(2))]);
    let (a, options) = (path("a"), GetOptions::default());
    store
        .put(&a, &secret("value"), &PutOptions::default())
        .await
        .expect("put");
    let before = hsm.calls("C_FindObjectsInit");
    hsm.trouble("hang");
    let store = impatient(store, Duration::from_millis(300));
    let error = store.get(&a, &options).await.expect_err("hangs");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // A thread is left for what does not search.
    store.probe().await.expect("the token is there");
    for _ in 0..5 {
        let error = store.get(&a, &options).await.expect_err("hangs");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    // Two threads, two calls: the others waited for their turn and were never made.
    assert_eq!(hsm.calls("C_FindObjectsInit") - before, 2);
    hsm.trouble("");
    // The limit of an attempt is short for what was kept waiting.
    let came = keyhaul_core::layers::Retry::new(10);
    let store = keyhaul_core::layers::Layer::over(came, store);
    let came = store.get(&a, &options).await.expect("goes on");
    assert_eq!(came.value.expose(), b"value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_that_hangs_is_made_once() {
    if !in_own_process("a_login_that_hangs_is_made_once") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    hsm.trouble("hang-login");
    let store = impatient(hsm.store(), Duration::from_millis(200));
    let (a, options) = (path("a"), GetOptions::default());
    for came in join_all((0..20).map(|_| store.get(&a, &options))).await {
        assert_eq!(came.expect_err("hangs").kind(), ErrorKind::Timeout);
    }
    assert_eq!(hsm.calls("C_Login"), 1);
    hsm.trouble("");
    let again = keyhaul_core::layers::Retry::new(20);
    let store = keyhaul_core::layers::Layer::over(again, store);
    let error = store.get(&a, &options).await.expect_err("nothing there");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(hsm.calls("C_Login"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_go_on_beside_a_read_that_hangs_and_its_answer_counts_for_nothing() {
    if !in_own_process("writes_go_on_beside_a_read_that_hangs_and_its_answer_counts_for_nothing") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let stores = [hsm.store(), hsm.store()];
    let [store, other] = &stores;
    let (a, put) = (path("a"), PutOptions::default());
    store.put(&a, &secret("first"), &put).await.expect("put");
    hsm.trouble("hang-value");
    let (reader, of_a) = (store.clone(), a.clone());
    let reading = tokio::spawn(async move { reader.get(&of_a, &GetOptions::default()).await });
    called(&hsm, "CKA_VALUE", 1).await;
    // Of another store of the library, and of the same.
    other.put(&a, &secret("second"), &put).await.expect("put");
    store.put(&a, &secret("third"), &put).await.expect("put");
    assert!(!reading.is_finished());
    hsm.trouble("");
    let error = reading.await.expect("ended").expect_err("overtaken");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let came = store.get(&a, &GetOptions::default()).await.expect("read");
    assert_eq!(came.value.expose(), b"third");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_whose_opening_hangs_does_not_hold_up_those_that_are_open() {
    if !in_own_process("a_session_whose_opening_hangs_does_not_hold_up_those_that_are_open") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = hsm.store();
    let (a, options) = (path("a"), GetOptions::default());
    store
        .put(&a, &secret("value"), &PutOptions::default())
        .await
        .expect("put");
    let before = hsm.calls("C_OpenSession");
    hsm.trouble("hang-value hang-open");
    let get = || {
        let (store, a) = (store.clone(), a.clone());
        tokio::spawn(async move { store.get(&a, &GetOptions::default()).await })
    };
    let inside = get();
    called(&hsm, "CKA_VALUE", 1).await;
    let entering = get();
    called(&hsm, "C_OpenSession", before + 1).await;
    hsm.trouble("hang-open");
    let came = inside.await.expect("ended").expect("read");
    assert_eq!(came.value.expose(), b"value");
    assert!(!entering.is_finished());
    hsm.trouble("");
    entering.await.expect("ended").expect("read");
    store.get(&a, &options).await.expect("read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_link_to_a_library_leads_to_the_same_gate() {
    if !in_own_process("a_link_to_a_library_leads_to_the_same_gate") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let link = hsm.module().with_file_name("link.so");
    std::os::unix::fs::symlink(hsm.module(), &link).expect("a link");
    hsm.trouble("hang-login");
    let (store, linked) = (
        hsm.store(),
        hsm.store_with(&[("module", text(&link.to_string_lossy()))]),
    );
    let logging_in = tokio::spawn(async move { store.probe().await });
    called(&hsm, "C_Login", 1).await;
    let before = hsm.calls("C_OpenSession");
    let hasty = impatient(linked.clone(), Duration::from_millis(300));
    let error = hasty.probe().await.expect_err("another is at the door");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // Through a gate of its own it would have come so far.
    assert_eq!(hsm.calls("C_OpenSession"), before);
    hsm.trouble("");
    logging_in.await.expect("ended").expect("logged in");
    linked.probe().await.expect("at the door, then");
    assert!(hsm.calls("C_OpenSession") > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_nobody_waits_for_any_more_is_not_made() {
    if !in_own_process("a_change_that_nobody_waits_for_any_more_is_not_made") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = hsm.store();
    let (a, put) = (path("a"), PutOptions::default());
    store.put(&a, &secret("first"), &put).await.expect("put");

    // Whoever asked has gone.
    let hasty = impatient(store.clone(), Duration::from_millis(200));
    hsm.trouble("hang");
    let error = hasty.put(&a, &secret("late"), &put).await;
    assert_eq!(error.expect_err("hangs").kind(), ErrorKind::Timeout);
    let error = hasty.delete(&a, &Default::default()).await;
    assert_eq!(error.expect_err("hangs").kind(), ErrorKind::Timeout);
    hsm.trouble("");
    // Those are at the gate before it.
    let came = store.get(&a, &GetOptions::default()).await.expect("read");
    assert_eq!(came.value.expose(), b"first");
    assert_eq!(hsm.calls("C_CreateObject"), 1);

    // Whoever asked is there still, and their time is up.
    let searches = hsm.calls("C_FindObjectsInit");
    let until = Instant::now() + Duration::from_millis(100);
    let late = put
        .clone()
        .request(Request::default().deadline(Some(until)));
    hsm.trouble("hang");
    let (writer, of_a) = (store.clone(), a.clone());
    let writing = tokio::spawn(async move { writer.put(&of_a, &secret("late"), &late).await });
    called(&hsm, "C_FindObjectsInit", searches + 1).await;
    tokio::time::sleep_until(until.into()).await;
    hsm.trouble("");
    let error = writing.await.expect("ended").expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let came = store.get(&a, &GetOptions::default()).await.expect("read");
    assert_eq!(came.value.expose(), b"first");
    // The control: whose time is not up, writes.
    let later = Instant::now() + Duration::from_secs(60);
    let put = put.request(Request::default().deadline(Some(later)));
    store.put(&a, &secret("second"), &put).await.expect("put");
    assert_eq!(hsm.calls("C_CreateObject"), 2);
}

/// Until a function of the library was called so often.
async fn called(hsm: &Hsm, function: &str, times: usize) {
    let waits = async {
        while hsm.calls(function) < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let limit = Duration::from_secs(20);
    let came = tokio::time::timeout(limit, waits).await;
    came.unwrap_or_else(|_| panic!("{function} is not called"));
}
