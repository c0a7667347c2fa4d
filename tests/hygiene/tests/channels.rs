//! The canary on its way to a real QEMU, by every channel: in no process's arguments or environment,
//! not in QEMU's log or its QMP, in no file; and the master key only where its channel has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use keyhaul_hygiene::needle::letters;
use keyhaul_hygiene::process::{self, scan_all};
use keyhaul_hygiene::program::{Running, collect, finish, wait_until};
use keyhaul_hygiene::qemu::{Qmp, Volume};
use keyhaul_hygiene::trace::{Call, Trace};
use keyhaul_hygiene::{House, Needle, assert_clean, files, search};
use serde_json::json;

const READ: &str = "read 4096/4096 bytes";

/// The one call that hands over the master key: 32 bytes into a pipe, a file or a keyring.
fn gives(call: &Call) -> bool {
    ["write", "add_key"].contains(&call.name.as_str())
        && call.strings.last().is_some_and(|text| text.len() == 32)
}

/// That call, and QEMU's that reads the key from a keyring.
fn hands_over(call: &Call) -> bool {
    gives(call) || call.name == "keyctl" && call.strings.iter().all(|text| text.len() == 32)
}

/// The master key that a trace shows, and shows once.
fn master_key(trace: &Trace) -> Needle {
    let calls: Vec<&Call> = trace.calls().iter().filter(|call| gives(call)).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    Needle::new("the master key", calls[0].strings.last().expect("the key"))
}

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

/// Starts a system emulator through keyhaul, talks to it, ends it, and looks everywhere.
fn hunt(options: &[&str]) {
    let house = furnished();
    let volume = &shared().1;
    let (socket, log) = (house.outside().join("qmp"), house.inside().join("qemu.log"));
    let runtime_dir = house.runtime_dir();
    let mut line: Vec<_> = ["run", "--runtime-dir", &runtime_dir]
        .iter()
        .chain(options)
        .chain(&["--"])
        .map(Into::into)
        .collect();
    line.extend(volume.system(&socket, &log));
    line.extend(["-object".into(), "secret,id=root,ref=web01/root".into()]);
    let (mut command, file) = house.traced::<std::ffi::OsString>(&line);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running::from)
        .expect("strace");
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));

    let mut qmp = Qmp::connect(&socket);
    qmp.read_volume();
    let told = qmp.objects();
    let master = master_key(&Trace::read(&file).expect("a trace"));
    let canary = house.canary();
    assert_clean(&scan_all(&[canary, &master]));
    house.is_watched("qemu-system-x86_64");
    let kept = || files::scan(house.inside(), &[], &[&master]).expect("readable");
    if options.contains(&"--keep-key") {
        assert_eq!(kept().len(), 1, "the control: a key that is kept is found");
    } else {
        assert!(wait_until(|| kept().is_empty()), "{:?}", kept());
    }
    let object = told
        .iter()
        .find(|(name, _)| name == "root.data")
        .expect("a property");
    assert!(
        object.1["return"]
            .as_str()
            .is_some_and(|data| data.len() >= 64),
        "{object:?}"
    );
    qmp.execute("quit", json!({}));
    let status = child.wait();
    let (stdout, stderr) = (stdout.join().expect("read"), stderr.join().expect("read"));
    let words = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{words}");
    let shown = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        shown.contains(READ) && !shown.contains("failed"),
        "{shown}{words}"
    );

    let needles = house.needles();
    let mut needles: Vec<&Needle> = needles.iter().map(AsRef::as_ref).collect();
    needles.push(&master);
    let log = fs::read(&log).expect("QEMU's log");
    assert!(
        log.len() > 100_000,
        "QEMU logged little: {} bytes",
        log.len()
    );
    assert_clean(&search("QMP", qmp.recorded(), &needles));
    assert_clean(&search("QEMU's log", &log, &needles));
    assert_clean(&search("standard output", &stdout, &needles));
    assert_clean(&search("standard error", &stderr, &needles));
    assert_clean(
        &Trace::read(&file)
            .expect("a trace")
            .scan(&needles, hands_over),
    );
    assert_clean(&kept());
    house.end(&[]);
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
