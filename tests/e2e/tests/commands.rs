//! The commands for secrets, on a real encrypted store: exact bytes in and out, at a terminal and
//! in a pipe, and an exit status for each kind of failure.

use std::fs;

use keyhaul_e2e::{Site, at_terminal, finish, finish_with};
use serde_json::Value;

#[test]
fn values_come_back_to_the_byte() {
    let site = Site::new();
    let all: Vec<u8> = (0..=255).collect();
    for value in [
        &b""[..],
        b"x",
        b"\n",
        b"with\0nul",
        b"line\n\n",
        &all,
        &vec![b'x'; 1 << 20],
    ] {
        site.set("web01/x", value);
        assert_eq!(site.get("web01/x"), value);
    }
    // Nothing of it is in the store as it is.
    site.set("web01/x", b"canary-4711");
    let mut folders = vec![site.path("data")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = fs::read(&path).expect("read");
            assert!(!content.windows(11).any(|part| part == b"canary-4711"));
        }
    }
    finish_with(
        &mut site.keyhaul(["set", "web01/x"]),
        &vec![b'x'; (1 << 20) + 1],
    )
    .exits(21);
    assert_eq!(site.get("web01/x"), b"canary-4711");
}

#[test]
fn a_newline_is_stored_and_warned_of() {
    let site = Site::new();
    let set = |arguments: &[&str], value: &[u8]| {
        let mut command = site.keyhaul(["set", "web01/x"]);
        finish_with(command.args(arguments), value).ok()
    };
    set(&[], b"value\n").says(&["warning:", "newline", "--strip-newline"]);
    assert_eq!(site.get("web01/x"), b"value\n");
    set(&["--strip-newline"], b"value\n").says_nothing_of(&["warning"]);
    assert_eq!(site.get("web01/x"), b"value");
    // One, not all.
    set(&["--strip-newline"], b"value\n\n");
    assert_eq!(site.get("web01/x"), b"value\n");
    set(&["--strip-newline"], b"value\r\n");
    assert_eq!(site.get("web01/x"), b"value");
    set(&["--strip-newline"], b"value");
    assert_eq!(site.get("web01/x"), b"value");

    let file = site.file("value", b"from a file\n");
    let file = file.to_str().expect("text");
    set(&["--from", file], b"").says(&["newline"]);
    assert_eq!(site.get("web01/x"), b"from a file\n");
    set(&["--from", file, "--strip-newline"], b"");
    assert_eq!(site.get("web01/x"), b"from a file");
    set(&["--from", "-"], b"from standard input");
    assert_eq!(site.get("web01/x"), b"from standard input");
    let mut command = site.keyhaul(["set", "web01/x", "--from", "no-such-file"]);
    finish(&mut command).exits(14).says(&["no-such-file"]);
}

#[test]
fn a_value_is_no_argument() {
    let site = Site::new();
    finish(&mut site.keyhaul(["set", "web01/x", "value"])).exits(2);
    finish(&mut site.keyhaul(["set", "web01/x", "--value", "value"])).exits(2);
    finish(&mut site.keyhaul(["get", "web01/x"])).exits(16);
}

#[test]
fn a_prompt_hides_what_is_typed() {
    let site = Site::new();
    let set = ["set", "web01/x"];
    let steps = [
        ("Value of web01/x: ", "wrnog\x7f\x7f\x7f\x7fight pw\u{fc}\n"),
        ("The same again: ", "wight pw\u{fc}\u{e9}\x7f\n"),
    ];
    let done = at_terminal(&site, &[], &set, &steps);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(
        !done.seen.contains("ight") && !done.seen.contains("wr"),
        "{done:?}"
    );
    assert!(done.echoes, "the terminal is as it was");
    assert_eq!(site.get("web01/x"), "wight pw\u{fc}".as_bytes());

    let done = at_terminal(
        &site,
        &[],
        &set,
        &[
            ("Value of web01/x: ", "one\n"),
            ("The same again: ", "two\n"),
        ],
    );
    assert_eq!(done.status, 11, "{done:?}");
    assert!(done.seen.contains("differ"), "{done:?}");
    for key in ["\x03", "\x04"] {
        let done = at_terminal(
            &site,
            &[],
            &set,
            &[("Value of web01/x: ", "half"), ("", key)],
        );
        assert_eq!(done.status, 130, "{done:?}");
        assert!(done.echoes && !done.seen.contains("half"), "{done:?}");
    }
    let done = at_terminal(&site, &[], &["--non-interactive", "set", "web01/x"], &[]);
    assert_eq!(done.status, 14, "{done:?}");
    assert_eq!(site.get("web01/x"), "wight pw\u{fc}".as_bytes());
    // What has nowhere to go is not asked for.
    site.policy("version = 1\n");
    let done = at_terminal(&site, &[], &set, &[]);
    assert!(
        done.status != 0 && !done.seen.contains("Value of"),
        "{done:?}"
    );
}

