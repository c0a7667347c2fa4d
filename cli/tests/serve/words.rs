//! What the commands say: what a person is told to type next works as it stands.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::service::Service;
use crate::{CONFLICT, PERMISSION_DENIED};

const NOT_FOUND: i32 = 16;
const UNAVAILABLE: i32 = 23;

/// What a command says on standard error, and how it ends.
fn said(service: &Service, role: &str, arguments: &[&str]) -> (i32, String) {
    let output = service.run(role, arguments);
    let words = String::from_utf8(output.stderr).expect("text");
    (output.status.code().expect("an end"), words)
}

/// Types a line that was printed, where the command before was typed.
#[track_caller]
fn type_in(service: &Service, line: &str) {
    let program = Path::new(env!("CARGO_BIN_EXE_keyhaul"));
    let folder = program.parent().expect("a folder").display();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .current_dir(service.path(""))
        .env("PATH", format!("{folder}:/usr/bin:/bin"))
        .stdin(Stdio::null());
    let output = shell.output().expect("sh");
    assert!(output.status.success(), "{line}: {output:?}");
}

#[test]
fn a_deletion_says_until_when_and_how_it_is_undone() {
    let mut service = Service::start();
    service.done("manager", &["generate", "web01/root"]);
    service.done("manager", &["grant", "web01", "node-a"]);
    let value = service.done("node-a", &["get", "web01/root"]);
    let delete = ["delete", "--yes", "web01/root"];
    let (status, words) = said(&service, "manager", &delete);
    assert_eq!(status, CONFLICT, "{words}");
    assert!(words.contains("or delete with --force"), "{words}");

    let force = [&delete[..], &["--force"]].concat();
    let (status, words) = said(&service, "manager", &force);
    assert_eq!(status, 0, "{words}");
    let until = words.strip_prefix("deleted web01/root; until ");
    let (until, command) = until.and_then(|rest| rest.split_once("Z: ")).expect("both");
    let until: jiff::Timestamp = format!("{until}Z").parse().expect("RFC 3339");
    // The window of a week, where nobody says.
    let hours = until.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((7 * 24 - 1..=7 * 24).contains(&hours), "{words}");
    assert_eq!(
        command.trim(),
        "keyhaul --config manager.toml restore web01/root"
    );
    type_in(&service, command);
    assert_eq!(service.done("node-a", &["get", "web01/root"]), value);

    let done = service.json("manager", &[&force[..], &["web01/none"]].concat());
    let deleted = done["deleted"].as_array().expect("a list");
    assert_eq!(deleted[0]["reference"], "web01/root");
    assert!(deleted[0]["restorable_until"].is_string(), "{done}");
    // Of what was not there, nothing is left; that is said, and not left out.
    assert_eq!(deleted[1].get("restorable_until"), Some(&Value::Null));
    service.done("manager", &["restore", "web01/root"]);

    // Without a window there is no way back, and none is shown.
    let config = service.path("service.toml");
    let text = fs::read_to_string(&config).expect("there");
    fs::write(&config, format!("delete-window = \"0s\"\n{text}")).expect("written");
    service.signal(Signal::HUP);
    service.told("RELOADING=1");
    service.told("READY=1");
    let (_, words) = said(&service, "manager", &force);
    assert_eq!(
        words,
        "deleted web01/root; nothing of it is left to restore\n"
    );
    let restore = ["restore", "web01/root"];
    assert_ne!(said(&service, "manager", &restore).0, 0);
}

/// The operator finds a refusal by what the refused command printed.
#[test]
fn a_failure_says_what_was_asked_of_whom_and_where_the_audit_has_it() {
    let service = Service::start();
    let (status, words) = said(&service, "node-a", &["grant", "web01", "node-b"]);
    assert_eq!(status, PERMISSION_DENIED, "{words}");
    assert!(
        words.contains("\n  while: grant web01 to node-b\n"),
        "{words}"
    );
    let told = service.said();
    let address = told
        .lines()
        .find_map(|line| line.strip_prefix("listening on "));
    let address = address.expect("it listens");
    assert!(
        words.contains(&format!("the key server {address}")),
        "{words}"
    );
    let (_, id) = words.split_once(" under request ").expect("an id");
    let id = id.split_whitespace().next().expect("an id");
    let shown = service.done("operator", &["audit", "show"]);
    let found: Vec<&str> = shown.lines().filter(|line| line.contains(id)).collect();
    assert_eq!(found.len(), 1, "{id}: {shown}");
    assert!(found[0].contains(" grant "), "{found:?}");
    // A server that is gone has an address too; what was never sent is in no audit.
    let policy = fs::read_to_string(service.path("manager.toml")).expect("there");
    let (gone, path) = ("127.0.0.1:1", service.path("gone.toml"));
    fs::write(&path, policy.replace(address, gone)).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
    let (status, words) = said(&service, "gone", &["node", "quarantine", "node-a"]);
    assert_eq!(status, UNAVAILABLE, "{words}");
    assert!(words.contains("\n  while: quarantine node-a\n"), "{words}");
    assert!(
        words.contains(gone) && !words.contains("request "),
        "{words}"
    );
}

