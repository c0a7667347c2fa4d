//! What a plugin sees of the host, and in which orders it may answer.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use keyhaul_core::copy::{CopyOptions, copy};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    ErrorKind, GetOptions, ListOptions, MemoryStore, PutMode, PutOptions, Recipe, Request, Result,
    Secret, SecretBytes, SecretPath, SecretStore, SecretStoreExt as _, Version,
};
use support::Place;

/// Python with the protocol's first words, what the tests' plugins do below.
const PYTHON: &str = r#"#!/usr/bin/env python3
import base64, json, sys, time
def say(**words): print(json.dumps(words), flush=True)
seen = open(sys.argv[0] + ".seen", "w", buffering=1)
def requests():
    for line in sys.stdin:
        seen.write(line)
        yield json.loads(line)
hello = next(requests())
def begin(**more): say(keyhaul=1, name="test", version="1", capabilities=CAN.split(), **more)
"#;

struct Plugin {
    place: Place,
    store: Arc<dyn SecretStore>,
}

impl Plugin {
    fn new(can: &str, body: &str) -> Self {
        let place = Place::new();
        let program = place.program("plugin", &format!("{PYTHON}CAN = {can:?}\n{body}"));
        let store = place.store(&program, &[]);
        Self { place, store }
    }

    async fn get(&self, path: &str) -> Result<Secret> {
        self.store.get(&path_of(path), &GetOptions::default()).await
    }

    /// The lines that it saw after the hello.
    fn seen(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.path().join("plugin.seen"));
        let text = text.expect("it ran");
        text.lines().skip(1).map(str::to_owned).collect()
    }
}

fn path_of(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("proc").count()
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let plugin = Plugin::new(
        "read",
        "begin()\nheld = []\nfor request in requests():\n    held.append(request)\n    if len(held) == 8:\n        \
         for r in reversed(held): say(id=r['id'], value=r['path'])\n",
    );
    let paths: Vec<_> = (0..8).map(|n| format!("p{n}")).collect();
    let answers = join_all(paths.iter().map(|path| plugin.get(path))).await;
    for (path, answer) in paths.iter().zip(answers) {
        assert_eq!(answer.expect("answered").value.expose(), path.as_bytes());
    }
}

#[tokio::test]
async fn a_thousand_gets_at_once_start_no_threads_and_come_to_the_plugin_by_and_by() {
    let plugin = Plugin::new(
        "read",
        "begin()\nfor request in requests(): say(id=request['id'], value=request['path'])\n",
    );
    plugin.get("first").await.expect("served");
    let before = threads();
    let paths: Vec<_> = (0..1000).map(|n| format!("p{n}")).collect();
    let gets = join_all(paths.iter().map(|path| plugin.get(path)));
    let answers = gets.await;
    assert!(
        threads() <= before,
        "{} threads, {before} before",
        threads()
    );
    for (path, answer) in paths.iter().zip(answers) {
        assert_eq!(answer.expect("answered").value.expose(), path.as_bytes());
    }
    assert_eq!(plugin.seen().len(), 1001);
}

#[tokio::test]
async fn batches_go_to_plugins_that_take_them_and_to_no_others() {
    let body = "for request in requests():\n    for i, path in enumerate(request.get('paths', [request.get('path')])):\n        \
        more = {'index': i} if 'paths' in request else {}\n        \
        answer = {'error': {'kind': 'not-found', 'message': 'none'}} if path == 'none' else {'value': path}\n        \
        say(id=request['id'], **more, **answer)\n";
    let paths: Vec<_> = ["a", "none", "b", "c", "a"].map(path_of).into();
    for (begin, requests) in [("begin(batch=2)\n", 3), ("begin()\n", 5)] {
        let plugin = Plugin::new("read", &format!("{begin}{body}"));
        let answers = plugin.store.get_many(&paths, &GetOptions::default()).await;
        assert_eq!(answers.len(), 5);
        for (path, answer) in paths.iter().zip(answers) {
            match answer {
                Ok(secret) => assert_eq!(secret.value.expose(), path.as_str().as_bytes()),
                Err(error) => {
                    assert_eq!((path.as_str(), error.kind()), ("none", ErrorKind::NotFound));
                }
            }
        }
        let seen = plugin.seen();
        let batches = seen.iter().filter(|line| line.contains("get-many")).count();
        assert_eq!(seen.len(), requests, "{seen:?}");
        assert_eq!(batches, if requests == 3 { 3 } else { 0 });
    }
}

