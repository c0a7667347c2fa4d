//! What a server says, and what a client takes from it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use keyhaul_core::{
    ErrorKind, GetOptions, ListOptions, Request, SecretPath, SecretStore as _, Version,
};
use keyhaul_remote::protocol::{Outcome, ReadAnswer, ReadRequest, path as at};

use crate::keys::{Keys, json, problem};
use crate::path;
use crate::site::Site;
use crate::stage::{Asked, Said, Stage};

const READ: &str = "POST /v1/secrets/read";

fn keys() -> Keys {
    Keys::new()
        .with("web01/root", b"correct horse")
        .with("web01/data", b"battery staple")
}

/// Reads `web01/root` and `web01/data` from a service whose reads go through `spoil`.
async fn spoiled(
    spoil: impl Fn(&Keys, &ReadRequest, &Asked) -> ReadAnswer + Send + Sync + 'static,
) -> Vec<keyhaul_core::Result<keyhaul_core::Secret>> {
    let (site, keys) = (Site::new(), keys());
    let stage = Stage::new(site.tls(), move |asked| {
        let request = serde_json::from_slice(&asked.body).expect("a read");
        json(&spoil(&keys, &request, asked))
    })
    .await;
    let store = site.store(&[stage.address().to_string()]);
    let paths = [path("web01/root"), path("web01/data")];
    store.get_many(&paths, &GetOptions::default()).await
}

#[tokio::test]
async fn the_control_of_what_follows_is_read() {
    let answers = spoiled(|keys, request, asked| keys.read(request, &asked.client)).await;
    let values = answers
        .iter()
        .map(|answer| answer.as_ref().expect("read").value.expose());
    assert_eq!(
        values.collect::<Vec<_>>(),
        [&b"correct horse"[..], b"battery staple"]
    );
}

#[tokio::test]
async fn answers_that_were_sealed_for_something_else_are_corrupt() {
    let corrupt = |what: &str, answers: Vec<keyhaul_core::Result<keyhaul_core::Secret>>| {
        assert_eq!(answers.len(), 2);
        for answer in answers {
            assert_eq!(answer.expect_err(what).kind(), ErrorKind::Corrupt, "{what}");
        }
    };
    let swapped = spoiled(|keys, request, asked| {
        let mut answer = keys.read(request, &asked.client);
        answer.items.swap(0, 1);
        answer
    });
    corrupt("another item's", swapped.await);
    let others = spoiled(|keys, request, _| keys.read(request, &[9; 32]));
    corrupt("another client's", others.await);
    let older = spoiled(|keys, request, asked| {
        let mut request = request.clone();
        request.nonce = "AAAAAAAAAAAAAAAAAAAAAA==".into();
        keys.read(&request, &asked.client)
    });
    corrupt("another request's", older.await);
    let renamed = spoiled(|keys, request, asked| {
        let mut request = request.clone();
        request.items[0].secret = "web01/data".into();
        request.items[1].secret = "web01/root".into();
        keys.read(&request, &asked.client)
    });
    corrupt("another secret's", renamed.await);
    let salted = spoiled(|keys, request, asked| {
        let mut answer = keys.read(request, &asked.client);
        answer.salt = "AAAAAAAAAAAAAAAAAAAAAA==".into();
        answer
    });
    corrupt("another message's", salted.await);
    let fewer = spoiled(|keys, request, asked| {
        let mut answer = keys.read(request, &asked.client);
        answer.items.pop();
        answer
    });
    corrupt("fewer answers than questions", fewer.await);
    let keyless = spoiled(|keys, request, asked| {
        let mut answer = keys.read(request, &asked.client);
        answer.enc = "hello".into();
        answer
    });
    corrupt("no agreement", keyless.await);
}