#[test]
fn a_terminal_is_spared_binary() {
    let site = Site::new();
    site.set("web01/text", "passw\u{f6}rd".as_bytes());
    site.set("web01/binary", b"\x1b[2J\0");
    let done = at_terminal(&site, &[], &["get", "web01/text"], &[]);
    assert_eq!(done.status, 0);
    // The transcript is bytes, shown one by one.
    assert!(done.seen.starts_with("passw\u{c3}\u{b6}rd"), "{done:?}");
    let done = at_terminal(&site, &[("NO_COLOR", "1")], &["get", "web01/binary"], &[]);
    assert_eq!(done.status, 24, "{done:?}");
    assert!(
        !done.seen.contains('\x1b') && done.seen.contains("--force"),
        "{done:?}"
    );
    let done = at_terminal(&site, &[], &["get", "--force", "web01/binary"], &[]);
    assert_eq!(done.status, 0);
    assert!(done.seen.starts_with("\x1b[2J\0"), "{done:?}");
    // To a pipe it goes as it is.
    assert_eq!(site.get("web01/binary"), b"\x1b[2J\0");
}

#[test]
fn colour_is_for_people_who_want_it() {
    let site = Site::new();
    let missing = ["get", "web01/none"];
    assert!(
        at_terminal(&site, &[], &missing, &[])
            .seen
            .contains("\x1b[")
    );
    assert!(
        !at_terminal(&site, &[("NO_COLOR", "1")], &missing, &[])
            .seen
            .contains('\x1b')
    );
    assert!(
        !at_terminal(&site, &[("TERM", "dumb")], &missing, &[])
            .seen
            .contains('\x1b')
    );
    assert!(!finish(&mut site.keyhaul(missing)).stderr.contains('\x1b'));
}

#[test]
fn json_of_a_value_holds_its_bytes() {
    let site = Site::new();
    site.set("web01/x", b"a\0b");
    let done = finish(&mut site.keyhaul(["get", "--format", "json", "web01/x"])).ok();
    let answer: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(answer["schema_version"], 1);
    assert_eq!(answer["reference"], "secret:web01/x");
    assert_eq!(
        (&answer["encoding"], &answer["value"]),
        (&"base64".into(), &"YQBi".into())
    );
}

#[test]
fn generate_makes_what_nobody_has_seen_and_never_by_mistake() {
    let site = Site::new();
    let generate = |arguments: &[&str]| {
        let mut command = site.keyhaul(["generate", "web01/x"]);
        finish(command.args(arguments))
    };
    let done = generate(&[]).ok();
    assert!(done.stdout.is_empty());
    let first = site.get("web01/x");
    assert_eq!(first.len(), 32);
    assert!(first.iter().all(u8::is_ascii_alphanumeric));
    assert!(
        !done
            .stderr
            .contains(std::str::from_utf8(&first).expect("text"))
    );
    generate(&[]).exits(10).says(&["web01/x"]);
    assert_eq!(site.get("web01/x"), first);
    generate(&["--overwrite", "--alphabet", "hex", "--length", "64"]).ok();
    let hex = site.get("web01/x");
    assert!(hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit));
    generate(&["--overwrite", "--alphabet", "bytes", "--length", "1000"]).ok();
    let bytes = site.get("web01/x");
    assert!(bytes.len() == 1000 && bytes.iter().any(|byte| !byte.is_ascii()));
    generate(&["--overwrite", "--length", "0"]).exits(14);
    assert_eq!(site.get("web01/x"), bytes);
}

