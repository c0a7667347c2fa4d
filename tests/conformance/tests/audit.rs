//! The audit: what it records, and what fails where it cannot.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use common::{CANARY, faulty, path, value};
use keyhaul_conformance::Fault;
use keyhaul_core::layers::{
    self, Audit, AuditRecord, AuditSink, JsonLinesSink, Layer, LayerSettings,
};
use keyhaul_core::{
    DeleteOptions, Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Recipe, Request,
    Result, SecretPath, SecretStore,
};
use serde_json::Value;

/// Keeps the lines, and has no room for more than so many.
#[derive(Debug)]
struct Lines {
    room: usize,
    lines: Mutex<Vec<Value>>,
}

impl Lines {
    fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self {
            room,
            lines: Mutex::default(),
        })
    }

    fn all(&self) -> Vec<Value> {
        self.lines.lock().expect("no panic").clone()
    }
}

impl AuditSink for Lines {
    fn record(&self, record: &AuditRecord<'_>) -> Result<()> {
        let mut lines = self.lines.lock().expect("no panic");
        if lines.len() == self.room {
            return Err(Error::new(ErrorKind::StorageFull, "no room"));
        }
        // Debug is looked through as well as the JSON.
        assert!(!holds_canary(format!("{record:?}").as_bytes()));
        lines.push(serde_json::to_value(record).expect("JSON"));
        Ok(())
    }
}

fn holds_canary(text: &[u8]) -> bool {
    text.windows(8).any(|window| window == &CANARY[..8])
}

/// Each record's event, operation, path and outcome.
fn told(lines: &[Value]) -> Vec<String> {
    let field = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let keys = ["event", "operation", "path", "outcome"];
    lines
        .iter()
        .map(|line| keys.map(|key| field(line, key)).join(" "))
        .collect()
}

/// One request of every kind.
async fn ask_everything(store: &dyn SecretStore, request: &Request) {
    let get = GetOptions::default().request(request.clone());
    let put = PutOptions::default().request(request.clone());
    let create = put.clone().mode(PutMode::Create);
    let delete = DeleteOptions::default().request(request.clone());
    let list = ListOptions::default().request(request.clone());
    store.capabilities().await.expect("capabilities");
    store.get(&path("a"), &get).await.expect("get");
    store.stat(&path("absent"), &get).await.expect_err("stat");
    let many = store.get_many(&["b", "absent", "b"].map(path), &get).await;
    assert_eq!(many.iter().filter(|answer| answer.is_ok()).count(), 2);
    store.put(&path("a"), &value(), &put).await.expect("put");
    store
        .put(&path("a"), &value(), &create)
        .await
        .expect_err("create");
    let recipe = Recipe::default();
    store
        .generate(&path("new"), &recipe, &create)
        .await
        .expect("generate");
    store.delete(&path("new"), &delete).await.expect("delete");
    store.list(&SecretPath::root(), &list).await.expect("list");
    store.probe().await.expect("probe");
}

const EVERYTHING: &[&str] = &[
    "end get a ok",
    "end stat absent NotFound",
    "end get b ok",
    "end get absent NotFound",
    "end get b ok",
    "begin put a -",
    "end put a ok",
    "begin put a -",
    "end put a AlreadyExists",
    "begin generate new -",
    "end generate new ok",
    "begin delete new -",
    "end delete new ok",
    "end list  ok",
    "end probe - ok",
];

