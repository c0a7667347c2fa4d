//! Plugins that do what no plugin may: the right error, and everything else goes on.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::layers::{CacheSettings, LayerSettings, standard};
use keyhaul_core::registry::Options;
use keyhaul_core::{
    Capability, Error, ErrorKind, GetOptions, ListOptions, Request, Result, Secret, SecretPath,
    SecretStore, SecretStoreExt as _,
};
use support::{Folder, hostile, open, options};

/// A hostile plugin's store, with nothing wrong with its table.
fn store(folder: &Folder) -> Arc<dyn SecretStore> {
    let path = hostile(folder, "libhostile.so", &[]);
    open("hostile", &path, Options::default()).expect("a store")
}

async fn get(store: &Arc<dyn SecretStore>, path: &str) -> Result<Vec<u8>> {
    let path = SecretPath::new(path).expect("valid");
    let secret = store.get(&path, &GetOptions::default()).await?;
    Ok(secret.value.expose().to_vec())
}

#[track_caller]
fn says(error: &Error, kind: ErrorKind, words: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.message().contains(words), "{error:?}");
}

#[tokio::test]
async fn a_table_that_is_wrong_is_refused_by_what_is_wrong_with_it() {
    let folder = Folder::new();
    let wrong = [
        ("-DTWEAK=table.head.magic=7", "magic 0x7"),
        ("-DTWEAK=table.head.major=2", "version 2.0 of the interface"),
        ("-DTWEAK=table.head.size=0", "0 bytes"),
        ("-DTWEAK=table.head.size=17", "17 bytes"),
        ("-DTWEAK=table.head.size=1<<20", "1048576 bytes"),
        ("-DANSWER=NULL", "refuses this host"),
        ("-DANSWER=(void*)64", "no memory"),
        ("-DANSWER=(void*)((char*)&table+1)", "where none can be"),
        ("-DTWEAK=table.open=NULL", "no function `open`"),
        ("-DTWEAK=table.close=NULL", "no function `close`"),
        (
            "-DTWEAK=table.capabilities=NULL",
            "no function `capabilities`",
        ),
        ("-DTWEAK=table.head.size=24", "no function `open`"),
        (
            "-DTWEAK=table.name.ptr=(void*)\"a\\xff\"",
            "name is no UTF-8",
        ),
        ("-DTWEAK=table.name.len=SIZE_MAX", "name is too long"),
        (
            "-DTWEAK=table.name.ptr=(void*)64",
            "name is where there is no memory",
        ),
        ("-DTWEAK=table.options_len=SIZE_MAX", "options; at most 256"),
        (
            "-DTWEAK=table.options=(void*)64",
            "option 0 is not in memory",
        ),
        ("-DTWEAK=table.options=NULL", "option 0 is not in memory"),
        ("-DTWEAK=options[0].kind=99", "unknown kind 99"),
    ];
    for (number, (flag, words)) in wrong.iter().enumerate() {
        let path = hostile(&folder, &format!("lib{number}.so"), &[flag]);
        let store = open("wrong", &path, Options::default()).expect("no I/O");
        let error = store.probe().await.expect_err(flag);
        says(&error, ErrorKind::Unsupported, words);
        let place = error.context().place.clone().unwrap_or_default();
        assert_eq!(place, path.display().to_string(), "{flag}");
    }
}

#[tokio::test]
async fn what_is_no_library_or_no_plugin_is_refused() {
    let folder = Folder::new();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").expect("written");
    let error = open("text", &text, Options::default())
        .expect("no I/O")
        .probe()
        .await;
    says(
        &error.expect_err("text"),
        ErrorKind::InvalidConfig,
        "no library",
    );
    let source = folder.path().join("other.c");
    std::fs::write(&source, "int other(void) { return 0; }\n").expect("written");
    let other = support::compile(&folder, "libother.so", &source, &[]);
    let error = open("other", &other, Options::default())
        .expect("no I/O")
        .probe()
        .await;
    says(
        &error.expect_err("other"),
        ErrorKind::InvalidConfig,
        "lacks keyhaul_plugin_entry",
    );
    // It stays loaded all the same, and no other library is taken for it.
    let store = store(&folder);
    assert_eq!(get(&store, "fine").await.expect("served"), b"fine");
}

/// Both ways that a version can differ and still be served.
#[tokio::test]
async fn a_longer_table_and_a_shorter_one_are_served() {
    let folder = Folder::new();
    let longer = "-DTWEAK=(table.head.minor=9,table.head.size=sizeof wide)";
    let path = hostile(&folder, "liblonger.so", &[longer]);
    let store = open("longer", &path, Options::default()).expect("a store");
    assert_eq!(get(&store, "fine").await.expect("served"), b"fine");
    let shorter = "-DTWEAK=table.head.size=offsetof(keyhaul_plugin,put)";
    let path = hostile(&folder, "libshorter.so", &[shorter]);
    let store = open("shorter", &path, Options::default()).expect("a store");
    assert_eq!(get(&store, "fine").await.expect("served"), b"fine");
    // The list that it has lies behind the end that it gives.
    let capabilities = store.capabilities().await.expect("told");
    assert_eq!(capabilities.can, Capability::READ);
    let listed = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await;
    says(
        &listed.expect_err("no list"),
        ErrorKind::Unsupported,
        "list",
    );
}

