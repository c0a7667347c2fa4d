//! Answers that other servers give: of which each is a server's right, or its fault.

mod support;

use std::time::Duration;

use keyhaul_core::registry::Value;
use keyhaul_core::{ErrorKind, SecretBytes, SecretPath, SecretStoreExt as _};
use support::scripted::{
    Reply, Stage, answer, described, got, hunter2, id, located, named, number,
};
use support::{delete, get, path, value};

const LOCATE: u32 = 0x08;
const GET: u32 = 0x0a;
const GET_ATTRIBUTES: u32 = 0x0b;
const DESTROY: u32 = 0x14;
const REGISTER: u32 = 0x03;
const MODIFY_ATTRIBUTE: u32 = 0x0e;
const DISCOVER_VERSIONS: u32 = 0x1e;

const PRE_ACTIVE: u32 = 1;
const DESTROYED: u32 = 5;

/// What is known of these objects of these names.
fn known(objects: &[(&str, &str, u32)]) -> Vec<u8> {
    let known = objects
        .iter()
        .map(|(id, name, state)| (GET_ATTRIBUTES, Ok(described(id, name, *state))));
    answer(&known.collect::<Vec<_>>())
}

/// Nothing is found, in either way.
fn nowhere() -> Vec<u8> {
    answer(&[(LOCATE, Ok(Vec::new())), (LOCATE, Ok(Vec::new()))])
}

fn refused(operation: u32, reason: u32) -> Vec<u8> {
    answer(&[(operation, Err(reason))])
}

#[tokio::test]
async fn what_follows_an_answer_is_not_taken_for_the_next() {
    // Nobody asked for the other object.
    let other = answer(&[(LOCATE, Ok(id("18")))]);
    let stage = Stage::giving(vec![
        located(),
        [got(), other].concat(),
        located(),
        got(),
        located(),
        got(),
    ])
    .await;
    for _ in 0..3 {
        assert_eq!(value(&*stage.store, "a").await, "hunter2");
    }
    assert_eq!(stage.server.requests(), 6);
    // One was dropped; the next was kept.
    assert_eq!(stage.server.connections(), 2);
}

/// What the last answer was lies in its buffers.
#[tokio::test]
async fn a_connection_that_nobody_uses_ends_by_itself() {
    let stage = Stage::giving(vec![located(), got(), located(), got()]).await;
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
    // The control: it is kept for a minute.
    pass(Duration::from_secs(50)).await;
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
    assert_eq!((stage.server.connections(), stage.server.ended()), (1, 0));
    pass(Duration::from_secs(61)).await;
    let gone = async {
        while stage.server.ended() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
    gone.expect("the connection ends");
}

/// Has this time go by at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_answer_about_another_object_is_none() {
    let about = |attributes, value| {
        answer(&[
            (GET_ATTRIBUTES, Ok(described(attributes, "a", PRE_ACTIVE))),
            (GET, Ok(hunter2(value))),
        ])
    };
    for (attributes, value) in [("18", "17"), ("17", "18"), ("18", "18")] {
        let stage = Stage::giving(vec![located(), about(attributes, value)]).await;
        let error = get(&*stage.store, "a").await.expect_err("another");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    let stage = Stage::giving(vec![located(), about("17", "17")]).await;
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
}

#[tokio::test]
async fn a_name_that_only_looks_like_it_is_another() {
    // A server that knows patterns, or no difference between `a` and `A`.
    for name in ["A", "ab", "x/a"] {
        let looked = answer(&[
            (GET_ATTRIBUTES, Ok(described("17", name, PRE_ACTIVE))),
            (GET, Ok(hunter2("17"))),
        ]);
        let stage = Stage::giving(vec![located(), looked]).await;
        let error = get(&*stage.store, "a").await.expect_err("another");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        // Nor is it destroyed: there is no third answer.
        let stage = Stage::giving(vec![named(), known(&[("17", name, PRE_ACTIVE)])]).await;
        let gone = delete(&*stage.store, "a").await;
        gone.expect("not there");
        assert_eq!(stage.server.requests(), 2);
    }
    // Beside the right one.
    let two = [id("16"), id("17")].concat();
    let stage = Stage::giving(vec![
        answer(&[(LOCATE, Ok(Vec::new()))]),
        answer(&[(LOCATE, Ok(two.clone()))]),
        answer(&[(LOCATE, Ok(two)), (LOCATE, Ok(Vec::new()))]),
        known(&[("16", "A", PRE_ACTIVE), ("17", "a", PRE_ACTIVE)]),
        got(),
    ])
    .await;
    assert_eq!(value(&*stage.store, "a").await, "hunter2");
}

#[tokio::test]
async fn what_another_destroyed_meanwhile_is_gone_and_deleting_it_succeeds() {
    let begin = || vec![named(), known(&[("17", "a", PRE_ACTIVE)])];
    for reason in [0x0b, 0x0c, 0x43] {
        let mut answers = begin();
        answers.push(refused(DESTROY, reason));
        answers.push(known(&[("17", "a", DESTROYED)]));
        let stage = Stage::giving(answers).await;
        let gone = delete(&*stage.store, "a").await;
        gone.unwrap_or_else(|error| panic!("{reason:#x}: {error:?}"));
        // The control: one that is still there was not deleted.
        let mut answers = begin();
        answers.push(refused(DESTROY, reason));
        answers.push(known(&[("17", "a", PRE_ACTIVE)]));
        let stage = Stage::giving(answers).await;
        let error = delete(&*stage.store, "a").await.expect_err("there");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    }
}

#[tokio::test]
async fn a_register_whose_answer_was_lost_has_written() {
    let begin = |found: Vec<u8>| {
        vec![
            nowhere(),
            refused(REGISTER, 7),
            refused(REGISTER, 7),
            answer(&[(LOCATE, Ok(found))]),
        ]
    };
    let a = SecretBytes::copy_from(b"hunter2");
    let put = async |answers| {
        let stage = Stage::giving(answers).await;
        stage.store.put(&path("a"), &a, &Default::default()).await
    };
    let mut answers = begin(id("18"));
    answers.push(answer(&[(LOCATE, Ok(Vec::new())), (LOCATE, Ok(id("18")))]));
    answers.push(answer(&[(MODIFY_ATTRIBUTE, Err(7))]));
    put(answers).await.expect("written");
    // The control: where it is not there, the field was invalid for something else.
    let error = put(begin(Vec::new())).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.message().contains("Invalid Field"), "{error:?}");
}