#[tokio::test]
async fn every_request_is_recorded_and_no_value() {
    let lines = Lines::with_room(100);
    let inner = faulty([]).await;
    let store = Audit::new(lines.clone()).over(inner.clone());
    let request = Request::default()
        .id(Some("req-1".into()))
        .actor(Some("node/host7".into()));
    ask_everything(&*store, &request).await;
    let lines = lines.all();
    assert_eq!(told(&lines), EVERYTHING);
    for line in &lines {
        assert_eq!(line["store"], "site");
        assert!(!holds_canary(line.to_string().as_bytes()), "{line}");
        assert_eq!(
            line["event"] == "begin",
            line["duration_us"].is_null(),
            "{line}"
        );
        // 2001-02-03T04:05:06.123456Z
        let time = line["time"].as_str().expect("a time");
        assert_eq!(
            (time.len(), &time[10..11], &time[19..20], &time[26..]),
            (27, "T", ".", "Z")
        );
        let keys: Vec<_> = line
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        let known = [
            "actor",
            "duration_us",
            "event",
            "operation",
            "outcome",
            "path",
            "request",
        ];
        let is_known =
            |key: &String| known.contains(&key.as_str()) || key == "store" || key == "time";
        assert!(keys.iter().all(is_known), "{keys:?}");
        if line["operation"] != "probe" {
            assert_eq!(line["actor"], "node/host7");
            assert_eq!(line["request"], "req-1");
        }
    }
    // The control: the look for the canary finds it where it is.
    assert!(holds_canary(
        format!("x{}", String::from_utf8_lossy(CANARY)).as_bytes()
    ));
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_that_the_store_sees() {
    let lines = Lines::with_room(100);
    let inner = faulty([]).await;
    let store = Audit::new(lines.clone()).over(inner.clone());
    for _ in 0..2 {
        store
            .get(&path("a"), &GetOptions::default())
            .await
            .expect("get");
    }
    let ids: Vec<_> = inner
        .seen()
        .iter()
        .map(|seen| seen.request.id.clone())
        .collect();
    assert_ne!(ids[0], ids[1]);
    for (line, id) in lines.all().iter().zip(&ids) {
        assert_eq!(line["request"].as_str(), id.as_deref());
        assert_eq!(id.as_deref().map(str::len), Some(16));
        let user = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
        assert_eq!(line["actor"], format!("uid:{}", user.expect("our own")));
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_as_it_begins_has_no_effect() {
    let inner = faulty([]).await;
    let store = Audit::new(Lines::with_room(0)).over(inner.clone());
    let put = PutOptions::default();
    let errors = [
        store.put(&path("new"), &value(), &put).await.map(|_| ()),
        store
            .generate(&path("new"), &Recipe::default(), &put)
            .await
            .map(|_| ()),
        store.delete(&path("a"), &DeleteOptions::default()).await,
    ];
    for answer in errors {
        let error = answer.expect_err("not recorded");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(
            error.message().contains("the store was not asked"),
            "{error}"
        );
        assert_eq!(error.context().store.as_deref(), Some("site"));
    }
    assert!(inner.seen().is_empty());
}

#[tokio::test]
async fn a_value_that_cannot_be_recorded_is_withheld() {
    let inner = faulty([]).await;
    let store = Audit::new(Lines::with_room(0)).over(inner.clone());
    let error = store
        .get(&path("a"), &GetOptions::default())
        .await
        .expect_err("withheld");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.message().contains("withheld"), "{error}");
    assert!(!holds_canary(format!("{error:?}").as_bytes()));

    // Of many, those are given that were recorded.
    let store = Audit::new(Lines::with_room(2)).over(inner);
    let answers = store
        .get_many(&["a", "b", "c"].map(path), &GetOptions::default())
        .await;
    let given: Vec<_> = answers.iter().map(|answer| answer.is_ok()).collect();
    assert_eq!(given, [true, true, false]);
}

#[tokio::test]
async fn a_change_whose_end_cannot_be_recorded_says_that_it_was_made() {
    let inner = faulty([]).await;
    let store = Audit::new(Lines::with_room(1)).over(inner.clone());
    let answer = store.delete(&path("a"), &DeleteOptions::default()).await;
    let error = answer.expect_err("not recorded");
    assert!(error.message().contains("the change was made"), "{error}");
    let gone = inner.get(&path("a"), &GetOptions::default()).await;
    assert_eq!(gone.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn one_question_is_one_record_however_often_it_is_tried() {
    let lines = Lines::with_room(100);
    let inner = faulty([Fault::Fail(ErrorKind::Unavailable), Fault::Hang]).await;
    let store = layers::standard(
        inner.clone(),
        &LayerSettings::default(),
        Some(lines.clone()),
    );
    store
        .get(&path("a"), &GetOptions::default())
        .await
        .expect("the third attempt");
    assert_eq!(inner.seen().len(), 3);
    assert_eq!(told(&lines.all()), ["end get a ok"]);
    // All attempts carry the id of the record.
    let id = lines.all()[0]["request"].as_str().map(str::to_owned);
    assert!(
        inner
            .seen()
            .iter()
            .all(|seen| seen.request.id.as_deref() == id.as_deref())
    );
}

#[tokio::test]
async fn the_file_holds_a_line_for_each_record() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("audit.jsonl");
    let sink = Arc::new(JsonLinesSink::open(&file).expect("opened"));
    let store = Audit::new(sink).over(faulty([]).await);
    ask_everything(&*store, &Request::default()).await;
    let text = fs::read(&file).expect("read");
    assert!(!holds_canary(&text));
    let text = String::from_utf8(text).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(told(&lines), EVERYTHING);
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}
