//! Commands about several secrets: what they do when some of them fail, and copies between stores.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The kinds' exit codes, as the documentation lists them.
const ALREADY_EXISTS: i32 = 10;
const INVALID_REFERENCE: i32 = 15;
const NOT_FOUND: i32 = 16;
const MIXED: i32 = 1;

/// A policy of two encrypted stores, the first of which serves everything.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("folder"));
        let folder = site.0.path().display();
        let policy = format!(
            "version = 1\n\
             [stores.old]\nurl = \"file://{folder}/old\"\nidentity = \"file:{folder}/old.key\"\ncreate = true\n\
             [stores.new]\nurl = \"file://{folder}/new\"\nidentity = \"file:{folder}/new.key\"\ncreate = true\n\
             [[routes]]\nmatch = \"coded/**\"\nstore = \"old\"\npath = \"web01/{{name}}\"\nencoding = \"hex\"\n\
             [[routes]]\nmatch = \"new/**\"\nstore = \"new\"\npath = \"web01/{{name}}\"\n\
             [[routes]]\nmatch = \"**\"\nstore = \"old\"\n"
        );
        fs::write(site.path("keyhaul.toml"), policy).expect("written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyhaul"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.0.path())
            .env("KEYHAUL_CONFIG", self.path("keyhaul.toml"))
            .stdin(Stdio::null());
        command
    }

    fn keyhaul(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("started")
    }

    fn set(&self, reference: &str, value: &str, more: &[&str]) {
        let mut command = self.command(&["set", reference]);
        let mut child = command
            .args(more)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(value.as_bytes()).expect("taken");
        drop(input);
        let done = child.wait_with_output().expect("ended");
        assert!(done.status.success(), "{}", words(&done));
    }

    fn get(&self, reference: &str) -> String {
        let done = self.keyhaul(&["get", reference]);
        assert!(done.status.success(), "{}", words(&done));
        String::from_utf8(done.stdout).expect("text")
    }
}

fn words(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn a_copy_moves_a_store_and_can_be_made_again() {
    let site = Site::new();
    site.set("web01/root", "hunter2-root", &["--label", "owner=tenant-7"]);
    site.set("web01/data", "hunter2-data", &[]);
    site.set("db/root", "hunter2-db", &[]);
    // The store copied to exists before; what makes it is a first write.
    site.set("new/other", "hunter2-other", &[]);

    let copy = ["copy", "--from", "old", "--to", "new", "web01"];
    let dry = site.keyhaul(&[&copy[..], &["--dry-run"]].concat());
    assert!(dry.status.success(), "{}", words(&dry));
    assert_eq!(dry.stdout, b"web01/data\nweb01/root\n");
    assert!(words(&dry).contains("2 would be copied from old to new"));
    assert_eq!(
        site.keyhaul(&["get", "new/root"]).status.code(),
        Some(NOT_FOUND)
    );

    let done = site.keyhaul(&[&copy[..], &["--verify", "--format", "json"]].concat());
    assert!(done.status.success(), "{}", words(&done));
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["written"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["written"][0]["path"], "web01/data");
    assert_eq!(site.get("new/root"), "hunter2-root");
    assert_eq!(site.get("new/data"), "hunter2-data");
    let stat = site.keyhaul(&["stat", "new/root"]);
    assert!(String::from_utf8_lossy(&stat.stdout).contains("owner=tenant-7"));
    let listed = site.keyhaul(&["list", "--store", "new"]);
    assert_eq!(listed.stdout, b"web01/data\nweb01/other\nweb01/root\n");

    let again = site.keyhaul(&copy);
    assert!(again.status.success(), "{}", words(&again));
    let text = words(&again);
    assert!(
        text.contains("0 copied from old to new, 2 there already"),
        "{text}"
    );

    // No word of it shows a value.
    for output in [dry, done, again] {
        let all = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&all).contains("hunter2"));
    }
}

#[test]
fn what_differs_stops_nothing_else_and_is_replaced_only_when_told_to() {
    let site = Site::new();
    site.set("web01/root", "from old", &[]);
    site.set("web01/data", "from old", &[]);
    site.set("new/root", "from new", &[]);
    let copy = ["copy", "--from", "old", "--to", "new"];
    let done = site.keyhaul(&copy);
    assert_eq!(done.status.code(), Some(ALREADY_EXISTS));
    let text = words(&done);
    assert!(
        text.contains("path: web01/root") && text.contains("--overwrite"),
        "{text}"
    );
    assert_eq!(site.get("new/root"), "from new");
    assert_eq!(site.get("new/data"), "from old");
    let done = site.keyhaul(&[&copy[..], &["--overwrite"]].concat());
    assert!(done.status.success(), "{}", words(&done));
    assert_eq!(site.get("new/root"), "from old");

    let same = site.keyhaul(&["copy", "--from", "old", "--to", "old"]);
    assert_eq!(same.status.code(), Some(INVALID_REFERENCE));
}