#[tokio::test]
async fn nonsense_is_the_right_error_and_the_next_call_is_served() {
    let folder = Folder::new();
    let store = store(&folder);
    let nonsense = [
        ("never", ErrorKind::Internal, "gave no value"),
        ("twice", ErrorKind::Internal, "gave a value twice"),
        ("value-and-error", ErrorKind::NotFound, "says no more"),
        ("length", ErrorKind::TooLarge, "18446744073709551615 bytes"),
        ("null", ErrorKind::Internal, "at no address"),
        ("status", ErrorKind::Internal, "status 77"),
        ("not-utf8", ErrorKind::Unavailable, "a\u{fffd}\u{fffd}[31mb"),
        ("pairs", ErrorKind::Internal, "no UTF-8"),
        ("many-pairs", ErrorKind::Internal, "at most 1000"),
        ("wrong-context", ErrorKind::Internal, "status 4"),
        ("unknown", ErrorKind::NotFound, "says no more"),
        ("nowhere/value", ErrorKind::Internal, "no memory"),
        ("nowhere/pairs", ErrorKind::Internal, "no memory"),
        (
            "nowhere/odd-pairs",
            ErrorKind::Internal,
            "1 pairs at 0x1001",
        ),
        ("nowhere/text", ErrorKind::Internal, "no memory"),
        ("nowhere/words", ErrorKind::Unavailable, "says no more"),
        ("patience", ErrorKind::RateLimited, "wait"),
    ];
    for (path, kind, words) in nonsense {
        let error = get(&store, path).await.expect_err(path);
        if path == "wrong-context" {
            // The plugin passed the refusal on.
            assert_eq!(error.kind(), kind, "{error:?}");
        } else {
            says(&error, kind, words);
        }
        assert!(!format!("{error:?}").contains("hunter2"));
        assert_eq!(
            get(&store, "fine").await.expect("served"),
            b"fine",
            "after {path}"
        );
    }
    // The status decides, and not what else was said.
    let served = get(&store, "words-and-value").await;
    assert_eq!(served.expect("served"), b"served");
    let error = get(&store, "long-words").await.expect_err("long");
    assert_eq!(
        error.message().chars().count(),
        1001,
        "cut, with a sign that it was"
    );
    let stat = store
        .stat(
            &SecretPath::new("a").expect("valid"),
            &GetOptions::default(),
        )
        .await;
    says(
        &stat.expect_err("nothing"),
        ErrorKind::Internal,
        "gave no metadata",
    );
}

#[tokio::test]
async fn listings_without_end_out_of_place_or_of_no_text_are_errors() {
    let folder = Folder::new();
    let store = store(&folder);
    for (prefix, words) in [
        ("endless", "more than 1000 entries"),
        ("outside", "does not lie below"),
        ("odd", "no UTF-8"),
        ("nowhere", "no memory"),
    ] {
        let prefix = SecretPath::new(prefix).expect("valid");
        let error = store
            .list(&prefix, &ListOptions::default())
            .await
            .expect_err("nonsense");
        says(&error, ErrorKind::Internal, words);
    }
    // A page of nothing that is followed by itself, and two pages of the same that follow each other.
    for prefix in ["circle", "turn"] {
        let prefix = SecretPath::new(prefix).expect("valid");
        let listed = tokio::time::timeout(Duration::from_secs(20), store.list_all(&prefix));
        let listed = listed.await.expect("an end");
        let error = listed.expect_err("no end");
        says(&error, ErrorKind::Internal, "there might be no end");
    }
    assert_eq!(get(&store, "fine").await.expect("served"), b"fine");
}

/// Numbers at the end of their range, through the layers that calculate with them.
#[tokio::test]
async fn times_beyond_all_are_waited_for_by_nobody_and_break_nothing() {
    let folder = Folder::new();
    let mut settings = LayerSettings::default();
    settings.cache = Some(CacheSettings::new(Duration::from_secs(60)));
    let store = standard(store(&folder), &settings, None);
    let began = Instant::now();
    let error = get(&store, "patience").await.expect_err("rate-limited");
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(began.elapsed() < Duration::from_secs(5), "waited");
    for _ in 0..2 {
        assert_eq!(get(&store, "lease").await.expect("lent"), b"lent");
    }
}

#[tokio::test]
async fn a_store_that_does_not_open_is_tried_anew_by_the_next_request() {
    let folder = Folder::new();
    let path = hostile(&folder, "libhostile.so", &[]);
    let store = open("odd-status", &path, Options::default()).expect("no I/O");
    for _ in 0..2 {
        let error = get(&store, "fine").await.expect_err("odd");
        says(&error, ErrorKind::Internal, "status 99");
        assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:1:1"));
    }
}

