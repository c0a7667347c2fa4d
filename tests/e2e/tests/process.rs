//! `run` is as if the program had been started directly: its status, signals, terminal, limits and
//! arguments.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use keyhaul_e2e::{
    LIMIT, Process, Running, Site, Vm, at_terminal, finish, keyhaul, program, until,
};
use rustix::process::Signal;

const OBJECT: [&str; 2] = ["-object", "secret,id=s,ref=web01/root"];

/// A shell's words with a secret for it.
fn shell(script: &str) -> Vec<&str> {
    [&["sh", "-c", script, "sh"][..], &OBJECT].concat()
}

#[test]
fn the_exit_status_is_the_programs() {
    let site = Site::with_passphrases();
    for channel in ["pipe", "file", "keyring"] {
        let end = |script: &str| finish(&mut site.run(&["--channel", channel], shell(script)));
        for status in [0, 1, 7, 125, 255] {
            let end = end(&format!("exit {status}"));
            assert_eq!(end.status.code(), Some(status), "{channel}: {end:?}");
        }
        // Not SIGHUP, which whoever runs this by nohup ignores.
        for signal in [Signal::TERM, Signal::KILL, Signal::ALARM] {
            let number = signal.as_raw();
            let end = end(&format!("kill -{number} $$"));
            assert_eq!(end.status.signal(), Some(number), "{channel}: {end:?}");
        }
    }
    // Without a secret, and as QEMU itself.
    assert_eq!(
        finish(&mut site.run(&[], ["sh", "-c", "exit 7"]))
            .status
            .code(),
        Some(7)
    );
    assert_eq!(
        finish(&mut site.run(&["--exec"], shell("exit 7")))
            .status
            .code(),
        Some(7)
    );
}

#[test]
fn an_end_right_after_the_start_is_seen() {
    // Where it is not, one in a hundred runs waits for ever.
    let site = Site::with_passphrases();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    finish(&mut site.run(&[], shell("exit 7"))).exits(7);
                }
            });
        }
    });
}

#[test]
fn failures_of_keyhauls_own_are_125_and_name_the_kind() {
    let site = Site::with_passphrases();
    let run = |options: &[&str], words: &[&str]| finish(&mut site.run(options, words)).exits(125);
    run(&[], &["no-such-program"]).says(&["error: invalid configuration", "no-such-program"]);
    run(&["--exec"], &["no-such-program"]).says(&["no-such-program"]);
    run(&[], &["/etc/passwd"]).says(&["error: permission denied", "/etc/passwd"]);
    run(&["--user", "no-such-user"], &["true"]).says(&["no-such-user"]);
    run(&[], &["true", "-object", "secret,id=s,ref=web01"])
        .says(&["error: invalid reference", "argument 2"]);
    run(&[], &["true", "-object", "secret,id=s,ref=web01/none"]).says(&[
        "error: not found",
        "web01/none",
        "store: local",
    ]);
    run(&["--keep-key"], &["true"]).says(&["--channel file"]);
    let missing = site.path("none.toml");
    let missing = missing.to_str().expect("text");
    let mut command = site.keyhaul(["run", "--config", missing, "--"]);
    finish(command.arg("true").args(OBJECT))
        .exits(125)
        .says(&["none.toml"]);
    // A wrong option is not `run`'s own: the program was never named.
    finish(&mut site.keyhaul(["run", "--no-such-option", "--", "true"])).exits(2);
    finish(&mut site.keyhaul(["run", "true"])).exits(2);
}

#[test]
fn a_failure_starts_nothing_leaves_nothing_and_reports_all() {
    let site = Site::with_passphrases();
    let store = files_below(site.path("data"));
    for channel in ["pipe", "file", "keyring"] {
        let words = [
            "touch",
            "marker",
            "-object",
            "secret,id=a,ref=web01/root",
            "-object",
            "secret,id=b,ref=web01/no-disk",
            "--object",
            r#"{"qom-type":"secret","id":"c","ref":"web01/no-vnc"}"#,
            "-object",
            "secret,id=d,ref=web02/no-tls",
        ];
        finish(&mut site.run(&["--channel", channel], words))
            .exits(125)
            .says(&["web01/no-disk", "web01/no-vnc", "web02/no-tls"])
            .says_nothing_of(&["web01/root"]);
        assert!(!site.path("marker").exists());
        assert!(site.key_folders().is_empty());
    }
    // A program that cannot be started, when the key is on its way already.
    finish(&mut site.run(
        &["--channel", "file"],
        ["no-such-program", OBJECT[0], OBJECT[1]],
    ))
    .exits(125);
    assert!(site.key_folders().is_empty());
    // A value that fits into no argument.
    site.set("web01/large", &[b'x'; 100_000]);
    let words = ["touch", "marker", "-object", "secret,id=s,ref=web01/large"];
    finish(&mut site.run(&["--channel", "file"], words))
        .exits(125)
        .says(&["too large", "131071"]);
    assert!(!site.path("marker").exists());
    assert!(site.key_folders().is_empty());
    finish(&mut site.keyhaul(["delete", "--yes", "web01/large"])).ok();
    assert_eq!(files_below(site.path("data")), store);
    // The control: with what there is, the program runs.
    finish(&mut site.run(&[], shell("touch marker"))).ok();
    assert!(site.path("marker").exists());
}