#[tokio::test]
async fn a_batch_can_be_refused_as_a_whole_and_must_be_answered_as_a_whole() {
    let paths: Vec<_> = ["a", "b"].map(path_of).into();
    for (body, kinds) in [
        (
            "say(id=r['id'], index=1, value='b'); say(id=r['id'], error={'kind': 'permission-denied'})",
            [Some(ErrorKind::PermissionDenied), None],
        ),
        ("say(id=r['id'], value='a')", [Some(ErrorKind::Internal); 2]),
        (
            "say(id=r['id'], index=2, value='a')",
            [Some(ErrorKind::Internal); 2],
        ),
        (
            "say(id=r['id'], index=0, value='a'); say(id=r['id'], index=0, value='a')",
            [Some(ErrorKind::Internal); 2],
        ),
    ] {
        let plugin = Plugin::new(
            "read",
            &format!("begin(batch=9)\nfor r in requests(): {body}\n"),
        );
        let answers = plugin.store.get_many(&paths, &GetOptions::default()).await;
        let came: Vec<_> = answers
            .iter()
            .map(|a| a.as_ref().err().map(|e| e.kind()))
            .collect();
        assert_eq!(came, kinds, "{body}: {answers:?}");
    }
}

/// Held against the document's own words.
#[tokio::test]
async fn every_request_has_the_words_of_the_document() {
    let plugin = Plugin::new(
        "read write create update delete list versions fields labels expiry idempotent generate",
        "begin()\nfor request in requests(): say(id=request['id'], value='', metadata={'version': '7'})\n",
    );
    let store = &plugin.store;
    let path = path_of("web01/a \"quoted\" \\ path");
    let request = Request::default()
        .id(Some("r-1".into()))
        .actor(Some("root".into()));
    let version = Version::new("3").expect("a version");
    let get = GetOptions::default()
        .request(request)
        .version(Some(version.clone()));
    store
        .get(&path, &get.expired(true))
        .await
        .expect("answered");
    let put = PutOptions::default()
        .mode(PutMode::Update(version))
        .labels([("owner".to_owned(), "me".to_owned())].into());
    let value = SecretBytes::copy_from(b"hunter2");
    let put = store.put(&path, &value, &put).await.expect("answered");
    assert_eq!(put.version.expect("told").as_str(), "7");
    let create = PutOptions::default().mode(PutMode::Create);
    let (path, recipe) = (path_of("a"), Recipe::default());
    let made = store.generate(&path, &recipe, &create).await;
    made.expect("answered");
    store
        .delete(&path_of("a"), &Default::default())
        .await
        .expect("answered");
    let list = ListOptions::default()
        .shallow(true)
        .limit(Some(10))
        .after(Some("z".into()));
    store
        .list(&SecretPath::root(), &list)
        .await
        .expect("answered");
    store.probe().await.expect("answered");
    let quoted = r"web01/a \u0022quoted\u0022 \u005c path";
    assert_eq!(
        plugin.seen(),
        [
            format!(r#"{{"id":1,"do":"get","path":"{quoted}","version":"3","expired":true,"request":"r-1","actor":"root"}}"#),
            format!(r#"{{"id":2,"do":"put","path":"{quoted}","mode":"update","version":"3","labels":{{"owner":"me"}},"base64":"aHVudGVyMg=="}}"#),
            r#"{"id":3,"do":"generate","path":"a","alphabet":"alphanumeric","length":32,"mode":"create"}"#.to_owned(),
            r#"{"id":4,"do":"delete","path":"a"}"#.to_owned(),
            r#"{"id":5,"do":"list","prefix":"","shallow":true,"limit":10,"after":"z"}"#.to_owned(),
            r#"{"id":6,"do":"probe"}"#.to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_listing_that_is_not_what_was_asked_for_is_corrupt() {
    for (answer, good) in [
        ("secrets=['p/a', 'p/b'], next='x'", true),
        ("secrets=['p/b', 'p/a']", false),
        ("secrets=['p/a', 'p/a']", false),
        ("secrets=['q/a']", false),
        ("secrets=['p/../a']", false),
        ("secrets=['p/a'], folders=['p/a']", false),
        ("secrets=['p/%d' % i for i in range(4)]", false),
        // Where it was asked to begin.
        ("secrets=['p/a', 'p/b'], next='w'", false),
        ("next='x'", false),
    ] {
        let plugin = Plugin::new(
            "list",
            &format!("begin()\nfor request in requests(): say(id=request['id'], {answer})\n"),
        );
        let options = ListOptions::default()
            .limit(Some(3))
            .after(Some("w".to_owned()));
        let page = plugin.store.list(&path_of("p"), &options).await;
        match good {
            true => assert_eq!(page.expect(answer).secrets.len(), 2),
            false => assert_eq!(page.expect_err(answer).kind(), ErrorKind::Corrupt),
        }
    }
}

#[tokio::test]
async fn a_listing_without_end_is_noticed_on_its_second_page() {
    for (pages, good) in [
        (
            "secrets=['p/%03d' % n], **({'next': str(n)} if n < 9 else {})",
            true,
        ),
        ("secrets=['p/a'], next=str(n)", false),
        ("secrets=['p/%03d' % (900 - n)], next=str(n)", false),
    ] {
        let plugin = Plugin::new(
            "read list",
            &format!(
                "begin()\nfor n, r in enumerate(requests()): say(id=r['id'], **(dict({pages}) if r['do'] == 'list' else {{'metadata': {{}}}}))\n"
            ),
        );
        let all = plugin.store.list_all(&path_of("p")).await;
        match good {
            true => assert_eq!(all.expect(pages).len(), 10),
            false => {
                assert_eq!(all.expect_err(pages).kind(), ErrorKind::Corrupt);
                assert_eq!(plugin.seen().len(), 2);
                // So is it where a store is copied.
                let target = Arc::new(MemoryStore::new("target"));
                let options = CopyOptions::new(path_of("p"), Request::default());
                let copied = copy(plugin.store.clone(), target, &options, |_, _| {}).await;
                assert_eq!(copied.expect_err(pages).kind(), ErrorKind::Corrupt);
            }
        }
    }
}

#[tokio::test]
async fn a_batch_asks_for_no_more_than_can_be_held() {
    let paths: Vec<_> = (0..300).map(|n| path_of(&format!("p{n}"))).collect();
    // At most 256 paths, and values of 16 MiB.
    for (max, requests) in [(1 << 20, 300_usize.div_ceil(16)), (1000, 2)] {
        let plugin = Plugin::new(
            "read",
            &format!(
                "begin(batch=999, **{{'max-value': {max}}})\nfor r in requests():\n    for i, p in enumerate(r['paths']): say(id=r['id'], index=i, value=p)\n"
            ),
        );
        let answers = plugin.store.get_many(&paths, &GetOptions::default()).await;
        for (path, answer) in paths.iter().zip(answers) {
            assert_eq!(
                answer.expect("there").value.expose(),
                path.as_str().as_bytes()
            );
        }
        assert_eq!(plugin.seen().len(), requests);
    }
}

/// A slip of the plugin's author costs that answer, names its key, and not the plugin.
#[tokio::test]
async fn a_slip_in_metadata_fails_its_own_request_with_its_name() {
    let plugin = Plugin::new(
        "read",
        "begin()\nfor r in requests(): say(id=r['id'], value='x', metadata=json.loads(r['path'].partition('/')[2]))\n",
    );
    for (metadata, key) in [
        (r#"{"created":"2026-01-31 12:00"}"#, Some("`created`")),
        (r#"{"labels":null}"#, None),
        (r#"{"version":7}"#, Some("`version`")),
        (r#"{"created":"2026-01-31T12:00:00Z"}"#, None),
    ] {
        match (key, plugin.get(&format!("p/{metadata}")).await) {
            (None, answer) => assert_eq!(answer.expect(metadata).value.expose(), b"x"),
            (Some(key), answer) => {
                let error = answer.expect_err(metadata);
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.message().contains(key), "{error}");
            }
        }
    }
    // All of one process, which has counted them.
    assert_eq!(plugin.seen().len(), 4);
}

#[tokio::test]
async fn a_plugin_that_goes_when_it_has_nothing_to_do_is_started_again_at_once() {
    let plugin = Plugin::new(
        "read",
        "begin()\nr = next(requests())\nsay(id=r['id'], value=str(time.time_ns()))\n",
    );
    let mut values = Vec::new();
    for _ in 0..4 {
        // Whether its end was noticed already is a matter of microseconds.
        let value = loop {
            match plugin.get("a").await {
                Ok(secret) => break secret.value.expose().to_vec(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                }
            }
        };
        assert!(!values.contains(&value));
        values.push(value);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program does not know where its options stand, and so each refusal would name no place.
#[tokio::test]
async fn what_is_wrong_before_a_program_serves_has_its_place_in_the_policy() {
    let place = Place::new();
    let pin = place.path().join("pin");
    std::fs::write(&pin, "1234").expect("written");
    let source = format!("file:{}", pin.display());
    let picky = r#"#!/bin/sh
read -r line
echo '{"keyhaul":1,"name":"picky","version":"1","capabilities":["read"],
"options":[{"name":"pin","kind":"credential"}]}' | tr -d '\n'
echo
read -r line
id=${line#*\"id\":} id=${id%%,*}
echo "{\"id\":$id,\"error\":{\"kind\":\"unauthenticated\",\"message\":\"a wrong PIN\"}}"
read -r line
"#;
    for (mode, text, kind, at) in [
        (0o600, picky, ErrorKind::Unauthenticated, "keyhaul.toml:3:1"),
        (
            0o644,
            picky,
            ErrorKind::PermissionDenied,
            "keyhaul.toml:3:1",
        ),
        (
            0o600,
            "#!/bin/sh\n",
            ErrorKind::Unavailable,
            "keyhaul.toml:1:1",
        ),
    ] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&pin, mode).expect("its mode");
        let program = place.program("picky", text);
        let options = Options::at("keyhaul.toml:3:1", [("pin", Value::from(&*source))]);
        let store = place.store_with(&program, [("options", options.into())]);
        let error = store.probe().await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(error.context().place.as_deref(), Some(at), "{error:?}");
    }
}
