//! What the policy makes of a reference, and what `check` makes of the policy.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use keyhaul_e2e::{Site, finish};
use serde_json::Value;

#[test]
fn explain_touches_no_store() {
    let site = Site::new();
    site.policy("version = 1\n[stores.away]\nurl = \"file:///nonexistent/store\"\nidentity = \"file:/nonexistent/identity\"\n[[routes]]\nmatch = \"prod-*/**\"\nstore = \"away\"\npath = \"vms/{scope}/{name}\"\n[[routes]]\nmatch = \"web01/*\"\nstore = \"away\"\nencoding = \"base64\"\n");
    let done = finish(&mut site.keyhaul(["explain", "web01/x?version=3"])).ok();
    for part in [
        "prod-*/**",
        "web01/*",
        "keyhaul.toml:",
        "away",
        "file:///nonexistent/store",
        "base64",
        "its own",
    ] {
        let part = if part == "its own" {
            "version is the store's own"
        } else {
            part
        };
        assert!(done.text().contains(part), "no {part:?} in {}", done.text());
    }
    let done = finish(&mut site.keyhaul(["explain", "--format", "json", "prod-1/data/0"])).ok();
    let explained: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(explained["schema_version"], 1);
    assert_eq!(explained["path"], "vms/prod-1/data/0");
    assert_eq!(explained["stores"][0]["name"], "away");
    finish(&mut site.keyhaul(["explain", "web02/x"]))
        .exits(16)
        .says(&["web02/x"]);
    // The control: the store is really away.
    finish(&mut site.keyhaul(["get", "web01/x"])).says(&["/nonexistent/"]);
    assert!(!fs::exists("/nonexistent").expect("asked"));
}

#[test]
fn check_says_what_would_fail() {
    let site = Site::new();
    finish(&mut site.keyhaul(["store", "init"])).ok();
    site.set("web01/x", b"canary-4711");
    site.set_with("web01/short", b"canary-4711", &["--expires", "90d"]);
    let check = |arguments: &[&str]| finish(site.keyhaul(["check"]).args(arguments));
    let done = check(&[]).ok();
    assert!(done.text().contains("store local"), "{}", done.text());

    site.file("refs", "# the VM's\n\nweb01/x\nweb01/short\n");
    let done = check(&["--refs", "refs"]).ok();
    assert!(
        done.text().contains("refs:3 web01/x: resolves"),
        "{}",
        done.text()
    );
    assert!(
        done.text().contains("warning refs:4 web01/short: expires"),
        "{}",
        done.text()
    );

    site.file("refs", "web01/x\nweb01/none\nweb01\n");
    let done = check(&["--refs", "refs"]).exits(1);
    assert!(
        done.text().contains("refs:2 web01/none") && done.text().contains("refs:3 web01"),
        "{}",
        done.text()
    );
    let json = check(&["--refs", "refs", "--format", "json"]).exits(1);
    let report: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(report["schema_version"], 1);
    let findings = report["findings"].as_array().expect("findings");
    let kinds: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["level"] == "error")
        .map(|finding| &finding["kind"])
        .collect();
    assert_eq!(kinds, ["NotFound", "InvalidReference"]);
    assert!(!done.text().contains("canary") && !json.text().contains("canary"));
    assert!(!done.stderr.contains("canary") && !json.stderr.contains("canary"));
    site.file("refs", "web01/x\nweb01/none\n");
    check(&["--refs", "refs"]).exits(16);
    check(&["--refs", "no-such-file"]).exits(14);

    // A store that others can read is found before a VM needs it.
    fs::set_permissions(site.path("data/secrets"), Permissions::from_mode(0o755)).expect("mode");
    let done = check(&[]).exits(17);
    assert!(
        done.text().contains("store local") && done.text().contains("chmod"),
        "{}",
        done.text()
    );
}

#[test]
fn a_wrong_policy_is_an_error_with_the_line() {
    let site = Site::new();
    let good = fs::read_to_string(site.path("keyhaul.toml")).expect("the policy");
    let refuses = |text: &str, words: &[&str]| {
        site.policy(text);
        finish(&mut site.keyhaul(["get", "web01/x"]))
            .exits(14)
            .says(words);
        // Check says the same, as data.
        let done = finish(&mut site.keyhaul(["check"])).exits(14);
        for word in words {
            assert!(done.text().contains(word), "no {word:?} in {}", done.text());
        }
    };
    refuses(
        &good.replace("create = true", "creat = true"),
        &["creat", "keyhaul.toml:6", "identity"],
    );
    refuses(
        &good.replace("[[routes]]", "[[route]]"),
        &["route", "keyhaul.toml:8"],
    );
    refuses(
        &good.replace("store = \"local\"", "store = \"lokal\""),
        &["lokal", "local"],
    );
    refuses(&good.replace("file://", "vualt://"), &["vualt", "file"]);
    refuses("version = 1\nwhat\n", &["keyhaul.toml:2"]);
    site.policy(&good);
    fs::set_permissions(site.path("keyhaul.toml"), Permissions::from_mode(0o666)).expect("mode");
    finish(&mut site.keyhaul(["get", "web01/x"]))
        .says(&["keyhaul.toml"])
        .status
        .code()
        .filter(|code| *code != 16)
        .expect("refused");
}

#[test]
fn a_lost_identity_is_recovered_with_a_recovery_identity() {
    let site = Site::new();
    site.set("web01/x", b"passphrase");
    let done = finish(&mut site.keyhaul(["store", "identity", "recovery"])).ok();
    let recipient = done.text().trim().to_owned();
    assert!(recipient.starts_with("age1"), "{recipient}");
    finish(&mut site.keyhaul(["store", "rewrap", "--recipient", &recipient])).ok();
    fs::remove_file(site.path("state/identity")).expect("lost");
    assert_ne!(
        finish(&mut site.keyhaul(["get", "web01/x"])).status.code(),
        Some(0)
    );
    let source = format!("file:{}", site.path("recovery").display());
    finish(&mut site.keyhaul([
        "store",
        "rewrap",
        "--identity",
        &source,
        "--recipient",
        &recipient,
    ]))
    .ok();
    assert_eq!(site.get("web01/x"), b"passphrase");
}
