//! Hunts that are the same whatever store the policy names.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;

use crate::program::{Running, collect, wait_until};
use crate::qemu::{Qmp, Volume};
use crate::trace::{Call, Trace};
use crate::{House, Needle, assert_clean, files, memory, process, search};

/// What QEMU's own program says when it has read the volume.
pub const READ: &str = "read 4096/4096 bytes";

/// The one call that hands over the master key: 32 bytes into a pipe, a file or a keyring.
fn gives(call: &Call) -> bool {
    let whole = call.strings.last().is_some_and(|text| text.len() == 32);
    let logs = call.writes_to(1) || call.writes_to(2) || call.socket.is_some();
    whole && !logs && ["write", "add_key"].contains(&call.name.as_str())
}

/// That call, and QEMU's that reads the key from a keyring.
pub fn hands_over(call: &Call) -> bool {
    gives(call) || call.name == "keyctl" && call.strings.iter().all(|text| text.len() == 32)
}

/// The master key that a trace shows, and shows once.
///
/// # Panics
/// Where it does not.
#[track_caller]
pub fn master_key(trace: &Trace) -> Needle {
    let calls: Vec<&Call> = trace.calls().iter().filter(|call| gives(call)).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    Needle::new("the master key", calls[0].strings.last().expect("the key"))
}

/// The canary through every command, save what only one kind of store can do. It comes out of `get`,
/// and nowhere else.
#[track_caller]
pub fn commands(house: &House) {
    let canary = house.canary().bytes().to_vec();
    let file = house.canary_file().display().to_string();
    house.succeeds(&["set", "web01/root", "--from", &file], b"");
    let line = [canary.as_slice(), b"\n"].concat();
    house.succeeds(&["set", "web01/line"], &line);
    house.succeeds(&["set", "web01/line", "--strip-newline"], &line);
    // What is no text, and what JSON escapes.
    let binary = [b"\xff\x00\"\\", canary.as_slice()].concat();
    house.succeeds(&["set", "web01/binary"], &binary);
    assert_eq!(house.tells(&["get", "web01/root"]).stdout, canary);
    assert_eq!(house.tells(&["get", "web01/line"]).stdout, canary);
    assert_eq!(house.tells(&["get", "web01/binary"]).stdout, binary);
    house.tells(&["get", "web01/line", "--format", "json"]);

    let refs = house.write("refs", "web01/root\nweb01/line\nweb01/binary\n");
    let refs = refs.display().to_string();
    for format in ["text", "json"] {
        house.succeeds(&["list", "--format", format], b"");
        house.succeeds(&["stat", "web01/line", "--format", format], b"");
        house.succeeds(&["explain", "web01/root", "--format", format], b"");
        house.succeeds(&["check", "--refs", &refs, "--format", format], b"");
    }
    let runtime_dir = house.runtime_dir();
    for format in ["args", "json", "qmp", "readconfig"] {
        let done = house.succeeds(
            &[
                "resolve",
                "--runtime-dir",
                &runtime_dir,
                "web01/root",
                "other=web01/line",
                "--format",
                format,
            ],
            b"",
        );
        let words = done.words();
        let (_, folder) = words
            .rsplit_once("--release ")
            .expect("the way to take it away");
        // Libraries have more to say behind it.
        let folder = folder.lines().next().expect("a folder").trim();
        house.succeeds(&["resolve", "--release", folder], b"");
    }
    let words = ["generate", "--overwrite", "web01/made", "--length", "48"];
    let done = house.succeeds(&words, b"");
    let value = house.run(&["get", "web01/made"], b"").stdout;
    let needle = Needle::new("the generated value", &value);
    assert_clean(&done.streams(&[&needle]));
    assert_clean(&house.scan_trace(&done.trace, &[&needle], |_| false));
    house.also(needle);
    let all = [
        "delete",
        "--yes",
        "web01/root",
        "web01/line",
        "web01/binary",
    ];
    house.succeeds(&all, b"");
    house.fails(16, &["get", "web01/root"], b"");
}