#[tokio::test]
async fn a_listing_that_the_server_cuts_is_gone_on_with_or_refused() {
    let version = |text: &str| [("version", Value::Text(text.into()))];
    let page = |ids: &[&str]| {
        let ids = ids.iter().flat_map(|each| id(each)).collect();
        answer(&[(LOCATE, Ok([number(0xd5, 2, 3), ids].concat()))])
    };
    let names = [("1", "a"), ("2", "b"), ("3", "c")];
    let names = names.map(|(id, name)| (id, name, PRE_ACTIVE));
    let answers = [page(&["1", "2"]), page(&["3"]), known(&names)];
    let script = |answers: Vec<Vec<u8>>| {
        move |number| {
            let answer: Option<&Vec<u8>> = answers.get(number);
            answer.cloned().map_or(Reply::Stall, Reply::Bytes)
        }
    };
    let stage = Stage::with(&version("1.3"), script(answers.to_vec())).await;
    let listed = stage.store.list_all(&SecretPath::root()).await;
    assert_eq!(listed.expect("listed"), [path("a"), path("b"), path("c")]);
    // One that does not go on, and one that cannot.
    let stuck = vec![page(&["1", "2"]), page(&[])];
    for (text, answers) in [("1.3", stuck), ("1.2", answers.to_vec())] {
        let stage = Stage::with(&version(text), script(answers)).await;
        let listed = stage.store.list_all(&SecretPath::root()).await;
        let error = listed.expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    }
    // The objects of one name.
    let cut = [number(0xd5, 2, 2), id("17")].concat();
    let cut = answer(&[(LOCATE, Ok(cut))]);
    let stage = Stage::giving(vec![cut]).await;
    let error = get(&*stage.store, "a").await.expect_err("cut");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
}

#[tokio::test]
async fn servers_that_call_nothing_found_an_error_are_understood() {
    let none = || refused(LOCATE, 1);
    let stage = Stage::giving(vec![none(), none()]).await;
    let error = get(&*stage.store, "a").await.expect_err("none");
    assert_eq!(error.message(), "no such secret");
    let stage = Stage::giving(vec![refused(LOCATE, 1)]).await;
    let listed = stage.store.list_all(&SecretPath::root()).await;
    assert!(listed.expect("none").is_empty());
}

#[tokio::test]
async fn a_server_of_another_version_is_told_from_others() {
    // By 11.1 an unknown version makes the message an invalid one.
    let stage = Stage::giving(vec![refused(DISCOVER_VERSIONS, 4)]).await;
    let error = stage.store.probe().await.expect_err("another version");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("`version`"))
    );
    // One that says none.
    let none = answer(&[(DISCOVER_VERSIONS, Ok(Vec::new()))]);
    let stage = Stage::giving(vec![none]).await;
    let error = stage.store.probe().await.expect_err("no version");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(
        error.message().ends_with("it does not say which it speaks"),
        "{error}"
    );
}
