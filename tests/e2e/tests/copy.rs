//! A site moves between an encrypted store and a real OpenBao, there and back: nothing is lost,
//! overwritten or mixed, however often it is begun.

use keyhaul_e2e::{Finished, Running, Site, at_terminal, finish, finish_with, until};
use keyhaul_servers::{Mode, OpenBao, Proxy};
use serde_json::{Value, json};
use std::time::Duration;

const EXISTS: i32 = 10;
const NOT_FOUND: i32 = 16;
const UNAVAILABLE: i32 = 23;

/// An encrypted store `local`, which serves everything, one more, `back`, and a Vault, `site`,
/// whose secrets are routed as `new/…` from its folder `web01`.
struct Move {
    site: Site,
    server: OpenBao,
    proxy: Proxy,
}

impl Move {
    fn new() -> Self {
        let (site, server) = (Site::new(), OpenBao::dev());
        let proxy = Proxy::to(server.address());
        let moved = Self {
            site,
            server,
            proxy,
        };
        moved.serve("local");
        moved
    }

    /// A policy in which this store serves everything.
    fn serve(&self, name: &str) {
        let file = |name: &str| {
            format!(
                "[stores.{name}]\nurl = \"file://{}\"\nidentity = \"file:{}\"\ncreate = true\n",
                self.site.path(format!("data/{name}")).display(),
                self.site.path(format!("state/{name}")).display()
            )
        };
        let vault = format!(
            "[stores.site]\nurl = \"vault+http://{}/secret\"\nretries = 0\nauth = {{ method = \"token\", token = \"env:SITE_TOKEN\" }}\n",
            self.proxy.address()
        );
        let (local, back) = (file("local"), file("back"));
        self.site.policy(&format!(
            "version = 1\n{local}{back}{vault}[[routes]]\nmatch = \"**\"\nstore = \"{name}\"\n"
        ));
    }

    fn keyhaul(&self, arguments: &[&str]) -> Finished {
        let mut command = self.site.keyhaul(arguments);
        finish(command.env("SITE_TOKEN", self.server.root_token()))
    }

    fn set(&self, reference: &str, value: &[u8], more: &[&str]) {
        let mut command = self.site.keyhaul(["set", reference]);
        command.env("SITE_TOKEN", self.server.root_token());
        finish_with(command.args(more), value).ok();
    }

    fn get(&self, reference: &str) -> Vec<u8> {
        self.keyhaul(&["get", reference]).ok().stdout
    }

    fn copy(&self, from: &str, to: &str, more: &[&str]) -> Finished {
        let words = ["copy", "--from", from, "--to", to, "--format", "json"];
        self.keyhaul(&[&words[..], more].concat())
    }

    /// What the server itself says of a secret.
    fn metadata(&self, path: &str) -> Value {
        self.server.read(&format!("secret/metadata/{path}"))["data"].clone()
    }

    fn writes(&self) -> usize {
        let requests = self.proxy.requests();
        let reads = |line: &&String| !line.starts_with("GET ") && !line.starts_with("LIST ");
        requests.iter().filter(reads).count()
    }
}

fn report(done: &Finished) -> Value {
    serde_json::from_str(done.text()).expect("JSON")
}

/// How many there are of each sort.
fn counts(done: &Finished) -> [usize; 5] {
    let report = report(done);
    ["written", "same", "expired", "gone", "failed"]
        .map(|sort| report[sort].as_array().expect("a list").len())
}

#[test]
fn there_and_back_with_versions_and_labels() {
    let site = Move::new();
    let bytes: Vec<u8> = (0..=255).collect();
    for value in [&b"one"[..], b"two", &bytes] {
        site.set("web01/root", value, &["--label", "owner=tenant-7"]);
    }
    // A path that is a secret and a folder, and values that are easily spoilt.
    site.set("web01/root/spare", b"line\n\n", &[]);
    site.set("web02/empty", b"", &[]);

    let dry = site.copy("local", "site", &["--dry-run"]).ok();
    assert_eq!(counts(&dry), [3, 0, 0, 0, 0]);
    assert_eq!(site.writes(), 0);
    let listing = site
        .server
        .request("LIST", "secret/metadata/", site.server.root_token(), None);
    assert_eq!(listing.status, 404, "{listing:?}");

    let done = site.copy("local", "site", &["--verify"]).ok();
    let written = report(&done);
    let root = json!({"path": "web01/root", "versions": 3});
    assert_eq!(written["written"][0], root);
    assert_eq!(
        (&written["from"], &written["to"], &written["dry_run"]),
        (&json!("local"), &json!("site"), &json!(false))
    );
    let metadata = site.metadata("web01/root");
    assert_eq!(metadata["current_version"], 3);
    assert_eq!(metadata["custom_metadata"]["owner"], "tenant-7");

    let writes = site.writes();
    let again = site.copy("local", "site", &["--verify"]).ok();
    assert_eq!(counts(&again), [0, 3, 0, 0, 0]);
    assert_eq!(site.writes(), writes);

    site.copy("site", "back", &["--verify"]).ok();
    for store in ["site", "back"] {
        site.serve(store);
        assert_eq!(site.get("web01/root"), bytes, "{store}");
        assert_eq!(site.get("web01/root?version=1"), b"one", "{store}");
        assert_eq!(site.get("web01/root?version=2"), b"two", "{store}");
        assert_eq!(site.get("web01/root/spare"), b"line\n\n", "{store}");
        assert_eq!(site.get("web02/empty"), b"", "{store}");
        let stat = site.keyhaul(&["stat", "web01/root"]).ok();
        assert!(stat.text().contains("owner=tenant-7"), "{}", stat.text());
    }
}

