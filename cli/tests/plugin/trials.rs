//! `plugin test` on plugins that keep the contract.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::site::Site;

#[test]
fn every_example_passes_as_it_is_and_under_the_layers() {
    let site = Site::new();
    let kept = format!("--arg={}", site.memory("kept"));
    let database = format!("--arg={}", site.memory("database") + "/secrets.db");
    for (path, more) in [
        (site.jar(), None),
        (site.rust_jar(), None),
        (site.program("shell/folder.sh"), Some(kept)),
        (site.program("python/database.py"), Some(database)),
    ] {
        for layers in [None, Some("--layers")] {
            let more = more.as_deref();
            let arguments: Vec<&str> = ["plugin", "test", &path, "--format=json", "--deadline=5m"]
                .into_iter()
                .chain(more)
                .chain(layers)
                .collect();
            let report = site.keyhaul(&arguments).ok().json();
            assert_eq!(report["failed"], 0, "{report}");
            assert_eq!(report["not_run"], 0);
            assert!(report["passed"].as_u64() >= Some(20), "{report}");
            assert_eq!(report["layers"], layers.is_some());
            let digest = report["plugin"]["sha256"].as_str().expect("a digest");
            assert_eq!(digest, sha256sum(&site, &path));
        }
    }
}

#[test]
fn the_report_is_for_people_and_the_warning_for_whoever_runs_it() {
    let site = Site::new();
    let jar = site.jar();
    let done = site.keyhaul(&["plugin", "test", &jar]).ok();
    done.says("trial- and a random number")
        .prints(&format!("library {jar}\nis jar-in-c 1.0\n"))
        .prints("\ncan read write create delete list generate\n")
        .prints("\npassed  deleting what is not there succeeds\n")
        .prints(" passed, 0 failed\n");
    // Nobody at a terminal: no line that is written over.
    assert!(!site.keyhaul(&["plugin", "test", &jar]).words.contains('\r'));
}

#[test]
fn options_are_given_as_values_and_from_a_file() {
    let site = Site::new();
    let jar = site.rust_jar();
    site.write("lid", "a long passphrase", 0o600);
    let lid = format!("lid=file:{}", site.text("lid"));
    let test =
        |more: &[&str]| site.keyhaul(&[&["plugin", "test", &jar, "--format=json"], more].concat());
    let report = test(&["--option", "largest=100", "--option", &lid])
        .ok()
        .json();
    assert_eq!(report["plugin"]["max_value"], 100);
    let file = site.write(
        "trial.toml",
        &format!("largest = 200\n{}\n", lid.replace('=', "=\"") + "\""),
        0o600,
    );
    let report = test(&["--options-file", &file]).ok().json();
    assert_eq!(report["plugin"]["max_value"], 200);
    // What the command line says holds over the file.
    let both = test(&["--options-file", &file, "--option=largest=300"]).ok();
    assert_eq!(both.json()["plugin"]["max_value"], 300);
    // The plugin gets the bytes, since it refuses others.
    site.write("lid", "short", 0o600);
    let refused = test(&["--option", &lid]).ends(super::INVALID_CONFIG);
    assert_eq!(refused.json()["refused"]["kind"], "InvalidConfig");
    refused.says("at least 8 bytes");
    test(&["--option", "larges=1"])
        .ends(super::INVALID_CONFIG)
        .says("at: --option larges")
        .says("did you mean `largest`?");
    test(&["--option", "hunter2"])
        .ends(super::INVALID_CONFIG)
        .says("an option is KEY=VALUE");
    site.write("trial.toml", "largest = 1\nlargest = 2\n", 0o600);
    test(&["--options-file", &file])
        .ends(super::INVALID_CONFIG)
        .says("trial.toml:2:");
}

#[test]
fn a_person_at_a_terminal_sees_it_go_on() {
    let site = Site::new();
    let jar = site.jar();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let terminal = terminal.expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("named");
    let name = name.to_str().expect("UTF-8").to_owned();
    let slave = File::options().write(true).open(name).expect("opened");
    let mut command = site.command(env!("CARGO_BIN_EXE_keyhaul"));
    let command = command
        .args(["plugin", "test", &jar])
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(slave);
    let mut child = command.spawn().expect("started");
    // The command has a copy of the terminal's end, which must go for the reading to end.
    command.stderr(Stdio::null());
    let mut shown = Vec::new();
    let mut piece = [0; 4096];
    // Once nobody writes any more, a terminal gives an error.
    while let Ok(read @ 1..) = File::from(terminal.try_clone().expect("cloned")).read(&mut piece) {
        shown.extend_from_slice(&piece[..read]);
    }
    assert!(child.wait().expect("ended").success());
    let shown = String::from_utf8(shown).expect("text");
    let first = "[1/45] a value comes back to the byte, whatever its bytes are";
    assert!(shown.contains(first), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[K"), "{shown:?}");
}

pub fn sha256sum(site: &Site, path: &str) -> String {
    let done = site
        .command("sha256sum")
        .arg(path)
        .output()
        .expect("sha256sum");
    String::from_utf8_lossy(&done.stdout)[..64].to_owned()
}