#[test]
fn signals_are_passed_on() {
    let site = Site::with_passphrases();
    // It waits for signals that are blocked: to pause for one that a handler has seen just before
    // would be to wait for ever.
    let script = "import signal, sys\ngot = open('got', 'a', buffering=1)\nthese = [getattr(signal, 'SIG' + name) for name in sys.argv[1].split()]\nsignal.pthread_sigmask(signal.SIG_BLOCK, these)\nprint('ready', file=got)\nwhile True:\n    print(signal.sigwait(these).name, file=got)\n";
    let program = site.file("program.py", script);
    let words = [
        "python3",
        program.to_str().expect("text"),
        "HUP INT QUIT USR1 USR2",
        OBJECT[0],
        OBJECT[1],
    ];
    let mut running = Running::start(site.run(&[], words), &site.path("log"));
    let got = || fs::read_to_string(site.path("got")).unwrap_or_default();
    until("the program", || got().contains("ready").then_some(()));
    let process = Process::of(running.pid()).expect("keyhaul");
    for (signal, name) in [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
    ] {
        process.signal(signal);
        until(name, || got().contains(name).then_some(()));
    }
    assert_eq!(got().lines().count(), 6, "each once: {}", got());
    // The one that it does not catch ends it, and keyhaul in the same way.
    process.signal(Signal::TERM);
    assert!(process.ends_within(LIMIT));
    assert_eq!(running.end().signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn terminating_keyhaul_ends_qemu() {
    let site = Site::with_passphrases();
    let mut vm = Vm::start(&site, &[], &OBJECT);
    let keyhaul = Process::of(vm.starter().pid()).expect("keyhaul");
    assert_ne!(keyhaul.pid(), vm.qemu().pid());
    keyhaul.signal(Signal::TERM);
    assert!(vm.qemu().ends_within(LIMIT));
    assert!(keyhaul.ends_within(LIMIT));
    // QEMU takes the signal as a wish, and says who had it.
    assert_eq!(vm.starter().end().code(), Some(0));
    assert!(
        vm.log().contains("terminating on signal 15"),
        "{}",
        vm.log()
    );
}

#[test]
fn the_terminal_is_the_programs() {
    let site = Site::with_passphrases();
    let script = "import os, signal, sys, termios, time\nfirst = termios.tcgetattr(0)[3]\ncount = 0\ndef caught(number, frame):\n    global count\n    count += 1\nsignal.signal(signal.SIGINT, caught)\nprint('terminals', [os.isatty(n) for n in (0, 1, 2)], 'foreground', os.tcgetpgrp(0) == os.getpgrp(), 'echo', bool(first & termios.ECHO), flush=True)\nwhile count == 0:\n    time.sleep(0.01)\nprint('caught', count, flush=True)\nline = sys.stdin.readline()\nprint('line', repr(line), 'caught', count, 'still')\n";
    let program = site.file("program.py", script);
    let program = program.to_str().expect("text");
    let runtime = site.runtime();
    let words = [
        "run",
        "--runtime-dir",
        runtime.to_str().expect("text"),
        "--",
        "python3",
        program,
        OBJECT[0],
        OBJECT[1],
    ];
    let done = at_terminal(
        &site,
        &[],
        &words,
        &[
            ("foreground", "\x03"),
            ("caught 1", "typed\n"),
            ("still", ""),
        ],
    );
    assert!(
        done.seen
            .contains("terminals [True, True, True] foreground True echo True"),
        "{done:?}"
    );
    // Ctrl-C comes from the terminal, once, and not from keyhaul again.
    assert!(
        done.seen.contains("line 'typed\\n' caught 1 still"),
        "{done:?}"
    );
    assert_eq!(done.status, 0);
    assert!(done.echoes);
}

#[test]
fn the_limits_of_the_program_are_those_of_whoever_asked() {
    let site = Site::with_passphrases();
    for options in [&[][..], &["--exec"]] {
        let mut command = program("sh");
        let script = "ulimit -S -c 8; ulimit -S -c; ulimit -H -c; exec \"$@\"";
        let inner = shell("ulimit -S -c; ulimit -H -c");
        site.surround(&mut command)
            .args(["-c", script, "sh"])
            .arg(keyhaul())
            .arg("run")
            .args(options)
            .arg("--")
            .args(inner);
        let done = finish(&mut command).ok();
        let lines: Vec<&str> = done.text().lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[..2], lines[2..]);
        assert_eq!(lines[0], "8");
    }
    // keyhaul's own, beside a running program.
    let mut command = program("sh");
    let words = Vm::words(&site, &OBJECT);
    site.surround(&mut command)
        .args(["-c", "ulimit -S -c 8; exec \"$@\"", "sh"])
        .arg(keyhaul())
        .args(["run", "--"])
        .args(words);
    let mut vm = Vm::of(&site, command);
    let core = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .expect("core")
            .to_owned();
        line.split_whitespace()
            .nth(4)
            .expect("the soft limit")
            .to_owned()
    };
    assert_eq!(core(vm.starter().pid()), "0");
    assert_ne!(core(vm.qemu().pid()), "0");
}