/// Whoever has looked before somebody else changed something is stopped.
#[test]
fn a_change_can_name_the_grant_that_it_is_meant_for() {
    let service = Service::start();
    let grant = ["grant", "web01", "node-a"];
    let with = |epoch: &str, more: &[&str]| {
        let fence = [&grant[..], &["--if-epoch", epoch], more].concat();
        said(&service, "manager", &fence).0
    };
    assert_eq!(with("0", &[]), 0);
    let seen = service.json("manager", &["grants"])["grants"][0]["epoch"].to_string();
    service.done("manager", &[&grant[..], &["--expires", "1h"]].concat());
    assert_eq!(with("0", &["--expires", "2h"]), CONFLICT);
    assert_eq!(with(&seen, &["--expires", "2h"]), CONFLICT);
    let revoke = ["revoke", "web01", "node-a", "--if-epoch", &seen];
    service.refused("manager", &revoke, CONFLICT);
    let now = service.json("manager", &["grants"])["grants"][0]["epoch"].to_string();
    assert_eq!(with(&now, &["--expires", "2h"]), 0);
    let now = service.json("manager", &["grants"])["grants"][0]["epoch"].to_string();
    service.done(
        "manager",
        &["revoke", "web01", "node-a", "--if-epoch", &now],
    );
    // Taken away meanwhile: who would lengthen it does not give it again.
    assert_eq!(with(&now, &["--expires", "3h"]), CONFLICT);
    assert_eq!(service.done("manager", &["grants"]), "");
}

#[test]
fn a_quarantine_in_a_migration_shows_the_way_that_is_left() {
    let service = Service::start();
    let end = |from: &str, to: &str, stolen: &str, verb: &str| {
        for secret in ["web01/b", "web01/a"] {
            service.done("manager", &["generate", secret, "--overwrite"]);
        }
        service.done("manager", &["grant", "web01", from]);
        let begin = ["migrate", "begin", "web01", "--from", from, "--to", to];
        let (_, words) = said(&service, "manager", &begin);
        assert_eq!(
            words
                .matches("keyhaul --config manager.toml migrate")
                .count(),
            2
        );
        for secret in ["web01/b", "web01/a"] {
            service.done(stolen, &["get", secret]);
        }
        let output = service.run("manager", &["node", "quarantine", stolen]);
        let words = String::from_utf8(output.stderr).expect("text");
        let line = words.lines().find(|line| line.contains(" migrate "));
        let line = line.expect("a command").trim();
        assert!(line.contains(verb), "{words}");
        type_in(&service, line);
        // What has to be rotated, and nothing else, by name.
        let list = String::from_utf8(output.stdout).expect("text");
        let names: Vec<&str> = list.lines().filter_map(|l| l.split(' ').next()).collect();
        assert_eq!(names, ["web01/a", "web01/b"]);
        let other = if stolen == from { to } else { from };
        let held = service.json("manager", &["who-can", "web01/a"]);
        assert_eq!(held["grants"][0]["node"], other);
        assert_eq!(held["grants"].as_array().map(Vec::len), Some(1));
        service.done("manager", &["node", "release", stolen]);
        service.done("manager", &["revoke", "web01", other]);
    };
    end("node-a", "node-b", "node-a", "commit");
    end("node-a", "node-b", "node-b", "abort");
}

#[test]
fn the_latest_of_the_audit_can_be_shown_alone() {
    let service = Service::start();
    service.done("manager", &["grant", "web01", "node-a"]);
    service.done("manager", &["grant", "web02", "node-a"]);
    let all = service.json("operator", &["audit", "show"]);
    let last = service.json("operator", &["audit", "show", "--last", "3"]);
    let records = last["records"].as_array().expect("records");
    let shown: Vec<_> = records.iter().map(|record| &record["sequence"]).collect();
    // To look is recorded too: the end is one further than what was seen before.
    let end = all["head"]["sequence"].as_u64().expect("a number") + 1;
    assert_eq!(shown, [end - 2, end - 1, end], "{last}");
}

#[test]
fn the_latest_of_the_audit_can_be_shown_where_the_oldest_is_gone() {
    let mut service = Service::start();
    service.done("manager", &["grant", "web01", "node-a"]);
    // As a rotation does that keeps nothing here.
    let (current, elsewhere) = (service.path("audit.jsonl"), service.path("kept.elsewhere"));
    std::fs::rename(current, elsewhere).expect("moved");
    service.signal(Signal::HUP);
    service.told("RELOADING=1");
    service.told("READY=1");
    service.done("manager", &["grant", "web02", "node-a"]);
    service.refused("operator", &["audit", "show"], NOT_FOUND);
    // The grant's beginning and end, and that refusal: all that is left.
    let last = service.json("operator", &["audit", "show", "--last", "3"]);
    let records = last["records"].as_array().expect("records");
    let shown: Vec<_> = records.iter().map(|record| &record["operation"]).collect();
    assert_eq!(shown, ["grant", "grant", "audit"], "{last}");
    assert_eq!(records[1]["subject"], "web02");
}

/// A program that starts one to try things out learns where it listens, and has its policies.
#[test]
fn a_program_is_told_where_the_service_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = crate::keyhaul(folder.path());
    let listen = ["--folder", "dev", "--listen", "127.0.0.1:0"];
    command
        .args(["serve", "--dev", "--format", "json"])
        .args(listen);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let stdout = child.stdout.take().expect("piped");
    let ready = serde_json::Deserializer::from_reader(stdout)
        .into_iter::<Value>()
        .next();
    let policy = fs::read_to_string(folder.path().join("dev/manager.toml"));
    let mut grants = crate::keyhaul(&folder.path().join("dev"));
    let grants = grants.args(["--config", "manager.toml", "grants"]).output();
    child.kill().expect("ended");
    child.wait().expect("waited");
    let ready = ready.expect("a document").expect("JSON");
    assert_eq!(ready["schema_version"], 1);
    let address = ready["addresses"][0].as_str().expect("an address");
    assert!(policy.expect("there").contains(address), "{ready}");
    assert!(
        ready["config"]
            .as_str()
            .is_some_and(|path| path.ends_with("dev/service.toml"))
    );
    assert!(grants.expect("started").status.success());
}
