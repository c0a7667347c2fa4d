//! The canary on its way to a real QEMU, by every channel: in no process's arguments or environment,
//! not in QEMU's log or its QMP, in no file; and the master key only where its channel has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use keyhaul_hygiene::hunt::{READ, hands_over, master_key, system};
use keyhaul_hygiene::needle::letters;
use keyhaul_hygiene::process;
use keyhaul_hygiene::program::{Running, collect, finish, wait_until};
use keyhaul_hygiene::qemu::{Qmp, Volume};
use keyhaul_hygiene::trace::Trace;
use keyhaul_hygiene::{House, assert_clean, files, search};
use serde_json::json;

/// The canary of this file's houses, and the volume that it opens.
fn shared() -> &'static (Vec<u8>, Volume) {
    static SHARED: OnceLock<(Vec<u8>, Volume)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let passphrase = letters(48);
        let volume = Volume::new(Path::new(env!("CARGO_TARGET_TMPDIR")), &passphrase);
        (passphrase, volume)
    })
}

fn furnished() -> House {
    let house = House::with_canary(&shared().0);
    house.succeeds(&["set", "web01/root"], house.canary().bytes());
    house.also_store_keys();
    house
}

fn hunt(options: &[&str]) {
    system(furnished(), &shared().1, options);
}

#[test]
fn by_pipe() {
    hunt(&["--channel", "pipe"]);
}

#[test]
fn by_pipe_with_exec() {
    hunt(&["--channel", "pipe", "--exec"]);
}

#[test]
fn by_file() {
    hunt(&["--channel", "file"]);
}

#[test]
fn by_file_that_is_kept() {
    hunt(&["--channel", "file", "--keep-key"]);
}

#[test]
fn by_keyring() {
    hunt(&["--channel", "keyring"]);
}

#[test]
fn the_tools_read_the_disk_and_leave_no_trace() {
    let house = furnished();
    let volume = &shared().1;
    let runtime_dir = house.runtime_dir();
    for channel in ["pipe", "file", "keyring"] {
        let mut line: Vec<_> = [
            "run",
            "--runtime-dir",
            &runtime_dir,
            "--channel",
            channel,
            "--",
        ]
        .map(Into::into)
        .to_vec();
        line.extend(volume.reader());
        line.extend([
            "--object".into(),
            r#"{"qom-type":"secret","id":"root","ref":"web01/root"}"#.into(),
        ]);
        let done = house.succeeds(&line, b"");
        let shown = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(shown.contains(READ) && !shown.contains("failed"), "{shown}");
        let master = master_key(&done.trace);
        assert_clean(&done.trace.scan(&[&master], hands_over));
        assert_clean(&search(
            "output",
            &[done.stdout, done.stderr].concat(),
            &[&master],
        ));
        assert_clean(&files::scan(house.inside(), &[], &[&master]).expect("readable"));
    }
    house.end(&[]);
}

/// Objects resolved for QMP, sent to a QEMU that runs: what goes over the wire holds no secret.
#[test]
fn hotplug_by_qmp_sends_ciphertext_and_a_plain_object_would_be_seen() {
    let house = furnished();
    let volume = &shared().1;
    let runtime_dir = house.runtime_dir();
    let done = house.succeeds(
        &[
            "resolve",
            "root=web01/root",
            "--format",
            "qmp",
            "--runtime-dir",
            &runtime_dir,
        ],
        b"",
    );
    let master = master_key(&done.trace);
    let (socket, log) = (
        house.outside().join("qmp"),
        house.outside().join("qemu.log"),
    );
    let mut words = volume.system(&socket, &log);
    let blockdev = words
        .pop()
        .expect("the volume")
        .into_string()
        .expect("JSON");
    words.pop();
    let mut command = Command::new(&words[0]);
    let mut child = command
        .args(&words[1..])
        .stdout(Stdio::piped())
        .spawn()
        .map(Running::from)
        .expect("QEMU");
    let stdout = collect(child.stdout.take().expect("piped"));
    let mut qmp = Qmp::connect(&socket);
    let text = String::from_utf8(done.stdout).expect("text");
    for line in text.lines() {
        let mut add: serde_json::Value = serde_json::from_str(line).expect("QMP");
        let answer = qmp.execute("object-add", add["arguments"].take());
        assert!(answer.get("error").is_none(), "{answer}");
    }
    let answer = qmp.execute(
        "blockdev-add",
        serde_json::from_str(&blockdev).expect("JSON"),
    );
    assert!(answer.get("error").is_none(), "{answer}");
    qmp.read_volume();
    qmp.objects();
    let log_so_far = fs::read(&log).expect("a log");
    assert_clean(&search("QMP", qmp.recorded(), &[house.canary(), &master]));
    assert_clean(&search(
        "QEMU's log",
        &log_so_far,
        &[house.canary(), &master],
    ));

    // The control: the same secret in the clear is seen in QMP, and in the log.
    let text = String::from_utf8_lossy(house.canary().bytes()).into_owned();
    let plain = json!({"qom-type": "secret", "id": "plain", "data": text});
    let sent = qmp.recorded().len();
    qmp.execute("object-add", plain);
    let arguments = json!({"path": "/objects/plain", "property": "data"});
    let asked = qmp.recorded().len();
    qmp.execute("qom-get", arguments);
    for recorded in [&qmp.recorded()[sent..asked], &qmp.recorded()[asked..]] {
        assert!(!search("QMP", recorded, &[house.canary()]).is_empty());
    }
    qmp.execute("quit", json!({}));
    assert!(child.wait().success());
    let shown = String::from_utf8(stdout.join().expect("read")).expect("text");
    assert!(shown.contains(READ) && !shown.contains("failed"), "{shown}");
    let log = fs::read(&log).expect("a log");
    assert!(!search("QEMU's log", &log, &[house.canary()]).is_empty());
    house.end(&[]);
}