#[tokio::test]
async fn a_replayed_answer_does_not_open() {
    let (site, keys) = (Site::new(), keys());
    let first: Mutex<Option<Vec<u8>>> = Mutex::default();
    let stage = Stage::new(site.tls(), move |asked| {
        let mut first = first.lock().expect("a lock");
        let replayed = first.get_or_insert_with(|| {
            let request = serde_json::from_slice(&asked.body).expect("a read");
            serde_json::to_vec(&keys.read(&request, &asked.client)).expect("JSON")
        });
        Said::Answer(200, "application/json", replayed.clone(), true)
    })
    .await;
    let store = site.store(&[stage.address().to_string()]);
    let get = || async { store.get(&path("web01/root"), &GetOptions::default()).await };
    assert_eq!(
        get().await.expect("the first").value.expose(),
        b"correct horse"
    );
    let error = get().await.expect_err("the same again");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(stage.asked(READ), 2);
}

#[tokio::test]
async fn a_hundred_are_one_request_and_three_hundred_two() {
    let (site, keys) = (Site::new(), Keys::new());
    let mut paths = Vec::new();
    for index in 0..300 {
        let name = format!("web01/s{index}");
        keys.lock()
            .values
            .insert(name.clone(), name.clone().into_bytes());
        paths.push(path(&name));
    }
    let stage = {
        let keys = keys.clone();
        Stage::new(site.tls(), move |asked| keys.answer(asked)).await
    };
    let store = site.store(&[stage.address().to_string()]);
    for (count, requests) in [(100, 1), (300, 3), (256, 4), (257, 6), (0, 6)] {
        let answers = store
            .get_many(&paths[..count], &GetOptions::default())
            .await;
        assert_eq!(answers.len(), count);
        for (answer, path) in answers.iter().zip(&paths) {
            let value = &answer.as_ref().expect("read").value;
            assert_eq!(value.expose(), path.as_str().as_bytes());
        }
        assert_eq!(stage.asked(READ), requests, "after {count}");
    }
}

#[tokio::test]
async fn what_had_no_room_among_others_is_asked_for_among_few_and_then_alone() {
    let (site, keys) = (Site::new(), Keys::new());
    keys.lock().room = 100;
    for index in 0..5 {
        keys.lock()
            .values
            .insert(format!("web01/s{index}"), vec![index; 60]);
    }
    keys.lock().values.insert("web01/long".into(), vec![7; 101]);
    let stage = {
        let keys = keys.clone();
        Stage::new(site.tls(), move |asked| keys.answer(asked)).await
    };
    let store = site.store(&[stage.address().to_string()]);
    let names = ["s0", "s1", "absent", "long", "s2", "not a name", "s3", "s4"];
    let paths = names.map(|name| path(&format!("web01/{name}")));
    let answers = store.get_many(&paths, &GetOptions::default()).await;
    for (answer, name) in answers.into_iter().zip(names) {
        match name {
            "absent" => assert_eq!(answer.expect_err(name).kind(), ErrorKind::NotFound),
            "long" => assert_eq!(answer.expect_err(name).kind(), ErrorKind::TooLarge),
            "not a name" => {
                assert_eq!(answer.expect_err(name).kind(), ErrorKind::InvalidReference);
            }
            name => {
                let expected = vec![name.as_bytes()[1] - b'0'; 60];
                assert_eq!(answer.expect(name).value.expose(), expected);
            }
        }
    }
    // One for all; one for s1, long, s2 and s3, of which s1 has room; one for s4; one each for the
    // three that are left.
    assert_eq!(stage.asked(READ), 6);
}

