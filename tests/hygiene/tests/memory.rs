//! keyhaul's own memory, while the program it started runs: every value and key was dropped by then,
//! and nothing of them is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use keyhaul_hygiene::hunt::own_memory;
use keyhaul_hygiene::program::{Running, is_full, keyhaul, wait_until};
use keyhaul_hygiene::{House, memory, process};

const NOBODY: u32 = 65534;

fn furnished() -> House {
    let house = House::new();
    house.succeeds(&["set", "web01/root"], house.canary().bytes());
    house.succeeds(
        &["set", "web01/large"],
        &house.canary().bytes().repeat(1500),
    );
    house.also_store_keys();
    house
}

fn hunt(channel: &str) {
    let house = furnished();
    own_memory(&house, &["--channel", channel]);
    house.end(&[]);
}

#[test]
fn nothing_is_left_while_a_program_runs_that_got_its_key_by_pipe() {
    hunt("pipe");
}

#[test]
fn nothing_is_left_while_a_program_runs_that_got_its_key_by_file() {
    hunt("file");
}

#[test]
fn nothing_is_left_while_a_program_runs_that_got_its_key_by_keyring() {
    hunt("keyring");
}

/// The control: keyhaul that is held in the middle of writing a value has it, and the key of the
/// store, in its memory, and is found out.
#[test]
fn what_keyhaul_still_holds_is_found() {
    let house = furnished();
    let mut child = house
        .keyhaul(&["get", "web01/large"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Running::from)
        .expect("started");
    let output = child.stdout.take().expect("piped");
    assert!(is_full(&output));
    let needles = house.needles();
    let store_key = needles.last().expect("the store key");
    assert_eq!(store_key.name(), "the store key");
    for needle in [house.canary(), store_key] {
        let scanned = memory::scan(child.id(), &[needle]).expect("readable by root");
        assert!(!scanned.finds.is_empty(), "{needle:?}");
    }
    drop(output);
    child.wait();
    house.end(&[]);
}

/// A user's keyhaul is closed to that user's other programs: no debugger, no memory, no
/// environment; and it would leave no core. The program it starts gets its limits back.
#[test]
fn another_program_of_the_same_user_cannot_look_into_it() {
    let house = House::new();
    let place = house.outside().join("bin");
    fs::create_dir(&place).expect("folder");
    // Where the user can reach it, wherever the workspace is.
    let program = place.join("keyhaul");
    // By a program of its own: a descriptor of ours to write to it could still be open in a child that
    // another test has just forked, and what is open to be written to does not start.
    let copied = Command::new("cp").arg(keyhaul()).arg(&program).status();
    assert!(copied.expect("cp").success());
    for folder in [&place, &program] {
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("mode");
    }
    for name in ["home", "tmp", "run"] {
        let folder = house.inside().join(name);
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("given away");
    }
    let set = ["set", "web01/root"];
    let (status, _, words) = keyhaul_hygiene::program::finish(
        as_nobody(&house, &program).args(set),
        house.canary().bytes(),
    );
    assert!(status.success(), "{}", String::from_utf8_lossy(&words));

    let line = [
        "run",
        "--",
        "sh",
        "-c",
        "read line; exit 0",
        "qemu",
        "-object",
        "secret,id=s,ref=web01/root",
    ];
    let mut child = as_nobody(&house, &program)
        .args(line)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Running::from)
        .expect("started");
    assert!(wait_until(
        || process::descendants(child.id()).len() == 1 && process::sleeps(child.id())
    ));
    let shell = process::descendants(child.id())[0];
    assert!(wait_until(|| process::arguments(shell)
        .first()
        .is_some_and(|word| word == "sh")));
    for file in ["mem", "environ"] {
        assert!(!readable_by_nobody(&house, child.id(), file), "{file}");
        assert!(
            readable_by_nobody(&house, shell, file),
            "the control: {file} of the program"
        );
    }
    assert!(!traceable_by_nobody(&house, child.id()));
    assert!(
        traceable_by_nobody(&house, shell),
        "the control: the program"
    );
    assert_eq!(core_limit(child.id()), "0");
    assert_eq!(core_limit(shell), "unlimited");
    drop(child.stdin.take());
    assert!(child.wait().success());
    house.end(&[]);
}

/// A program as the user nobody, with no limit on cores.
fn as_nobody(house: &House, program: &Path) -> Command {
    let mut command = house.furnish(Command::new(program));
    command.uid(NOBODY).gid(NOBODY);
    // SAFETY: a system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let all = libc::rlimit {
                rlim_cur: libc::RLIM_INFINITY,
                rlim_max: libc::RLIM_INFINITY,
            };
            match libc::setrlimit(libc::RLIMIT_CORE, &all) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    command
}

fn readable_by_nobody(house: &House, pid: u32, file: &str) -> bool {
    let mut command = as_nobody(house, Path::new("sh"));
    // Opening is what is refused: of the memory itself, the first page is never mapped.
    command
        .args(["-c", &format!("exec <\"/proc/{pid}/{file}\"")])
        .stderr(Stdio::null());
    command.status().expect("sh").success()
}

fn traceable_by_nobody(house: &House, pid: u32) -> bool {
    let script = "import ctypes, os, sys\npid = int(sys.argv[1])\nlibc = ctypes.CDLL(None)\n\
        if libc.ptrace(16, pid, 0, 0) != 0: sys.exit(1)\nos.waitpid(pid, 0x40000000)\nlibc.ptrace(17, pid, 0, 0)";
    let mut command = as_nobody(house, Path::new("/usr/bin/python3"));
    command.args(["-c", script, &pid.to_string()]);
    command.status().expect("python3").success()
}

/// The soft limit on the size of a core.
fn core_limit(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.expect("a limit").to_owned()
}
