//! What is acknowledged is on the disk, as the system calls show: a kill cannot tell.

use std::path::Path;
use std::process::Command;

use super::crash::{open, read_of, say};
use super::*;

const FOLDER: &str = "KEYHAUL_TEST_DURABLE_FOLDER";

/// Run again by the test below, and watched; by itself it has nothing to do.
#[test]
fn a_grant_a_record_and_a_fetch() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (state, audit) = open(Path::new(&folder));
    let request = |scope: &str| GrantRequest {
        scope: scope.into(),
        node: "y".into(),
        names: Vec::new(),
        expires: None,
        if_epoch: None,
    };
    block_on(async {
        say("begin");
        let grant = state
            .grant(MANAGER, &request("web01"))
            .await
            .expect("granted");
        say("granted");
        audit.append(vec![read_of(&grant)]).await.expect("recorded");
        say("recorded");
        let begin = BeginRequest {
            scope: "web01".into(),
            from: "y".into(),
            to: "z".into(),
            seconds: None,
        };
        state.begin(MANAGER, &begin).await.expect("begun");
        let permit = state
            .may_read("z", &reference("web01/root"))
            .expect("permitted");
        say("begun");
        state.fetched(&[permit]).await.expect("fetched");
        say("fetched");
    });
}

#[test]
fn nothing_is_acknowledged_before_it_is_forced_to_the_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let trace = folder.path().join("trace");
    let status = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-e",
            "trace=write,pwrite64,fsync,fdatasync",
            "-o",
        ])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("server::state::tests::durable::a_grant_a_record_and_a_fetch")
        .env(FOLDER, folder.path())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("strace, of the package of that name: apt install strace");
    assert!(status.success());
    let trace = std::fs::read_to_string(trace).expect("a trace");
    // From one thing said to the next, the calls on a file: each write, and what forces it.
    let between = |from: &str, to: &str, file: &str| {
        let at = |said: &str| trace.find(&format!("\"@{said}\\n\"")).expect("said");
        let calls = trace[at(from)..at(to)]
            .lines()
            .filter(|line| line.contains(file));
        let named = calls.filter_map(|line| {
            let call = line.split_whitespace().nth(1)?;
            match call.split('(').next()? {
                "write" | "pwrite64" => Some('w'),
                "fsync" | "fdatasync" => Some('s'),
                _ => None,
            }
        });
        named.collect::<String>()
    };
    for (from, to, file) in [
        ("begin", "granted", "service.db-wal>"),
        ("granted", "recorded", "audit.jsonl>"),
        ("recorded", "begun", "service.db-wal>"),
        ("begun", "fetched", "service.db-wal>"),
    ] {
        let calls = between(from, to, file);
        assert!(calls.contains('w') && calls.ends_with('s'), "{to}: {calls}");
    }
    // The control: what is not to be durable yet is not.
    assert_eq!(between("granted", "recorded", "service.db-wal>"), "");
}
