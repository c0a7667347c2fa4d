//! `keyhaul serve`, from its first minute to its end.

mod page;
mod service;
mod words;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use service::{LIMIT, Service, keyhaul};

const CONFLICT: i32 = 11;
const INVALID_REFERENCE: i32 = 15;
const PERMISSION_DENIED: i32 = 17;

/// Each line that it prints to be typed is typed, by a shell, as it stands.
#[test]
fn what_it_prints_to_type_next_does_what_it_says() {
    let service = Service::start();
    let program = Path::new(env!("CARGO_BIN_EXE_keyhaul"));
    let path = format!(
        "{}:/usr/bin:/bin",
        program.parent().expect("a folder").display()
    );
    let printed = service.printed();
    let lines: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .collect();
    let (enter, typed) = lines.split_first().expect("lines");
    assert_eq!(typed.len(), 6, "{printed}");
    let outcomes: Vec<(i32, String)> = typed
        .iter()
        .map(|line| {
            let script = format!("{enter} && {line}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).env("PATH", &path);
            let output = shell.stdin(Stdio::null()).output().expect("sh");
            let text = String::from_utf8(output.stdout).expect("text");
            (output.status.code().unwrap_or(-1), text)
        })
        .collect();
    let statuses: Vec<i32> = outcomes.iter().map(|(status, _)| *status).collect();
    // Set, granted, read, refused, who, curl.
    assert_eq!(statuses, [0, 0, 0, PERMISSION_DENIED, 0, 0], "{outcomes:?}");
    assert_eq!(outcomes[2].1, "hunter2");
    assert_eq!(outcomes[3].1, "");
    assert!(
        outcomes[4].1.starts_with("web01  node-a "),
        "{}",
        outcomes[4].1
    );
    let curl: serde_json::Value = serde_json::from_str(&outcomes[5].1).expect("JSON");
    assert_eq!(curl["grants"][0]["node"], "node-a");
    service.end();
}

#[test]
fn a_migration_moves_the_right_to_read() {
    let service = Service::start();
    service.done("manager", &["generate", "web01/root"]);
    service.refused("manager", &["get", "web01/root"], PERMISSION_DENIED);
    service.done("manager", &["grant", "web01", "node-a", "--expires", "1h"]);
    let begin = [
        "migrate", "begin", "web01", "--from", "node-a", "--to", "node-b", "--for", "90s",
    ];
    let ticket = service.json("manager", &begin);
    assert_eq!(ticket["state"], "open");
    let value = service.done("node-a", &["get", "web01/root"]);
    assert_eq!(service.done("node-b", &["get", "web01/root"]), value);
    let open = service.json("manager", &["migrate", "list", "--state", "open"]);
    assert_eq!(open["migrations"][0]["fetched"], true);
    let id = ticket["id"].as_str().expect("an id");
    let scope = ["migrate", "commit", "web01"];
    service.refused("manager", &scope, INVALID_REFERENCE);
    let other = [&scope[..], &["--from", "node-a", "--to", "node-c"]].concat();
    service.refused("manager", &other, CONFLICT);
    service.done("manager", &["migrate", "commit", id]);
    // The same again, named by what it moved.
    let same = [&scope[..], &["--from", "node-a", "--to", "node-b"]].concat();
    service.done("manager", &same);
    service.refused("node-a", &["get", "web01/root"], PERMISSION_DENIED);
    service.done("node-b", &["get", "web01/root"]);
    let held = service.json("manager", &["what-can", "node-b"]);
    assert_eq!(held["grants"].as_array().map(Vec::len), Some(1));
    let none = service.json("manager", &["grants", "--node", "node-a"]);
    assert_eq!(none["grants"].as_array().map(Vec::len), Some(0));
    service.done("manager", &["revoke", "web01", "node-b"]);
    service.refused("node-b", &["get", "web01/root"], PERMISSION_DENIED);
}

#[test]
fn a_quarantine_prints_what_to_rotate_and_a_deletion_can_be_undone() {
    let service = Service::start();
    service.done("manager", &["generate", "web01/root"]);
    service.done("manager", &["grant", "web01", "node-a"]);
    service.done("node-a", &["get", "web01/root"]);
    service.refused("manager", &["delete", "--yes", "web01/root"], CONFLICT);
    service.done("manager", &["delete", "--yes", "--force", "web01/root"]);
    assert_eq!(service.done("manager", &["list"]), "");
    service.done("manager", &["restore", "web01/root"]);
    service.done("node-a", &["get", "web01/root"]);
    let done = service.json("manager", &["node", "quarantine", "node-a"]);
    assert_eq!(done["revoked"][0]["scope"], "web01");
    assert_eq!(done["fetched"][0]["secret"], "web01/root");
    assert_eq!(done["fetched"][0]["count"], 2);
    service.refused("node-a", &["get", "web01/root"], PERMISSION_DENIED);
    let list = service.done("manager", &["node", "list"]);
    assert!(list.contains("quarantined"), "{list}");
    service.done("manager", &["node", "release", "node-a"]);
    service.done("manager", &["grant", "web01", "node-a"]);
    service.done("node-a", &["get", "web01/root"]);
}

#[test]
fn the_audit_is_shown_to_an_operator_and_holds() {
    let service = Service::start();
    service.done("manager", &["grant", "web01", "node-a"]);
    service.refused("manager", &["audit", "show"], PERMISSION_DENIED);
    let shown = service.json("operator", &["audit", "show"]);
    let records = shown["records"].as_array().expect("records");
    let operations: Vec<_> = records.iter().map(|record| &record["operation"]).collect();
    assert!(
        operations.iter().any(|operation| **operation == "grant"),
        "{operations:?}"
    );
    let one = service.json("operator", &["audit", "show", "--limit", "1"]);
    assert_eq!(one["records"].as_array().map(Vec::len), Some(1));
    let lines = service.done("operator", &["audit", "show"]);
    assert!(lines.lines().count() >= records.len());
    let (sequence, hash) = (&shown["head"]["sequence"], shown["head"]["hash"].as_str());
    let head = format!("{sequence}:{}", hash.expect("a hash"));
    let verify = ["audit", "verify", "audit.jsonl", "--head", &head];
    let sound = service.json("operator", &verify);
    assert_eq!(
        (&sound["anchored"], &sound["torn"]),
        (&true.into(), &false.into())
    );
    // One letter of one record.
    let folder = service.end();
    let audit = folder.path().join("dev/audit.jsonl");
    let text = fs::read_to_string(&audit).expect("there");
    fs::write(&audit, text.replacen("node-a", "node-b", 1)).expect("written");
    let mut command = keyhaul(&folder.path().join("dev"));
    let done = command.args(verify).output().expect("started");
    assert!(!done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("audit.jsonl:"));
}

#[test]
fn a_revoked_certificate_is_refused_once_it_is_told_to_reload() {
    let mut service = Service::start();
    service.done("manager", &["generate", "web01/root"]);
    service.done("manager", &["grant", "web01", "node-a"]);
    service.done("node-a", &["get", "web01/root"]);
    service.done("manager", &["pki", "revoke", "node-a", "--folder", "pki"]);
    service.signal(Signal::HUP);
    service.told("RELOADING=1");
    service.told("READY=1");
    let done = service.run("node-a", &["get", "web01/root"]);
    assert!(!done.status.success());
    assert!(done.stdout.is_empty());
    // The others go on.
    service.done("manager", &["grants"]);
    // What is wrong is said, and everything stays.
    let config = service.path("service.toml");
    let text = fs::read_to_string(&config).expect("there");
    fs::write(&config, text.replace("version = 1", "version = 7")).expect("written");
    service.signal(Signal::HUP);
    service.told("RELOADING=1");
    service.told("READY=1");
    assert!(
        service.said().contains("nothing was reloaded"),
        "{}",
        service.said()
    );
    service.done("manager", &["grants"]);
}

#[test]
fn a_new_policy_is_served_after_a_reload() {
    let mut service = Service::start();
    service.done("manager", &["generate", "web01/root"]);
    let reload = |service: &mut Service, from: &str, to: &str| {
        let policy = service.path("store.toml");
        let text = fs::read_to_string(&policy).expect("there");
        assert!(text.contains(from), "{text}");
        fs::write(&policy, text.replace(from, to)).expect("written");
        service.signal(Signal::HUP);
        service.told("RELOADING=1");
        service.told("READY=1");
    };
    // Elsewhere in the same store: what was there is not there.
    reload(
        &mut service,
        "store = \"local\"",
        "store = \"local\"\npath = \"new/{scope}/{name}\"",
    );
    assert!(
        service.said().contains("audit file, policy"),
        "{}",
        service.said()
    );
    assert_eq!(service.done("manager", &["list"]), "");
    service.done("manager", &["generate", "web02/root"]);
    // Two scopes would share a secret: everything stays.
    reload(&mut service, "{scope}", "all");
    assert!(
        service.said().contains("store.toml:9"),
        "{}",
        service.said()
    );
    assert_eq!(service.done("manager", &["list"]), "web02/root\n");
}

/// What was there before is there again, on another port.
#[test]
fn a_second_start_finds_what_the_first_left() {
    let service = Service::start();
    service.done("manager", &["generate", "web01/root"]);
    service.done("manager", &["grant", "web01", "node-a"]);
    let value = service.done("node-a", &["get", "web01/root"]);
    let key = fs::read(service.path("pki/ca.key")).expect("there");
    let folder = service.end();
    let service = Service::start_in(folder);
    assert_eq!(fs::read(service.path("pki/ca.key")).expect("there"), key);
    assert_eq!(service.done("node-a", &["get", "web01/root"]), value);
}

#[test]
fn a_second_service_in_the_same_folder_is_refused() {
    let service = Service::start();
    let mut second = keyhaul(service.folder.path());
    let second = second
        .args([
            "serve",
            "--dev",
            "--folder",
            "dev",
            "--listen",
            "127.0.0.1:0",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut second = second.expect("started");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = second.try_wait().expect("waited") {
            break status;
        }
        if begun.elapsed() > LIMIT {
            let _ = second.kill();
            panic!("a second service runs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    let stderr = second.stderr.as_mut().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    assert!(!status.success(), "{said}");
    service.done("manager", &["grants"]);
}