#[test]
fn what_differs_stays_and_the_rest_is_copied() {
    let site = Move::new();
    for name in ["a", "b", "c"] {
        site.set(&format!("web01/{name}"), name.as_bytes(), &[]);
    }
    let other = json!({"data": {"value": "theirs", "note": "by hand"}});
    site.server.write("secret/data/web01/b", &other);
    let done = site.copy("local", "site", &[]).exits(EXISTS);
    assert_eq!(counts(&done), [2, 0, 0, 0, 1]);
    let failed = &report(&done)["failed"][0];
    assert_eq!(failed["path"], "web01/b");
    assert_eq!(failed["kind"], "AlreadyExists");
    done.says(&["web01/b", "--overwrite"])
        .says_nothing_of(&["theirs"]);
    assert_eq!(site.metadata("web01/b")["current_version"], 1);

    let done = site.copy("local", "site", &["--overwrite"]).ok();
    assert_eq!(counts(&done), [1, 2, 0, 0, 0]);
    let now = site.server.read("secret/data/web01/b");
    // The value is replaced; what else somebody keeps beside it is not.
    assert_eq!(
        now["data"]["data"],
        json!({"value": "b", "note": "by hand"})
    );
}

/// Killed in the middle, twice; then the server goes away in the middle.
#[test]
fn a_copy_that_was_broken_off_goes_on() {
    let site = Move::new();
    let all = 60;
    for number in 0..all {
        for round in ["old", "new"] {
            let value = format!("{round} {number}");
            site.set(&format!("web01/{number}"), value.as_bytes(), &[]);
        }
    }
    let held = || {
        let token = site.server.root_token();
        let path = "secret/metadata/web01/";
        let listing = site.server.request("LIST", path, token, None);
        listing.json["data"]["keys"].as_array().map_or(0, Vec::len)
    };
    for breaks in ["killed", "killed", "cut off"] {
        let before = held();
        site.proxy.set(Mode::Delay(Duration::from_millis(15)));
        let words = ["copy", "--from", "local", "--to", "site"];
        let mut command = site.site.keyhaul(words);
        command.env("SITE_TOKEN", site.server.root_token());
        let mut copying = Running::start(command, &site.site.path("copy.log"));
        until("some were copied", || (held() > before + 5).then_some(()));
        if breaks == "killed" {
            copying.kill();
        } else {
            site.proxy.set(Mode::Reset);
            assert_eq!(copying.end().code(), Some(UNAVAILABLE));
            assert!(copying.log().contains("from local to site"));
        }
        assert!((6..all).contains(&held()), "{}", held());
    }
    site.proxy.set(Mode::Pass);

    let done = site.copy("local", "site", &["--verify"]).ok();
    assert_eq!(counts(&done)[4], 0);
    let again = site.copy("local", "site", &[]).ok();
    assert_eq!(counts(&again), [0, all, 0, 0, 0]);
    site.serve("site");
    for number in [0, 1, 29, 58, 59] {
        let reference = format!("web01/{number}");
        let (old, new) = (format!("old {number}"), format!("new {number}"));
        assert_eq!(site.get(&reference), new.as_bytes());
        assert_eq!(site.get(&format!("{reference}?version=1")), old.as_bytes());
    }
    // Nothing was written twice.
    for number in 0..all {
        let metadata = site.metadata(&format!("web01/{number}"));
        assert_eq!(metadata["current_version"], 2, "{number}");
    }
}

#[test]
fn what_was_deleted_by_hand_is_gone_and_no_failure() {
    let site = Move::new();
    site.serve("site");
    site.set("web01/kept", b"kept", &[]);
    site.set("web01/gone", b"gone", &[]);
    site.server.delete("secret/data/web01/gone");
    let done = site.copy("site", "back", &[]).ok();
    assert_eq!(counts(&done), [1, 0, 0, 1, 0]);
    assert_eq!(report(&done)["gone"], json!(["web01/gone"]));
    site.serve("back");
    site.keyhaul(&["get", "web01/gone"]).exits(NOT_FOUND);
}

/// The bar is drawn for who waits at a terminal, is gone at the end, and is nowhere else.
#[test]
fn the_progress_is_for_terminals() {
    let site = Move::new();
    for number in 0..40 {
        site.set(&format!("web01/{number}"), b"x", &[]);
    }
    site.proxy.set(Mode::Delay(Duration::from_millis(20)));
    let words = ["copy", "--from", "local", "--to", "site", "--dry-run"];
    let piped = site.keyhaul(&words).ok();
    assert!(!piped.stderr.contains(['\r', '\u{1b}', '#']), "{piped:?}");
    let token = [("SITE_TOKEN", site.server.root_token())];
    let seen = at_terminal(&site.site, &token, &words, &[]);
    assert_eq!(seen.status, 0, "{}", seen.seen);
    assert!(seen.seen.contains(" of 40"), "{:?}", seen.seen);
    let (_, rest) = seen.seen.rsplit_once("\u{1b}[K").expect("wiped");
    assert!(!rest.contains(['[', '#']), "{rest:?}");
    // And not where the terminal can do nothing.
    let dumb = [token[0], ("TERM", "dumb")];
    let seen = at_terminal(&site.site, &dumb, &words, &[]);
    assert!(!seen.seen.contains('\u{1b}'), "{:?}", seen.seen);
}
