//! `keyhaul serve`, from its first minute to its end.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No step of these tests takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(60);
const CONFLICT: i32 = 11;
const INVALID_REFERENCE: i32 = 15;
const PERMISSION_DENIED: i32 = 17;

/// A service to try things out, ended with the value.
struct Service {
    folder: TempDir,
    child: Child,
    notified: UnixDatagram,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder)
    }

    fn start_in(folder: TempDir) -> Self {
        let socket = folder.path().join("notify");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).expect("bound");
        notified.set_read_timeout(Some(LIMIT)).expect("set");
        let output = |name| fs::File::create(folder.path().join(name)).expect("made");
        let child = keyhaul(folder.path())
            .args([
                "serve",
                "--dev",
                "--folder",
                "dev",
                "--listen",
                "127.0.0.1:0",
            ])
            .env("NOTIFY_SOCKET", &socket)
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .expect("started");
        let mut service = Self {
            folder,
            child,
            notified,
        };
        service.told("READY=1");
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("dev").join(name)
    }

    /// Waits for what the service manager is told.
    fn told(&mut self, expected: &str) {
        let mut buffer = [0; 256];
        let length = self.notified.recv(&mut buffer);
        let length = length.unwrap_or_else(|error| panic!("{error}: {}", self.said()));
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert_eq!(text.lines().next(), Some(expected), "{}", self.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).expect("there")
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).expect("there")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("told");
    }

    fn end(mut self) -> TempDir {
        self.signal(Signal::TERM);
        self.told("STOPPING=1");
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}: {}", self.said());
        // What drop would end is over.
        let Self { folder, .. } = &self;
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::rename(folder.path().join("dev"), elsewhere.path().join("dev")).expect("moved");
        elsewhere
    }

    fn run(&self, role: &str, arguments: &[&str]) -> Output {
        keyhaul(&self.path(""))
            .args(["--config", &format!("{role}.toml")])
            .args(arguments)
            .output()
            .expect("started")
    }

    #[track_caller]
    fn done(&self, role: &str, arguments: &[&str]) -> String {
        let done = self.run(role, arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{role} {arguments:?}: {said}");
        String::from_utf8(done.stdout).expect("text")
    }

    #[track_caller]
    fn refused(&self, role: &str, arguments: &[&str], status: i32) {
        let done = self.run(role, arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(
            done.status.code(),
            Some(status),
            "{role} {arguments:?}: {said}"
        );
        assert!(done.stdout.is_empty());
    }

    #[track_caller]
    fn json(&self, role: &str, arguments: &[&str]) -> serde_json::Value {
        let text = self.done(role, &[arguments, &["--format", "json"]].concat());
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(document["schema_version"], 1);
        document
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keyhaul(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyhaul"));
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

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
    service.done("operator", &verify);
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
