//! What a program is when it has been started, and when whoever started it is gone.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{GetOptions, SecretPath, SecretStore};
use support::Place;

/// Answers each get with what its path names.
const TELLS: &str = r#"#!/usr/bin/env python3
import json, os, sys
def told(what):
    if what == "session": return "own" if os.getsid(0) == os.getpid() == os.getpgid(0) else "ours"
    if what == "pid": return str(os.getpid())
    if what == "status": return open("/proc/self/status").read()
    if what == "memory": open("/proc/%d/mem" % os.getppid(), "rb"); return "opened"
sys.stdin.readline()
print(json.dumps({"keyhaul": 1, "name": "tells", "version": "1", "capabilities": ["read"]}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try: value = told(request["path"])
    except OSError as error: value = type(error).__name__
    print(json.dumps({"id": request["id"], "value": value}), flush=True)
"#;

/// In the environment of the process below: the program that it holds, and whether confined.
const HELD: &str = "KEYHAUL_TEST_HELD";
const CONFINED: &str = "KEYHAUL_TEST_CONFINED";

async fn told(store: &Arc<dyn SecretStore>, what: &str) -> String {
    let path = SecretPath::new(what).expect("a path");
    let secret = store.get(&path, &GetOptions::default()).await.expect(what);
    String::from_utf8(secret.value.expose().to_vec()).expect("text")
}

/// A fence around `program`, in which it can look at itself and write beside itself.
fn fenced(place: &Place, program: &Path) -> Arc<dyn SecretStore> {
    let beside = program.parent().and_then(Path::to_str).expect("text");
    let texts = |path: &str| Value::Texts(vec![path.to_owned()]);
    let confine = Options::at(
        "keyhaul.toml:3:1",
        [("read", texts("/proc")), ("write", texts(beside))],
    );
    place.store_with(program, [("confine", Value::Table(confine))])
}

/// With ours, it would have our terminal too.
#[tokio::test]
async fn a_program_has_a_session_of_its_own() {
    let place = Place::new();
    let store = place.store(&place.program("tells", TELLS), &[]);
    assert_eq!(told(&store, "session").await, "own");
}

#[tokio::test]
async fn a_program_of_roots_has_no_way_to_our_memory_and_a_confined_one_no_capability() {
    let place = Place::new();
    let program = place.program("tells", TELLS);
    let (free, confined) = (place.store(&program, &[]), fenced(&place, &program));
    let sets = |status: &str| -> Vec<u64> {
        // Inheritable, permitted, effective, bounding, ambient.
        let lines = status.lines().filter(|line| line.starts_with("Cap"));
        let words = lines.filter_map(|line| line.split_once('\t'));
        words
            .map(|(_, set)| u64::from_str_radix(set, 16).expect("a set"))
            .collect()
    };
    let ours = std::fs::read_to_string("/proc/self/status").expect("ours");
    let ours = sets(&ours);
    let trace = 1_u64 << 19;
    let root = rustix::process::geteuid().is_root();
    // Whoever is not root has none to give up, and cannot shrink the last but one.
    assert!(!root || ours[1] & trace != 0, "{ours:x?}");
    let less = |set: &u64| set & !trace;
    let expected: Vec<u64> = match root {
        true => ours.iter().map(less).collect(),
        false => ours.clone(),
    };
    assert_eq!(sets(&told(&free, "status").await), expected);
    let bounding = if root { 0 } else { ours[3] };
    let found = sets(&told(&confined, "status").await);
    assert_eq!(found, [0, 0, 0, bounding, 0]);
    if root {
        assert_eq!(told(&free, "memory").await, "PermissionError");
        // The control: a program that anybody else starts.
        let opens = "import os; open('/proc/%d/mem' % os.getppid(), 'rb')";
        let opened = Command::new("python3").args(["-c", opens]).status();
        assert!(opened.expect("python3").success());
    }
}

/// The kernel would take the end of the thread that started it for its parent's.
#[test]
fn a_program_outlives_the_thread_that_asked_for_it() {
    let place = Place::new();
    let program = place.program("tells", TELLS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_millis(1))
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = place.store(&program, &[]);
        let first = told(&store, "pid").await;
        // As long as the thread for blocking work has to end.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(told(&store, "pid").await, first);
    });
}

/// Holds a program that hangs, until it is killed: the process of the test below.
#[tokio::test]
async fn holds_a_program() {
    let Some(program) = std::env::var_os(HELD) else {
        return;
    };
    let place = Place::new();
    // It is killed, and tidies nothing up.
    std::fs::remove_dir(place.path()).expect("removed");
    let program = Path::new(&program);
    let store = match std::env::var_os(CONFINED) {
        Some(_) => fenced(&place, program),
        None => place.store(program, &[]),
    };
    told(&store, "what never comes").await;
}

#[test]
fn a_program_that_hangs_ends_with_a_keyhaul_that_is_killed() {
    let place = Place::new();
    let program = place.program("hangs", "#!/bin/sh\necho $$ >\"$0.pid\"\nexec sleep 600\n");
    let written = place.path().join("hangs.pid");
    for confined in [false, true] {
        let mut holder = Command::new(std::env::current_exe().expect("this program"));
        holder
            .args(["--exact", "holds_a_program"])
            .env(HELD, &program);
        if confined {
            holder.env(CONFINED, "1");
        }
        let mut holder = holder.stdout(Stdio::null()).spawn().expect("started");
        let pid = || std::fs::read_to_string(&written).unwrap_or_default();
        within("the program to run", || pid().ends_with('\n'));
        let process = format!("/proc/{}", pid().trim());
        assert!(runs(&process), "confined: {confined}");
        holder.kill().expect("killed");
        holder.wait().expect("ended");
        within("the program to end", || !runs(&process));
        std::fs::remove_file(&written).expect("removed");
    }
}

/// Whether it is there, and not only waiting for somebody to take note of its end.
fn runs(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| !b"ZX".contains(&state))
}

fn within(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(10), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
