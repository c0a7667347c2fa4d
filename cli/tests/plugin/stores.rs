//! Stores by plugins, in the commands that every store serves.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::NOT_FOUND;
use super::site::{Done, Site};

fn set(site: &Site, reference: &str, value: &str) -> Done {
    let mut command = site.command(env!("CARGO_BIN_EXE_keyhaul"));
    let mut child = command
        .args(["--config", &site.text("keyhaul.toml"), "set", reference])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(value.as_bytes()).expect("taken");
    drop(input);
    Done::from(child.wait_with_output().expect("ended"))
}

#[test]
fn a_program_serves_every_command() {
    let site = Site::new();
    let program = site.program("python/database.py");
    let database = site.text("secrets.db");
    let copied = site.text("copied");
    site.policy(&format!(
        "url = \"plugin+exec://{program}\"\nargs = [\"{database}\"]\n\
         [stores.files]\nurl = \"file://{copied}\"\nidentity = \"file:{copied}.key\"\ncreate = true"
    ));
    set(&site, "web01/disk", "hunter2").ok();
    site.by_policy(&["generate", "web01/other"]).ok();
    assert_eq!(site.by_policy(&["get", "web01/disk"]).ok().out, "hunter2");
    site.by_policy(&["list"])
        .ok()
        .prints("web01/disk\nweb01/other\n");
    site.by_policy(&["stat", "web01/disk"])
        .ok()
        .prints("version:");
    site.by_policy(&["explain", "web01/disk"])
        .ok()
        .prints("plugin+exec://");
    site.by_policy(&["check"])
        .ok()
        .prints("plugin+exec://")
        .prints("it can: read");
    site.by_policy(&["copy", "--from", "odd", "--to", "files"])
        .ok()
        .says("2 copied");
    site.by_policy(&["delete", "--yes", "web01/disk"]).ok();
    site.by_policy(&["get", "web01/disk"]).ends(NOT_FOUND);
}

#[test]
fn a_library_serves_the_commands_that_its_memory_lasts_for() {
    let site = Site::new();
    let jar = site.jar();
    let copied = site.text("copied");
    site.policy(&format!(
        "url = \"plugin://{jar}\"\n\
         [stores.files]\nurl = \"file://{copied}\"\nidentity = \"file:{copied}.key\"\ncreate = true\n\
         [[routes]]\nmatch = \"files/*\"\nstore = \"files\"\npath = \"{{name}}\""
    ));
    set(&site, "web01/disk", "hunter2").ok();
    // It keeps nothing longer than the process.
    site.by_policy(&["get", "web01/disk"]).ends(NOT_FOUND);
    site.by_policy(&["list"]).ok();
    site.by_policy(&["check"])
        .ok()
        .prints("it can: read write create delete list generate");
    site.by_policy(&["explain", "web01/disk"])
        .ok()
        .prints("plugin://");
    set(&site, "files/disk", "hunter2").ok();
    let copy = ["copy", "--from", "files", "--to", "odd", "--verify"];
    site.by_policy(&copy).ok().says("1 copied");
}

#[test]
fn a_plugin_that_does_not_load_fails_its_store_and_no_other() {
    let site = Site::new();
    let jar = site.jar();
    let kept = site.text("kept");
    site.policy(&format!(
        "url = \"plugin://{jar}\"\nsha256 = \"{}\"\n\
         [stores.files]\nurl = \"file://{kept}\"\nidentity = \"file:{kept}.key\"\ncreate = true\n\
         [[routes]]\nmatch = \"files/*\"\nstore = \"files\"",
        "0".repeat(64)
    ));
    let refused = site
        .by_policy(&["get", "web01/disk"])
        .ends(super::PERMISSION_DENIED);
    refused
        .says("is not the one that the policy pins")
        .says("keyhaul.toml:2:");
    set(&site, "files/disk", "hunter2").ok();
    assert_eq!(site.by_policy(&["get", "files/disk"]).ok().out, "hunter2");
}

