//! Every way to fail, at the highest verbosity: the words name the place, never the secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyhaul_hygiene::program::{Running, is_full};
use keyhaul_hygiene::{House, assert_clean, search};

const CORRUPT: i32 = 12;
const INVALID_CONFIG: i32 = 14;
const NOT_FOUND: i32 = 16;
const TIMEOUT: i32 = 20;
const TOO_LARGE: i32 = 21;
const RUN: i32 = 125;

/// A house with the canary in it as `web01/root`.
fn furnished() -> House {
    let house = House::new();
    house.succeeds(&["set", "web01/root"], house.canary().bytes());
    house.also_store_keys();
    house
}

fn secret_file(house: &House, name: &str) -> PathBuf {
    house
        .default_store()
        .1
        .join(format!("secrets/web01/{name}.secret"))
}

#[test]
fn damaged_missing_and_expired_secrets() {
    let house = furnished();
    let canary = house.canary().bytes().to_vec();
    house.succeeds(&["set", "web01/other"], &canary);
    let good = fs::read(secret_file(&house, "root")).expect("a secret");
    let cut = good[..good.len() - 5].to_vec();
    let mut flipped = good.clone();
    flipped[good.len() - 20] ^= 1;
    let foreign = fs::read(secret_file(&house, "other")).expect("a secret");
    for bad in [
        cut,
        flipped,
        foreign,
        b"no secret at all".to_vec(),
        canary.clone(),
    ] {
        fs::write(secret_file(&house, "root"), bad).expect("written");
        house.fails(CORRUPT, &["get", "web01/root"], b"");
        house.fails(CORRUPT, &["stat", "web01/root"], b"");
        house.fails(CORRUPT, &["resolve", "web01/root", "web01/other"], b"");
        let object = "secret,id=s,ref=web01/root";
        house.fails(
            RUN,
            &["run", "--", "qemu-io", "--object", object, "-c", "quit"],
            b"",
        );
    }
    fs::write(secret_file(&house, "root"), good).expect("written");

    house.fails(NOT_FOUND, &["get", "web01/absent"], b"");
    house.fails(NOT_FOUND, &["get", "web01/root?version=9"], b"");
    house.fails(
        NOT_FOUND,
        &["resolve", "web01/root", "web01/absent", "web01/gone"],
        b"",
    );
    house.succeeds(&["set", "web01/brief", "--expires", "1ms"], &canary);
    house.fails(NOT_FOUND, &["get", "web01/brief"], b"");
    house.tells(&["get", "web01/brief", "--expired"]);
    house.fails(10, &["set", "web01/root", "--create"], &canary);
    house.fails(11, &["set", "web01/root", "--if-version", "7"], &canary);
    house.end(&[]);
}

#[test]
fn values_too_large_and_writers_that_wait() {
    let house = furnished();
    let large = house.canary().bytes().repeat(30_000);
    assert!(large.len() > 1 << 20);
    house.fails(TOO_LARGE, &["set", "web01/large"], &large);
    house.fails(TOO_LARGE, &["set", "web01/large"], &large.repeat(12));

    let lock = house.default_store().1.join(".lock");
    let lock = fs::File::open(&lock).expect("the lock");
    // SAFETY: a system call on a descriptor of ours.
    let locked = unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&lock), libc::LOCK_EX) };
    assert_eq!(locked, 0);
    let waiting = ["--deadline", "300ms", "set", "web01/root"];
    house.fails(TIMEOUT, &waiting, house.canary().bytes());
    drop(lock);
    house.end(&[]);
}

#[test]
fn values_that_are_not_what_the_route_says() {
    let house = House::new();
    let plain = house.inside().join("plain/web01");
    fs::create_dir_all(&plain).expect("folder");
    for folder in [&plain, &house.inside().join("plain")] {
        fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).expect("mode");
    }
    let canary = [b"!", house.canary().bytes()].concat();
    house.write("plain/web01/root", canary);
    for encoding in ["base64", "hex"] {
        let inside = house.inside().display();
        let policy = house.write(
            "keyhaul.toml",
            format!(
                "version = 1\n[stores.plain]\nurl = \"file+plain://{inside}/plain\"\n\
                 [[routes]]\nmatch = \"**\"\nstore = \"plain\"\nencoding = \"{encoding}\"\n"
            ),
        );
        let policy = policy.display().to_string();
        for command in [["get", "web01/root"], ["resolve", "web01/root"]] {
            let line = [&["--config", policy.as_str()], &command[..]].concat();
            house.fails(CORRUPT, &line, b"");
        }
        let refs = house.write("refs", "web01/root\n").display().to_string();
        house.fails(
            CORRUPT,
            &["--config", &policy, "check", "--refs", &refs],
            b"",
        );
    }
    let plain = house.inside().join("plain");
    house.end(&[&plain]);
}