#[test]
fn versions_are_copied_unless_only_the_current_is_asked_for() {
    let site = Site::new();
    for value in ["one", "two", "three"] {
        site.set("web01/root", value, &[]);
    }
    let copy = ["copy", "--from", "old", "--to", "new"];
    let current =
        site.keyhaul(&[&copy[..], &["--current", "--dry-run", "--format", "json"]].concat());
    let report: Value = serde_json::from_slice(&current.stdout).expect("JSON");
    assert_eq!(report["written"][0]["versions"], 1);
    let done = site.keyhaul(&[&copy[..], &["--verify"]].concat());
    assert!(done.status.success(), "{}", words(&done));
    assert_eq!(site.get("new/root"), "three");
    assert_eq!(site.get("new/root?version=1"), "one");
    assert_eq!(site.get("new/root?version=2"), "two");
}

#[test]
fn resolve_keeps_going_when_it_is_told_to_and_tells_of_the_first_failure() {
    let site = Site::new();
    site.set("web01/root", "hunter2", &[]);
    // In its store the value is text, and the first route says that it is hexadecimal.
    site.set("web01/plain", "no hex", &[]);
    let wanted = ["web01/gone", "web01/root", "coded/plain"];
    let runtime = site.path("runtime");
    fs::create_dir(&runtime).expect("made");
    let in_runtime = ["--runtime-dir", runtime.to_str().expect("UTF-8")];
    let resolve = |more: &[&str]| {
        let arguments = [&["resolve"][..], more, &wanted, &in_runtime].concat();
        site.keyhaul(&arguments)
    };
    let keys = || fs::read_dir(&runtime).expect("there").count();

    let all_or_nothing = resolve(&[]);
    assert_eq!(all_or_nothing.status.code(), Some(MIXED));
    assert!(all_or_nothing.stdout.is_empty());
    assert_eq!(keys(), 0);

    let some = resolve(&["--keep-going"]);
    assert_eq!(some.status.code(), Some(NOT_FOUND));
    let objects = String::from_utf8(some.stdout.clone()).expect("text");
    // The master key's object and that of the one there is.
    assert_eq!(objects.matches("-object ").count(), 2, "{objects}");
    assert!(objects.contains("id=root,"), "{objects}");
    let text = words(&some);
    assert!(
        text.contains("web01/gone") && text.contains("coded/plain"),
        "{text}"
    );
    assert_eq!(keys(), 1);

    // Where there is none at all, no key is left for anybody.
    let none = site.keyhaul(&[&["resolve", "--keep-going", "a/b"][..], &in_runtime].concat());
    assert_eq!(none.status.code(), Some(NOT_FOUND));
    assert_eq!(keys(), 1);
}

#[test]
fn a_vm_with_half_of_its_secrets_is_not_started() {
    let site = Site::new();
    site.set("web01/root", "hunter2", &[]);
    let mark = site.path("started");
    let script = format!("touch {}", mark.display());
    let run = |reference: &str| {
        let object = format!("secret,id=b,ref={reference}");
        let words = [
            "run",
            "--",
            "sh",
            "-c",
            &script,
            "-object",
            "secret,id=a,ref=web01/root",
            "-object",
            &object,
        ];
        site.keyhaul(&words)
    };
    let done = run("web01/gone");
    assert_eq!(done.status.code(), Some(125), "{}", words(&done));
    assert!(!mark.exists());
    // There is no flag for it either.
    let flag = site.keyhaul(&["run", "--keep-going", "--", "true"]);
    assert_eq!(flag.status.code(), Some(2));
}

#[test]
fn a_place_in_a_store_without_that_word_is_refused() {
    let site = Site::new();
    site.set("web01/root", "hunter2", &[]);
    for command in ["get", "stat", "explain", "resolve"] {
        let done = site.keyhaul(&[command, "nosuch:secret/web01#root"]);
        assert_eq!(
            done.status.code(),
            Some(INVALID_REFERENCE),
            "{}",
            words(&done)
        );
        assert!(
            words(&done).contains("unknown alias `nosuch`"),
            "{}",
            words(&done)
        );
        let done = site.keyhaul(&[command, "vault:secret/../x"]);
        assert_eq!(done.status.code(), Some(2), "{}", words(&done));
    }
    // What writes takes references alone.
    let done = site.keyhaul(&["delete", "vault:secret/web01"]);
    assert_eq!(done.status.code(), Some(2));
}