/// The library's threads are still there while `run` waits, and must not be the ones that a signal
/// ends keyhaul on.
#[test]
fn run_passes_signals_on_although_a_library_has_threads() {
    let site = Site::new();
    let jar = site.jar();
    let contents = site.write("contents", "web01/disk hunter2\n", 0o600);
    site.policy(&format!(
        "url = \"plugin://{jar}\"\noptions = {{ contents = \"file:{contents}\" }}"
    ));
    let ready = site.text("ready");
    let script =
        format!("trap 'exit 7' TERM; : >{ready}; for i in $(seq 3000); do sleep 0.01; done");
    let mut command = site.command(env!("CARGO_BIN_EXE_keyhaul"));
    let mut child = command
        .args(["--config", &site.text("keyhaul.toml"), "run", "--"])
        .args(["sh", "-c", &script])
        .args(["-object", "secret,id=a,ref=web01/disk"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let begun = Instant::now();
    while !site.path("ready").exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it does not start"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // The control: there are such threads.
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("tasks");
    assert!(threads.count() > 1);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(7));
}

/// A program starts with the signals that programs expect, although our own threads block them.
#[test]
fn a_program_takes_signals() {
    let site = Site::new();
    let seen = site.text("seen");
    let text = std::fs::read_to_string(super::site::examples().join("shell/folder.sh"));
    let text = text.expect("the example").replacen(
        "umask 077; ",
        &format!("umask 077; grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status >{seen}; "),
        1,
    );
    let program = site.write("folder.sh", &text, 0o755);
    let folder = site.folder("kept");
    site.policy(&format!(
        "url = \"plugin+exec://{program}\"\nargs = [\"{folder}\"]"
    ));
    site.by_policy(&["get", "web01/disk"]).ends(NOT_FOUND);
    let status = std::fs::read_to_string(&seen).expect("it ran");
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line").trim().to_owned()
    };
    // The C library keeps those from 32 on to itself.
    let below_32 = |status: &str, name: &str| {
        u64::from_str_radix(&field(status, name), 16).expect("a mask") & 0x7fff_ffff
    };
    assert_eq!(below_32(&status, "SigBlk:"), 0);
    // A shell in the background ignores some for all that it starts. Our own runtime ignores SIGPIPE.
    let ours = std::fs::read_to_string("/proc/self/status").expect("our own");
    let inherited = below_32(&ours, "SigIgn:") & !(1 << (Signal::PIPE.as_raw() - 1));
    assert_eq!(below_32(&status, "SigIgn:"), inherited);
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
}

#[test]
fn help_knows_plugins() {
    let site = Site::new();
    let backends = site.keyhaul(&["help", "backends"]).ok();
    let backends = backends.prints("\nplugin\n  a plugin: a library");
    backends
        .prints("\nplugin+exec\n")
        .prints("\n    sha256: a text ");
    site.keyhaul(&["help", "plugin", "test"])
        .ok()
        .prints("--options-file");
    let help = site.keyhaul(&["--help"]).ok();
    help.prints("\n  plugin       Look at plugins");
    // What is only for ourselves is nobody's to see.
    for shell in ["bash", "zsh", "fish"] {
        let script = site
            .keyhaul(&["completions", shell])
            .ok()
            .prints("options-file");
        assert!(!script.out.contains("worker"), "{shell}");
    }
    site.folder("man");
    site.keyhaul(&["man", "--output", "man"]).ok();
    let page = std::fs::read_to_string(site.path("man/keyhaul-plugin-test.1")).expect("a page");
    assert!(
        page.contains(r"options\-file") && !page.contains("worker"),
        "{page}"
    );
}

/// One that hangs takes its own time only, and no more than is given.
#[test]
fn check_asks_every_store_within_the_deadline() {
    let site = Site::new();
    let (jar, silent) = (
        site.jar(),
        site.write("silent.sh", "#!/bin/sh\nexec sleep 600\n", 0o755),
    );
    site.policy(&format!(
        "url = \"plugin://{jar}\"\n[stores.a-silent]\nurl = \"plugin+exec://{silent}\""
    ));
    let begun = std::time::Instant::now();
    let done = site
        .by_policy(&["check", "--deadline=2s"])
        .ends(super::TIMEOUT);
    // A silent program is given eight seconds, three times.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    let deadline = "store a-silent: timed out: the deadline passed";
    done.prints(deadline).prints("store odd: plugin:");
}