#[test]
fn writes_can_be_conditional_and_old_versions_be_read() {
    let site = Site::new();
    let set = |arguments: &[&str], value: &[u8]| {
        let mut command = site.keyhaul(["set", "web01/x"]);
        finish_with(command.args(arguments), value)
    };
    set(&["--create"], b"one").ok();
    set(&["--create"], b"two").exits(10);
    let version = || {
        let done = finish(&mut site.keyhaul(["stat", "--format", "json", "web01/x"])).ok();
        let known: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        known["version"].as_str().expect("a version").to_owned()
    };
    let first = version();
    set(&["--if-version", &first], b"two").ok();
    set(&["--if-version", &first], b"three").exits(11);
    assert_eq!(site.get("web01/x"), b"two");
    assert_eq!(site.get(&format!("web01/x?version={first}")), b"one");
    finish(&mut site.keyhaul(["delete", "--yes", "--if-version", &first, "web01/x"])).exits(11);
    finish(&mut site.keyhaul(["delete", "--yes", "--if-version", &version(), "web01/x"])).ok();
    finish(&mut site.keyhaul(["get", "web01/x"])).exits(16);
}

#[test]
fn list_and_stat_show_everything_but_values() {
    let site = Site::new();
    for reference in [
        "web01/root",
        "web01/data/0",
        "web01/data/1",
        "web02/root",
        "@site/ca",
    ] {
        site.set(reference, b"canary-4711");
    }
    let list = |arguments: &[&str]| {
        let done = finish(site.keyhaul(["list"]).args(arguments)).ok();
        done.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        list(&[]),
        [
            "@site/ca",
            "web01/data/0",
            "web01/data/1",
            "web01/root",
            "web02/root"
        ]
    );
    assert_eq!(
        list(&["web01"]),
        ["web01/data/0", "web01/data/1", "web01/root"]
    );
    assert_eq!(list(&["web03"]), [""; 0]);
    finish(&mut site.keyhaul(["list", "web01/root"])).exits(15);
    let done = finish(&mut site.keyhaul(["list", "--format", "json", "web02"])).ok();
    let listed: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(listed["schema_version"], 1);
    assert_eq!(
        listed["references"],
        serde_json::json!(["secret:web02/root"])
    );

    site.set_with(
        "web01/x",
        b"canary-4711",
        &[
            "--expires",
            "2099-01-31T12:00:00Z",
            "--label",
            "owner=ops",
            "--label",
            "b=c=d",
        ],
    );
    let text = finish(&mut site.keyhaul(["stat", "web01/x"])).ok();
    for part in [
        "web01/x",
        "local",
        "2099-01-31T12:00:00Z",
        "owner=ops",
        "b=c=d",
    ] {
        assert!(text.text().contains(part), "{}", text.text());
    }
    let json = finish(&mut site.keyhaul(["stat", "--format", "json", "web01/x"])).ok();
    let known: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(known["schema_version"], 1);
    assert_eq!(
        known["labels"],
        serde_json::json!({"owner": "ops", "b": "c=d"})
    );
    assert_eq!(known["expired"], false);
    assert!(known["created"].is_string());
    assert!(!text.text().contains("canary") && !json.text().contains("canary"));
    finish(&mut site.keyhaul(["stat", "web01/none"])).exits(16);
}

