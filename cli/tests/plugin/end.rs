//! keyhaul ends, whatever a library of its policy holds up.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::broken::broken;
use super::serve::running;
use super::site::{Done, Site};
use super::{INTERNAL, TIMEOUT};

/// No step takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs keyhaul with the policy of this folder. One that does not end is ended.
#[track_caller]
fn by_policy(site: &Site, arguments: &[&str]) -> Done {
    let mut command = site.command(env!("CARGO_BIN_EXE_keyhaul"));
    let command = command.args(["--config", &site.text("keyhaul.toml")]);
    let command = command.args(arguments);
    let (out, err) = (Stdio::piped(), Stdio::piped());
    let mut child = command.stdout(out).stderr(err).spawn().expect("started");
    let begun = Instant::now();
    while child.try_wait().expect("waited").is_none() {
        if begun.elapsed() > LIMIT {
            child.kill().expect("killed");
            let output = child.wait_with_output().expect("ended");
            let words = String::from_utf8_lossy(&output.stderr);
            panic!("it did not end by itself: {words}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Done::from(child.wait_with_output().expect("ended"))
}

#[test]
fn a_library_that_hangs_when_it_is_loaded_keeps_nobody_from_ending() {
    let site = Site::new();
    let path = broken(&site, "HANGS_AT_LOAD");
    site.policy(&format!("url = \"plugin://{path}\""));
    let got = by_policy(&site, &["get", "web01/disk", "--deadline=500ms"]);
    got.ends(TIMEOUT)
        .says("a library that hangs when it is loaded");
}

#[test]
fn a_library_that_hangs_at_the_end_keeps_nobody_from_ending() {
    let site = Site::new();
    let contents = site.write("contents", "web01/disk hunter2\n", 0o600);
    let path = broken(&site, "HANGS_AT_END");
    site.policy(&format!(
        "url = \"plugin://{path}\"\noptions = {{ contents = \"file:{contents}\" }}"
    ));
    let got = by_policy(&site, &["get", "web01/disk"]);
    got.ok().prints("hunter2");
}

#[test]
fn a_library_that_ends_keyhaul_is_no_success() {
    let site = Site::new();
    let path = broken(&site, "EXITS_AT_LOAD");
    site.policy(&format!("url = \"plugin://{path}\""));
    let said = "a library has ended keyhaul, as none may";
    for arguments in [&["get", "web01/disk"][..], &["check"]] {
        let done = by_policy(&site, arguments);
        done.ends(INTERNAL).says(said);
    }
    // A status of its own: 13 could be the program's.
    let run = [
        "run",
        "--",
        "true",
        "--object",
        "secret,id=s,ref=web01/disk",
    ];
    by_policy(&site, &run).ends(125).says(said);
}

#[test]
fn a_worker_ends_with_the_keyhaul_that_started_it() {
    let site = Site::new();
    let path = broken(&site, "HANGS_AT_LOAD");
    let mut command = site.command(env!("CARGO_BIN_EXE_keyhaul"));
    let command = command.args(["plugin", "inspect", &path]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
    let mut said = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("hangs when it is loaded") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut said, &mut line).expect("read");
        assert_ne!(read, 0, "it never hung");
    }
    assert_eq!(running(&path).len(), 2, "the control: both are there");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let begun = Instant::now();
    while !running(&path).is_empty() {
        assert!(begun.elapsed() < LIMIT, "the worker goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}