/// Starts a system emulator through keyhaul, talks to it, ends it, and looks everywhere. The canary
/// opens the volume and is stored as `web01/root`.
///
/// # Panics
/// With every find.
#[track_caller]
pub fn system(house: House, volume: &Volume, options: &[&str]) {
    let (socket, log) = (house.outside().join("qmp"), house.inside().join("qemu.log"));
    let runtime_dir = house.runtime_dir();
    let mut line: Vec<OsString> = ["run", "--runtime-dir", &runtime_dir]
        .iter()
        .chain(options)
        .chain(&["--"])
        .map(Into::into)
        .collect();
    line.extend(volume.system(&socket, &log));
    line.extend(["-object".into(), "secret,id=root,ref=web01/root".into()]);
    let (mut command, file) = house.traced::<OsString>(&line);
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
    assert_clean(&process::scan_all(&[canary, &master]));
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
    let trace = Trace::read(&file).expect("a trace");
    assert_clean(&house.scan_trace(&trace, &needles, hands_over));
    assert_clean(&kept());
    house.end(&[]);
}

/// keyhaul's own memory while the program it started runs: of the values `web01/root` and `web01/large`,
/// of the master key and of what opens the store, nothing is left.
///
/// # Panics
/// With every find.
#[track_caller]
pub fn own_memory(house: &House, options: &[&str]) {
    let (mut child, master) = waiting(house, options);
    assert!(wait_until(|| process::sleeps(child.id())));
    let needles = house.needles();
    let (given, mut needles): (Vec<&Needle>, Vec<&Needle>) = needles
        .iter()
        .map(AsRef::as_ref)
        .partition(|needle| house.is_in_environment(needle));
    needles.push(&master);
    let scanned = memory::scan(child.id(), &needles).expect("readable by root");
    assert!(
        scanned.bytes > 100_000 && scanned.mappings > 3,
        "{scanned:?}"
    );
    assert_clean(&scanned.finds);
    if !given.is_empty() {
        let all = memory::scan(child.id(), &given).expect("readable by root");
        assert_eq!(all.finds.len(), given.len(), "the control: {:?}", all.finds);
        let environment = memory::environment(child.id()).expect("a child of ours");
        let beside = memory::scan_but(child.id(), &environment, &given);
        assert_clean(&beside.expect("readable by root").finds);
    }
    drop(child.stdin.take());
    assert!(child.wait().success());
}

/// A shell script in QEMU's place: it copies the master key to a file, as QEMU would read it, and waits
/// until its standard input ends.
fn keeper(house: &House) -> (PathBuf, PathBuf) {
    let (program, copy) = (house.outside().join("keeper"), house.outside().join("key"));
    let script = format!(
        r#"for word; do
    case $word in
        secret,*file=*) cat "${{word##*file=}}" >{copy}.new ;;
        secret_keyring,*serial=*) keyctl pipe "${{word##*serial=}}" >{copy}.new ;;
    esac
done
mv {copy}.new {copy}
read line
exit 0
"#,
        copy = copy.display()
    );
    fs::write(&program, script).expect("written");
    (program, copy)
}

/// keyhaul that waits for the keeper, and the master key it handed over.
fn waiting(house: &House, options: &[&str]) -> (Running, Needle) {
    let (program, copy) = keeper(house);
    let _ = fs::remove_file(&copy);
    let program = program.display().to_string();
    let object = [
        "-object",
        "secret,id=a,ref=web01/root",
        "-object",
        "secret,id=b,ref=web01/large",
    ];
    let runtime_dir = house.runtime_dir();
    let run = ["run", "--runtime-dir", &runtime_dir];
    let line = [&run, options, &["--", "sh", &program], &object].concat();
    let child = house
        .keyhaul(&line)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Running::from)
        .expect("started");
    assert!(wait_until(|| copy.exists()), "the keeper got no key");
    let key = fs::read(&copy).expect("a key");
    assert_eq!(key.len(), 32);
    (child, Needle::new("the master key", &key))
}