#[test]
fn deleting_asks_whoever_is_there() {
    let site = Site::new();
    for reference in ["web01/a", "web01/b", "web01/c"] {
        site.set(reference, b"x");
    }
    let delete = ["delete", "web01/a", "web01/b"];
    let gone =
        |reference: &str| finish(&mut site.keyhaul(["get", reference])).status.code() == Some(16);
    // Nobody is there to be asked.
    finish(&mut site.keyhaul(["--non-interactive", "delete", "web01/a"]))
        .exits(14)
        .says(&["--yes"]);
    let done = at_terminal(
        &site,
        &[],
        &delete,
        &[("web01/a, web01/b with all versions? [yes/no]", "no\n")],
    );
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.seen.contains("nothing was deleted"), "{done:?}");
    let done = at_terminal(&site, &[], &delete, &[("[yes/no]", "y\n")]);
    assert!(done.seen.contains("nothing was deleted"), "{done:?}");
    assert!(!gone("web01/a"));
    let done = at_terminal(&site, &[], &delete, &[("[yes/no]", "yes\n")]);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(gone("web01/a") && gone("web01/b") && !gone("web01/c"));
    finish(&mut site.keyhaul(["delete", "--yes", "web01/c"])).ok();
    assert!(gone("web01/c"));
    // Deleting what is gone succeeds: it is what was wanted.
    finish(&mut site.keyhaul(["delete", "--yes", "web01/c"])).ok();
}

#[test]
fn every_failure_is_reported() {
    let site = Site::new();
    site.set("web01/a", b"x");
    let mut resolve = site.keyhaul(["resolve", "--runtime-dir"]);
    resolve
        .arg(site.runtime())
        .args(["web01/a", "web01/b", "web01/c"]);
    let done = finish(&mut resolve).exits(16).says(&["web01/b", "web01/c"]);
    assert_eq!(done.stderr.matches("error:").count(), 2, "{}", done.stderr);
    assert!(done.stdout.is_empty());
    // Several kinds have no one exit status.
    let root = site.path("data/secrets/secrets/web01");
    let file = fs::read_dir(&root)
        .expect("the store")
        .next()
        .expect("a secret")
        .expect("entry");
    fs::write(file.path(), "damaged").expect("written");
    let mut resolve = site.keyhaul(["resolve", "--runtime-dir"]);
    resolve.arg(site.runtime()).args(["web01/a", "web01/b"]);
    finish(&mut resolve)
        .exits(1)
        .says(&["corrupt", "not found"]);
}

#[test]
fn each_kind_of_failure_has_its_exit_status() {
    let site = Site::new();
    site.set("web01/x", b"x");
    let end = |arguments: &[&str]| {
        finish(&mut site.keyhaul(arguments))
            .status
            .code()
            .expect("a status")
    };
    assert_eq!(end(&["no-such-command"]), 2);
    assert_eq!(end(&["get", "web01"]), 2);
    assert_eq!(end(&["generate", "web01/x"]), 10);
    assert_eq!(end(&["set", "web01/x", "--if-version", "999"]), 11);
    assert_eq!(end(&["get", "web01/none"]), 16);
    assert_eq!(end(&["get", "web01/x#field"]), 24);
    assert_eq!(end(&["--config", "no-such-file", "get", "web01/x"]), 14);
    let file = site.path("data/secrets/secrets/web01/x.secret");
    let sound = fs::read(&file).expect("the secret");
    fs::write(&file, &sound[..sound.len() - 1]).expect("written");
    assert_eq!(end(&["get", "web01/x"]), 12);
    fs::write(&file, &sound).expect("written");
    assert_eq!(end(&["get", "web01/x"]), 0);
    let mode = |mode| {
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .expect("mode")
    };
    mode(0o644);
    assert_eq!(end(&["get", "web01/x"]), 17);
    mode(0o600);
    fs::write(site.path("state/identity"), "AGE-SECRET-KEY-1NONSENSE\n").expect("written");
    assert_ne!(end(&["get", "web01/x"]), 0);
}

#[test]
fn the_embedded_default_serves_a_bare_machine() {
    let site = Site::new();
    fs::remove_file(site.path("keyhaul.toml")).expect("removed");
    let bare = |arguments: &[&str]| {
        let mut command = site.keyhaul(arguments);
        command.env_remove("KEYHAUL_CONFIG");
        finish(&mut command)
    };
    bare(&["get", "web01/x"]).exits(16).says(&["default"]);
    bare(&["generate", "web01/x"]).ok();
    assert_eq!(bare(&["get", "web01/x"]).ok().stdout.len(), 32);
    assert!(site.path("state/keyhaul/identity").exists());
    // A policy that was named and is not there is an error, not the default.
    finish(&mut site.keyhaul(["get", "web01/x"]))
        .exits(14)
        .says(&["keyhaul.toml"]);
}