/// A key in a session keyring, for a QEMU that is started later in the same session.
#[test]
fn resolving_into_a_keyring_prints_ciphertext() {
    let house = furnished();
    let (strace, file) = house.traced(&["resolve", "web01/root", "--channel", "keyring"]);
    let mut session = house.furnish(Command::new("keyctl"));
    session
        .args(["session", "-"])
        .arg(strace.get_program())
        .args(strace.get_args());
    let (status, stdout, stderr) = finish(&mut session, b"");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let trace = Trace::read(&file).expect("a trace");
    let master = master_key(&trace);
    let needles = [house.canary(), &master];
    assert_clean(&trace.scan(&needles, hands_over));
    assert_clean(&search("standard output", &stdout, &needles));
    assert_clean(&search("standard error", &stderr, &needles));
    assert!(Path::new(&file).exists() && !stdout.is_empty());
    house.end(&[]);
}

/// The program's environment is the caller's, to the byte, and it inherits nothing but the pipe.
#[test]
fn the_program_gets_its_callers_environment_and_one_descriptor() {
    let house = furnished();
    let object = ["-object", "secret,id=s,ref=web01/root"];
    let script = ["sh", "-c", "read line; exit 0", "qemu"];
    let mut direct = house.furnish(Command::new(script[0]));
    direct.args(&script[1..]).args(object);
    let direct = surroundings(direct);
    assert!(
        direct
            .0
            .contains(&house.inside().join("home").display().to_string())
    );
    let runtime_dir = house.runtime_dir();
    for (channel, exec) in [
        ("pipe", false),
        ("pipe", true),
        ("file", false),
        ("keyring", false),
    ] {
        let exec: &[&str] = if exec { &["--exec"] } else { &[] };
        let options = ["run", "--runtime-dir", &runtime_dir, "--channel", channel];
        let line = [&options[..], exec, &["--"], &script, &object].concat();
        let (environment, descriptors) = surroundings(house.keyhaul(&line));
        assert_eq!(environment, direct.0, "{channel} {exec:?}");
        let more = descriptors.difference(&direct.1).count();
        assert_eq!(
            more,
            usize::from(channel == "pipe"),
            "{channel} {exec:?} {descriptors:?}"
        );
    }
    house.end(&[]);
}

/// The environment and the open descriptors of the shell that a command starts, or becomes.
fn surroundings(mut command: Command) -> (String, BTreeSet<String>) {
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map(Running::from).expect("started");
    let mut shell = None;
    let started = wait_until(|| {
        let candidates = [vec![child.id()], process::descendants(child.id())].concat();
        let is_shell = |pid: &u32| {
            process::arguments(*pid)
                .first()
                .is_some_and(|word| word == "sh")
        };
        shell = candidates.into_iter().find(is_shell);
        shell.is_some_and(process::sleeps)
    });
    assert!(started, "no shell");
    let folder = Path::new("/proc").join(shell.expect("a shell").to_string());
    let environment = fs::read(folder.join("environ")).expect("an environment");
    let entries = fs::read_dir(folder.join("fd")).expect("its descriptors");
    let descriptors = entries.map(|entry| entry.expect("one").file_name().display().to_string());
    let descriptors = descriptors.collect();
    drop(child.stdin.take());
    assert!(child.wait().success());
    (String::from_utf8(environment).expect("text"), descriptors)
}