#[tokio::test]
async fn an_answer_after_the_end_or_from_another_thread_reaches_nothing() {
    let folder = Folder::new();
    let store = store(&folder);
    assert_eq!(get(&store, "keep").await.expect("served"), b"kept");
    // Until the sink has been tried on the thread that it was kept on, and on others.
    for _ in 0..50 {
        assert_eq!(get(&store, "late").await.expect("served"), b"refused");
        assert_eq!(get(&store, "thread").await.expect("served"), b"refused");
    }
}

#[tokio::test]
async fn capabilities_that_are_missing_or_beyond_all_are_cut_to_what_there_is() {
    let folder = Folder::new();
    let path = hostile(&folder, "libhostile.so", &[]);
    let silent = open("says-nothing", &path, Options::default()).expect("a store");
    let error = get(&silent, "fine")
        .await
        .expect_err("nobody knows what it can do");
    says(&error, ErrorKind::Internal, "gave no capabilities");
    let boaster = open("says-all", &path, Options::default()).expect("a store");
    let told = boaster.capabilities().await.expect("told");
    let functions = Capability::READ | Capability::LIST;
    let writes = Capability::WRITE | Capability::CREATE | Capability::UPDATE | Capability::DELETE;
    assert!(told.has(functions) && !told.can.intersects(writes | Capability::GENERATE));
    assert!(told.max_value <= 64 * 1024 * 1024);
}

/// A store whose hanging calls come back when the file `gate` is there, and one of another plugin.
struct Hanging {
    _folder: Folder,
    gate: PathBuf,
    store: Arc<dyn SecretStore>,
    other: Arc<dyn SecretStore>,
}

impl Hanging {
    fn new(name: &str) -> Self {
        let folder = Folder::new();
        let gate = folder.path().join("gate");
        let path = hostile(&folder, "libhostile.so", &[]);
        let given = options([("gate", gate.display().to_string().into())]);
        let other = folder.path().join("libother.so");
        std::fs::copy(&path, &other).expect("copied");
        Self {
            gate,
            store: open(name, &path, given).expect("a store"),
            other: open("other", &other, Options::default()).expect("a store"),
            _folder: folder,
        }
    }

    async fn hang(&self, ms: u64) -> Result<Secret> {
        let deadline = Instant::now() + Duration::from_millis(ms);
        let request = Request::default().deadline(Some(deadline));
        let path = SecretPath::new("hang").expect("valid");
        let options = GetOptions::default().request(request);
        let done = self.store.get(&path, &options).await;
        let late = deadline.elapsed();
        assert!(late < Duration::from_secs(5), "waited {late:?} too long");
        done
    }

    /// Hangs until the store is closed, which is not before eight calls do.
    async fn until_closed(&self) {
        for _ in 0..8 {
            let error = self.hang(30).await.expect_err("hangs");
            assert_eq!(error.kind(), ErrorKind::Timeout);
        }
        let began = Instant::now();
        loop {
            let error = self.hang(30).await.expect_err("hangs");
            if error.kind() == ErrorKind::Unavailable {
                assert!(error.message().contains("are stuck"), "{error}");
                return;
            }
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(began.elapsed() < Duration::from_secs(20), "never refused");
        }
    }

    /// Lets go of what hangs, and waits until the store serves again.
    async fn let_go(&self) {
        std::fs::write(&self.gate, "").expect("opened");
        let began = Instant::now();
        while let Err(error) = get(&self.store, "fine").await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(began.elapsed() < Duration::from_secs(20), "never back");
            tokio::task::yield_now().await;
        }
        let back = self.hang(10_000).await.expect("back");
        assert_eq!(back.value.expose(), b"back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_is_given_up_and_taken_back_and_no_other_store_waits_for_it() {
    let hanging = Hanging::new("hostile");
    hanging.until_closed().await;
    let fine = get(&hanging.other, "fine").await;
    assert_eq!(fine.expect("another plugin is served"), b"fine");
    hanging.let_go().await;
}

#[tokio::test]
async fn a_plugin_that_hangs_while_its_store_opens_is_no_different() {
    let hanging = Hanging::new("hangs-at-open");
    hanging.until_closed().await;
    let fine = get(&hanging.other, "fine").await;
    assert_eq!(fine.expect("another plugin is served"), b"fine");
    hanging.let_go().await;
}

/// Nobody waits for calls that do not come back, not even the end of the process.
#[test]
fn a_process_with_stuck_calls_ends() {
    const CHILD: &str = "KEYHAUL_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let hanging = Hanging::new("hostile");
        runtime.block_on(hanging.until_closed());
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_process_with_stuck_calls_ends"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait()));
    let Ok(ended) = receiver.recv_timeout(Duration::from_secs(60)) else {
        let pid = i32::try_from(id)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        panic!("it did not end");
    };
    assert!(ended.expect("waited for").success());
}