#[test]
fn values_that_their_device_cannot_use() {
    let house = furnished();
    let canary = house.canary().bytes().to_vec();
    house.succeeds(
        &["set", "web01/nul"],
        &[&canary, &b"\0"[..], &canary].concat(),
    );
    house.succeeds(&["set", "web01/line"], &[&canary, &b"\n"[..]].concat());
    house.succeeds(&["set", "web01/long"], &canary.repeat(6));
    let run = |strict: &[&str], reference: &str, device: &[&str]| {
        let object = format!("secret,id=s,ref=web01/{reference}");
        let start = [
            "--",
            "qemu-system-x86_64",
            "-M",
            "none",
            "-display",
            "none",
            "-object",
            &object,
        ];
        let line = [&["run"], strict, &start, device].concat();
        house.fails(RUN, &line, b"")
    };
    let luks = [
        "-blockdev",
        "driver=luks,node-name=d,key-secret=s,file.driver=null-co",
    ];
    run(&[], "nul", &luks);
    run(&["--strict"], "line", &luks);
    run(&["--strict"], "root", &["-vnc", "none,password-secret=s"]);
    run(&[], "long", &["-spice", "port=5999,password-secret=s"]);
    house.end(&[]);
}

#[test]
fn programs_that_do_not_start_or_fail_and_outputs_that_are_full() {
    let house = furnished();
    let object = ["-object", "secret,id=s,ref=web01/root"];
    house.fails(
        RUN,
        &[&["run", "--", "/no/such/program"], &object[..]].concat(),
        b"",
    );
    house.fails(
        RUN,
        &[&["run", "--exec", "--", "/no/such/program"], &object[..]].concat(),
        b"",
    );
    house.fails(1, &[&["run", "--", "false"], &object[..]].concat(), b"");
    let runtime_dir = house.runtime_dir();
    let run = ["run", "--channel", "file", "--runtime-dir", &runtime_dir];
    let shell = ["--", "sh", "-c", "kill -9 $$", "sh"];
    house.silent(&[&run, &shell[..], &object].concat(), b"");

    // Standard output that takes nothing: the value has nowhere to go, not even an error.
    let mut command = house.keyhaul(&["get", "web01/root"]);
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    command.stdout(full).stderr(std::process::Stdio::piped());
    let done = command
        .spawn()
        .and_then(std::process::Child::wait_with_output);
    let done = done.expect("ended");
    assert!(!done.status.success());
    assert_clean(&search("standard error", &done.stderr, &[house.canary()]));
    house.end(&[]);
}

/// A secret written where its source belongs, and keys that are damaged: nothing is quoted.
#[test]
fn secrets_in_the_wrong_place_of_a_policy_and_damaged_identities() {
    let house = furnished();
    let canary = String::from_utf8(house.canary().bytes().to_vec()).expect("letters");
    let (identity, _) = house.default_store();
    let key = fs::read_to_string(&identity).expect("an identity");
    let key = key.lines().last().expect("a key").to_owned();
    let store =
        |rest: &str| format!("version = 1\n[stores.s]\nurl = \"file:///nowhere\"\n{rest}\n");
    let policies = [
        store(&format!("identity = \"{canary}\"")),
        store(&format!("identity = \"{key}\"")),
        store(&format!(
            "identity = \"file:/nowhere\"\nrecipients = [\"{key}\"]"
        )),
        format!("version = 1\n[stores.s]\nurl = \"file://user:{canary}@host/nowhere\"\n"),
    ];
    for policy in policies {
        let path = house.outside().join("policy.toml");
        fs::write(&path, &policy).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        let path = path.display().to_string();
        let routed = format!("{policy}[[routes]]\nmatch = \"**\"\nstore = \"s\"\n");
        fs::write(&path, routed).expect("written");
        house.fails(INVALID_CONFIG, &["--config", &path, "check"], b"");
        house.fails(
            INVALID_CONFIG,
            &["--config", &path, "get", "web01/root"],
            b"",
        );
    }
    let mut damaged = key.clone().into_bytes();
    damaged[30] = if damaged[30] == b'Q' { b'P' } else { b'Q' };
    replace(&identity, &damaged);
    house.fails(INVALID_CONFIG, &["get", "web01/root"], b"");
    replace(&identity, format!("{key}\nand {canary}\n").as_bytes());
    house.fails(INVALID_CONFIG, &["get", "web01/root"], b"");
    replace(&identity, key.as_bytes());
    fs::set_permissions(&identity, PermissionsExt::from_mode(0o644)).expect("mode");
    house.fails(17, &["get", "web01/root"], b"");
    house.end(&[]);
}

fn replace(file: &Path, content: &[u8]) {
    fs::write(file, content).expect("written");
}

/// keyhaul is shot while it holds the value: no core is left, where another program's is.
#[test]
fn a_crash_leaves_no_core() {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let house = furnished();
    let large = house.canary().bytes().repeat(4000);
    house.succeeds(&["set", "web01/large"], &large);
    let shot = |mut command: std::process::Command| {
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
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .map(Running::from)
            .expect("started");
        let output = child.stdout.as_ref().expect("piped");
        assert!(is_full(output), "it does not fill the pipe");
        // SAFETY: a signal to a child of ours that has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGABRT) };
        child.wait()
    };
    let mut control = house.furnish(std::process::Command::new("yes"));
    control.arg("control");
    let control = shot(control);
    assert_eq!(control.signal(), Some(libc::SIGABRT));
    let ended = shot(house.keyhaul(&["get", "web01/large"]));
    assert_eq!(ended.signal(), Some(libc::SIGABRT));
    assert!(!ended.core_dumped());
    assert!(
        control.core_dumped(),
        "no program leaves a core here, so that nothing can be said of keyhaul: see /proc/sys/kernel/core_pattern"
    );
    // The control's own, where the kernel puts it beside the program.
    let entries = fs::read_dir(house.inside()).expect("a folder");
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("core") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    house.end(&[]);
}