#[test]
fn the_signals_of_the_program_are_those_of_whoever_asked() {
    let site = Site::with_passphrases();
    // Blocked, ignored: of the 31 signals that are not the C library's own.
    let masks = |command: &mut Command| -> Vec<u64> {
        let done = finish(command).ok();
        let masks = done.text().lines().map(|line| {
            let (_, mask) = line.split_once(":\t").expect("a mask");
            u64::from_str_radix(mask, 16).expect("hex") & 0x7fff_ffff
        });
        masks.collect()
    };
    let grep = "grep -E 'Sig(Blk|Ign)' /proc/self/status";
    // As nohup would, which some start VMs with.
    let nohup = "trap '' HUP; exec \"$@\"";
    let direct = masks(program("sh").args(["-c", nohup, "sh", "sh", "-c", grep]));
    assert_eq!(direct.len(), 2);
    assert_eq!(direct[1] & 1, 1, "SIGHUP is ignored");
    for options in [&[][..], &["--exec"]] {
        let mut command = program("sh");
        site.surround(&mut command)
            .args(["-c", nohup, "sh"])
            .arg(keyhaul())
            .arg("run")
            .args(options)
            .arg("--")
            .args(shell(grep));
        assert_eq!(masks(&mut command), direct);
    }
}

#[test]
fn what_is_not_ours_passes_through_byte_for_byte() {
    let site = Site::with_passphrases();
    let emulator = site.script("qemu-system-x86_64", "#!/bin/sh\nprintf '%s\\0' \"$@\"\n");
    let given = |words: &[&[u8]]| -> Vec<Vec<u8>> {
        let words = words.iter().map(|word| OsString::from_vec(word.to_vec()));
        let all = std::iter::once(emulator.clone().into_os_string()).chain(words);
        let done = finish(&mut site.run(&[], all)).ok();
        let mut words: Vec<Vec<u8>> = done
            .stdout
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .collect();
        words.pop();
        words
    };
    let foreign: Vec<&[u8]> = vec![
        b"-name",
        b"a,,b=c",
        b"",
        b"-append",
        b"-object",
        b"\xff\xfe not UTF-8",
        b"-append",
        b"secret,id=x,ref=web01/none",
        b"--",
        b"-",
        b"--object",
        b"rng-random,id=ref,filename=/dev/random",
        b"-object",
        b"{ 'qom-type': 'rng-builtin', 'id': 'r' }",
        b"-device",
        b"x,ref=web01/none",
        b"\n",
        b"$HOME",
        b"'",
        b"-fw_cfg",
        b"name=opt/ref=1,string=ref=web01/none",
        b"-object",
        b"secret,id=own,file=/dev/null",
        b"-object",
        b"secret,id=ref,data=,,ref=x",
        b"-object",
    ];
    assert_eq!(given(&foreign), foreign);
    // The same around one reference: it is replaced, one object comes before it, and nothing else
    // changes.
    let reference: [&[u8]; 2] = [b"-object", b"secret,id=s,ref=web01/root"];
    let (before, after) = foreign.split_at(12);
    let all = [before, &reference, after].concat();
    let got = given(&all);
    assert_eq!(got.len(), all.len() + 2);
    assert_eq!(got[..12], *before);
    assert_eq!(got[16..], *after);
    assert_eq!(got[12], b"-object");
    assert!(
        got[13].starts_with(b"secret,id=keyhaul-"),
        "{}",
        got[13].escape_ascii()
    );
    assert_eq!(got[14], b"-object");
    assert!(
        got[15].starts_with(b"secret,id=s,keyid=keyhaul-"),
        "{}",
        got[15].escape_ascii()
    );
}

#[test]
fn a_dry_run_prints_and_fetches_nothing() {
    let site = Site::new();
    site.policy("version = 1\n[stores.away]\nurl = \"file:///nonexistent/store\"\nidentity = \"file:/nonexistent/identity\"\n[[routes]]\nmatch = \"web01/*\"\nstore = \"away\"\n");
    let words = [
        "touch",
        "marker",
        "it's",
        "-object",
        "secret,id=s,ref=web01/root",
    ];
    let done = finish(&mut site.run(&["--dry-run"], words)).ok();
    // A shell reads it back as it was.
    let script = format!("printf '%s\\n' {}", done.text());
    let back = finish(program("sh").args(["-c", &script])).ok();
    assert_eq!(back.text().lines().collect::<Vec<_>>(), words);
    done.says(&["web01/root", "store away"]);
    assert!(!site.path("marker").exists());
    assert!(site.key_folders().is_empty());
    // It says what would be wrong with the references, all the same.
    finish(&mut site.run(
        &["--dry-run"],
        ["true", "-object", "secret,id=s,ref=web02/root"],
    ))
    .exits(125)
    .says(&["web02/root"]);
    // The control: the store is really away.
    finish(&mut site.run(&[], words))
        .exits(125)
        .says(&["/nonexistent/"]);
}

fn files_below(folder: PathBuf) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}