#[tokio::test]
async fn what_no_key_server_says_is_told_from_what_one_says() {
    let page = b"<html>hello</html>".to_vec();
    let cases: [(u16, &'static str, &[u8], ErrorKind); 8] = [
        (200, "text/html", &page, ErrorKind::Corrupt),
        (200, "application/json", &page, ErrorKind::Corrupt),
        (200, "application/json", b"{\"more\":1}", ErrorKind::Corrupt),
        (302, "text/html", &page, ErrorKind::Corrupt),
        (404, "text/html", &page, ErrorKind::Corrupt),
        (403, "application/json", b"{}", ErrorKind::Corrupt),
        (404, "application/problem+json", &page, ErrorKind::Corrupt),
        (503, "text/html", &page, ErrorKind::Unavailable),
    ];
    for (status, media, body, kind) in cases {
        let (site, body) = (Site::new(), body.to_vec());
        let stage = Stage::new(site.tls(), move |_| {
            Said::Answer(status, media, body.clone(), true)
        });
        let stage = stage.await;
        let address = stage.address().to_string();
        let store = site.store(std::slice::from_ref(&address));
        let error = store.probe().await.expect_err("nonsense");
        assert_eq!(error.kind(), kind, "{status} {media}");
        assert!(error.message().contains(&address), "{error}");
        assert!(!format!("{error:?}").contains("hello"), "{error:?}");
        assert_eq!(stage.requests(), ["GET /v1/service"]);
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    for announced in [true, false] {
        let site = Site::new();
        let stage = Stage::new(site.tls(), move |_| {
            Said::Answer(
                200,
                "application/json",
                vec![b' '; 33 * 1024 * 1024],
                announced,
            )
        })
        .await;
        let store = site.store(&[stage.address().to_string()]);
        let error = store.probe().await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
        assert!(error.message().contains(&stage.address().to_string()));
    }
}

#[tokio::test]
async fn a_problem_keeps_its_words_and_names_the_request() {
    let site = Site::new();
    let stage = Stage::new(site.tls(), |_| problem(ErrorKind::PermissionDenied, "no")).await;
    let service = site.service(&[stage.address().to_string()]);
    let error = service.service(&Request::default()).await.expect_err("no");
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::PermissionDenied, "no")
    );
    // Underneath, where no advice takes its place.
    assert!(format!("{error:?}").contains("request r-1"), "{error:?}");
    let address = stage.address().to_string();
    assert!(format!("{error:?}").contains(&address), "{error:?}");
}

#[tokio::test]
async fn a_request_says_who_asks_until_when_and_for_what() {
    let site = Site::new();
    let seen: &'static Mutex<Vec<(String, String, u64)>> = Box::leak(Box::default());
    let stage = Stage::new(site.tls(), |asked| {
        let header = |name: &str| {
            let value = asked.headers.get(name).expect("there");
            value.to_str().expect("text").to_owned()
        };
        let wait = header("keyhaul-timeout-ms").parse().expect("a number");
        let entry = (asked.target.clone(), header("x-request-id"), wait);
        seen.lock().expect("a lock").push(entry);
        problem(ErrorKind::NotFound, "nothing")
    })
    .await;
    let store = site.store(&[stage.address().to_string()]);
    let deadline = Instant::now() + Duration::from_secs(5);
    let request = Request::default()
        .id(Some("boot-7".into()))
        .deadline(Some(deadline));
    let version = Some(Version::new("3").expect("a version"));
    let get = GetOptions::default()
        .version(version)
        .request(request.clone());
    let _ = store
        .get(&path("web01/root"), &get)
        .await
        .expect_err("nothing");
    let list = ListOptions::default()
        .shallow(true)
        .limit(Some(5000))
        .after(Some("a&b".into()))
        .request(request.clone());
    let _ = store
        .list(&path("web01"), &list)
        .await
        .expect_err("nothing");
    let everything = ListOptions::default().request(request);
    let _ = store
        .list(&SecretPath::root(), &everything)
        .await
        .expect_err("nothing");
    let seen = seen.lock().expect("a lock");
    let targets: Vec<_> = seen.iter().map(|(target, ..)| target.as_str()).collect();
    let query = "/v1/secrets?prefix=web01&shallow=true&limit=1000&after=a%26b";
    assert_eq!(targets, [at::READ, query, at::SECRETS]);
    for (_, id, wait) in seen.iter() {
        assert!(id.starts_with("boot-7."), "{id}");
        assert!((1..=5000).contains(wait), "{wait}");
    }
    assert_ne!(seen[0].1, seen[1].1, "each has an id of its own");
}

#[tokio::test]
async fn a_problem_of_one_item_leaves_the_others() {
    let answers = spoiled(|keys, request, asked| {
        let mut answer = keys.read(request, &asked.client);
        let error = keyhaul_core::Error::new(ErrorKind::PermissionDenied, "not granted");
        let problem = keyhaul_remote::protocol::Problem::of(&error, None);
        answer.items[0] = Outcome::Problem { problem };
        answer
    })
    .await;
    let denied = answers[0].as_ref().expect_err("denied");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        answers[1].as_ref().expect("read").value.expose(),
        b"battery staple"
    );
}
