//! The master key's three ways to a running VM, and what is left of it afterwards.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use keyhaul_e2e::{
    Disk, LIMIT, PATTERN, PasswordServer, Process, Running, Site, Vm, argv, children, finish,
    read_command, until,
};
use rustix::process::Signal;

const CHANNELS: [&str; 3] = ["pipe", "file", "keyring"];
const OBJECTS: [&str; 4] = [
    "-object",
    "secret,id=right,ref=web01/root",
    "-object",
    "secret,id=wrong,ref=web01/wrong",
];

/// A program that takes an object and has no use for it.
const UNCONCERNED: [&str; 3] = ["true", "-object", "secret,id=s,ref=web01/root"];

/// A VM with the right and the wrong passphrase, by a channel, and two disks that tell them apart.
fn vm(site: &Site, options: &[&str], more: &[&str]) -> Vm {
    let mut vm = Vm::start(site, options, &[&OBJECTS, more].concat());
    for disk in Disk::ALL {
        vm.tells_right_from_wrong(disk, &site.disk(disk));
    }
    vm
}

#[test]
fn every_channel_reaches_a_running_vm() {
    for channel in CHANNELS {
        let site = Site::with_passphrases();
        let mut vm = vm(&site, &["--channel", channel], &[]);
        let words = argv(vm.qemu().pid());
        let master = words
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .find(|word| word.contains("file=") || word.contains("serial="))
            .expect("a master key's object")
            .into_owned();
        let expected = match channel {
            "pipe" => "file=/dev/fd/".to_owned(),
            "file" => format!("file={}/keyhaul-", site.runtime().display()),
            _ => "secret_keyring,".to_owned(),
        };
        assert!(master.contains(&expected), "{master}");
        assert!(vm.quit().success());
        assert!(site.key_folders().is_empty());
    }
}

#[test]
fn every_channel_survives_daemonizing() {
    for channel in CHANNELS {
        let site = Site::with_passphrases();
        let mut vm = vm(&site, &["--channel", channel], &["-daemonize"]);
        // keyhaul's program has ended; QEMU has not.
        let ended = until("keyhaul's end", || vm.starter().ended());
        assert!(ended.success());
        assert!(!vm.qemu().has_ended());
        assert!(vm.quit().success());
        assert!(site.key_folders().is_empty());
    }
}

#[test]
fn every_channel_works_in_qemus_sandbox() {
    let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    for channel in CHANNELS {
        let site = Site::with_passphrases();
        vm(&site, &["--channel", channel], &["-sandbox", sandbox]);
    }
}

#[test]
fn every_channel_reaches_another_user() {
    let options = [
        &["--user", "nobody", "--channel", "pipe"][..],
        &["--user", "nobody", "--channel", "file"],
        &["--user", "nobody", "--channel", "keyring"],
        &["--user", "65534", "--exec"],
    ];
    for options in options {
        let site = Site::with_passphrases();
        // Only root can: anybody else is told so, and nothing is left.
        if !rustix::process::geteuid().is_root() {
            finish(&mut site.run(options, UNCONCERNED))
                .exits(125)
                .says(&["permission denied"]);
            assert!(site.key_folders().is_empty());
            continue;
        }
        let vm = vm(&site, options, &[]);
        let process = fs::metadata(format!("/proc/{}", vm.qemu().pid())).expect("QEMU");
        assert_ne!(process.uid(), 0, "QEMU runs as nobody");
        let status = fs::read_to_string(format!("/proc/{}/status", vm.qemu().pid())).expect("QEMU");
        let groups = status
            .lines()
            .find(|line| line.starts_with("Groups:"))
            .expect("groups");
        assert!(
            !groups.split_whitespace().any(|group| group == "0"),
            "{groups}"
        );
        assert!(site.key_folders().is_empty());
    }
}

#[test]
fn becoming_qemu_leaves_no_process_of_keyhaul() {
    for options in [
        &["--exec"][..],
        &["--exec", "--channel", "keyring"],
        &["--exec", "--channel", "file", "--keep-key"],
    ] {
        let site = Site::with_passphrases();
        let mut vm = vm(&site, options, &[]);
        let started = vm.starter().pid();
        assert_eq!(started, vm.qemu().pid());
        let name = fs::read_to_string(format!("/proc/{started}/comm")).expect("QEMU");
        assert!(name.starts_with("qemu-system"), "{name}");
        assert!(children(started).is_empty());
        assert!(vm.quit().success());
        // A key that was kept goes with the next start.
        finish(&mut site.run(&["--channel", "file"], UNCONCERNED)).ok();
        assert!(site.key_folders().is_empty());
    }
    let site = Site::with_passphrases();
    finish(&mut site.run(&["--exec", "--channel", "file"], ["true"]))
        .exits(125)
        .says(&["--exec", "--keep-key"]);
}

#[test]
fn values_of_every_length_arrive_by_every_channel() {
    // One, two, one short of a block, a block, more; base64 of a ciphertext of every residue; text
    // that means something to QEMU's option parser; not ASCII.
    let mut values: Vec<Vec<u8>> = [1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 1000, 60_000]
        .map(|length| (0..length).map(|at| b"keyhaul, a=b"[at % 12]).collect())
        .into();
    values.push("gr\u{fc}n, \u{1f511}=on'\"\\%{}".into());
    for (number, value) in values.iter().enumerate() {
        let site = Site::new();
        let server = PasswordServer::start(value);
        let image = server.options("s");
        let read = read_command(PATTERN);
        site.set("web01/disk", value);
        site.set("web01/wrong", &[value.as_slice(), b"."].concat());
        let channel = CHANNELS[number % CHANNELS.len()];
        let channels = if value.len() < 64 {
            &CHANNELS[..]
        } else {
            &[channel]
        };
        for channel in channels {
            let get = |reference: &str| {
                let object = format!("secret,id=s,ref={reference}");
                let words = [
                    "qemu-io",
                    "-r",
                    "--object",
                    &object,
                    "--image-opts",
                    &image,
                    "-c",
                    &read,
                ];
                finish(&mut site.run(&["--channel", channel], words))
            };
            get("web01/disk").ok();
            // The control: a value that is longer by one byte.
            get("web01/wrong").exits(1).says(&["401"]);
        }
    }
}

#[test]
fn a_key_file_goes_as_soon_as_it_was_read() {
    let site = Site::with_passphrases();
    // A program in QEMU's place that waits before it reads, so that the file can be seen.
    let waits = site.script("waits", "#!/bin/sh\nfile=${2##*file=}\nls -ln \"$file\" \"${file%/*}\" >seen\necho \"$file\" >where\nread go <go\ncat \"$file\" >key\nread go <go\n");
    finish(std::process::Command::new("mkfifo").arg(site.path("go"))).ok();
    // Open both ways, all the time: so neither side waits for the other to open it, and nobody sees its end.
    let mut go = fs::File::options()
        .read(true)
        .write(true)
        .open(site.path("go"))
        .expect("opened");
    let command = site.run(
        &["--channel", "file"],
        [
            waits.to_str().expect("text"),
            "-object",
            "secret,id=s,ref=web01/root",
        ],
    );
    let mut running = Running::start(command, &site.path("log"));
    let path = until("the key's place", || {
        fs::read_to_string(site.path("where"))
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let path = Path::new(path.trim_end()).to_owned();
    let folder = path.parent().expect("its folder").to_owned();
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
    assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
    assert_eq!(fs::metadata(&path).expect("there").len(), 32);
    assert_eq!(path.file_name().expect("a name"), "master-key.aes");
    assert_eq!(folder.parent().expect("its folder"), site.runtime());
    go.write_all(b"\n").expect("told");
    until("the key's end", || (!folder.exists()).then_some(()));
    // It is gone as soon as it was read, which is before the copy is written.
    let copied = || fs::metadata(site.path("key")).expect("made").len() == 32;
    until("the copy", || copied().then_some(()));
    // The program still runs.
    assert!(running.ended().is_none());
    go.write_all(b"\n").expect("told");
    assert!(running.end().success());
}

#[test]
fn a_kept_key_lives_as_long_as_qemu() {
    for daemonize in [&[][..], &["-daemonize"]] {
        let site = Site::with_passphrases();
        let mut vm = vm(&site, &["--channel", "file", "--keep-key"], daemonize);
        let folders = site.key_folders();
        assert_eq!(folders.len(), 1);
        let another = || finish(&mut site.run(&["--channel", "file"], UNCONCERNED)).ok();
        // The next run sweeps, and spares what lives.
        another();
        assert_eq!(site.key_folders(), folders);
        assert!(folders[0].join("master-key.aes").exists());
        // While it is held, nobody takes it away.
        release(&site, &folders[0]).exits(11);
        vm.read_disk(Disk::Luks, &site.disk(Disk::Luks), "right")
            .expect("still reads");
        vm.qemu().signal(Signal::KILL);
        assert!(vm.qemu().ends_within(LIMIT));
        assert!(Process::of(vm.starter().pid()).is_none_or(|starter| starter.ends_within(LIMIT)));
        another();
        assert!(site.key_folders().is_empty());
    }
}

#[test]
fn many_at_once_do_not_sweep_each_other() {
    let site = Site::with_passphrases();
    let disk = Disk::Luks.options(&site.disk(Disk::Luks), "s");
    let read = read_command(PATTERN);
    let start = |number: usize| {
        let words = [
            "qemu-io",
            "-r",
            "--object",
            "secret,id=s,ref=web01/root",
            "--image-opts",
            &disk,
            "-c",
            &read,
        ];
        let log = site.path(format!("log{number}"));
        Running::start(site.run(&["--channel", "file"], words), &log)
    };
    let mut all: Vec<Running> = (0..24).map(start).collect();
    for running in &mut all {
        assert!(running.end().success(), "{}", running.log());
    }
    assert!(site.key_folders().is_empty());
}

#[test]
fn what_a_killed_keyhaul_left_is_swept_and_nothing_else() {
    let site = Site::with_passphrases();
    let left_on_purpose = {
        finish(&mut resolve(&site, &["web01/root"])).ok();
        site.key_folders()
    };
    assert_eq!(left_on_purpose.len(), 1);
    // Neither of these is keyhaul's.
    fs::create_dir(site.runtime().join("keyhaul-0123456789abcdef")).expect("made");
    fs::write(site.runtime().join("keyhaul-0123456789abcdef/mine"), "x").expect("written");
    fs::write(site.runtime().join("keyhaul-file"), "x").expect("written");
    let before = site.key_folders().len();

    let command = site.run(
        &["--channel", "file"],
        [
            "sh",
            "-c",
            "exec sleep 600",
            "sh",
            "-object",
            "secret,id=s,ref=web01/root",
        ],
    );
    let mut running = Running::start(command, &site.path("log"));
    let program = until("the program", || {
        children(running.pid())
            .first()
            .copied()
            .and_then(Process::of)
    });
    until("its exec", || {
        fs::read_to_string(format!("/proc/{}/comm", program.pid()))
            .ok()
            .filter(|name| name == "sleep\n")
    });
    assert_eq!(site.key_folders().len(), before + 1);
    running.kill();
    program.signal(Signal::KILL);
    assert_eq!(
        site.key_folders().len(),
        before + 1,
        "nobody was left to remove it"
    );

    let swept = finish(&mut site.run(&["--channel", "file", "-v"], UNCONCERNED)).ok();
    swept.says(&["removed the key of a run that was killed"]);
    assert_eq!(site.key_folders().len(), before);
    assert!(left_on_purpose[0].join("master-key.aes").exists());
    assert!(
        site.runtime()
            .join("keyhaul-0123456789abcdef/mine")
            .exists()
    );
    assert!(site.runtime().join("keyhaul-file").exists());
}

#[test]
fn releasing_takes_away_what_resolving_left_and_nothing_else() {
    let site = Site::with_passphrases();
    let done = finish(&mut resolve(&site, &["web01/root"])).ok();
    let folder = site.key_folders().pop().expect("left");
    done.says(&[&format!("keyhaul resolve --release {}", folder.display())]);
    release(&site, &folder).ok();
    assert!(!folder.exists());
    release(&site, &folder).exits(16);

    let mine = site.runtime().join("mine");
    fs::create_dir(&mine).expect("made");
    release(&site, &mine).exits(14);
    let alike = site.runtime().join("keyhaul-0123456789abcdef");
    fs::create_dir(&alike).expect("made");
    fs::write(alike.join("note"), "x").expect("written");
    release(&site, &alike).exits(14).says(&["note"]);
    assert!(mine.exists() && alike.join("note").exists());
    release(&site, Path::new("/")).exits(14);
}

#[test]
fn a_key_in_the_session_is_released_by_its_number() {
    let site = Site::with_passphrases();
    let script = r#"
        set -eu
        keyhaul() { "$KEYHAUL" "$@"; }
        keyhaul resolve --channel keyring --format json web01/root >objects 2>words
        serial=$(sed -n 's/.*--release //p' words)
        keyctl describe "$serial" >described
        keyhaul resolve --release "$serial"
        if keyctl describe "$serial" 2>/dev/null; then exit 3; fi
        if keyhaul resolve --release "$serial" 2>>words; then exit 4; fi
        other=$(keyctl add user mine value @s)
        if keyhaul resolve --release "$other" 2>>words; then exit 5; fi
        test "$(keyctl print "$other")" = value
    "#;
    let mut session = keyhaul_e2e::program("keyctl");
    site.surround(&mut session)
        .env("KEYHAUL", keyhaul_e2e::keyhaul());
    finish(session.args(["session", "-", "sh", "-c", script])).ok();
    let described = fs::read_to_string(site.path("described")).expect("described");
    assert!(described.contains("keyhaul:master-key:"), "{described}");
}

#[test]
fn a_wrapper_that_closes_descriptors_is_diagnosed() {
    let site = Site::with_passphrases();
    let wrapper = site.script(
        "wrapper",
        "#!/usr/bin/env python3\nimport os, sys\nos.closerange(3, 256)\nos.execvp(sys.argv[1], sys.argv[1:])\n",
    );
    let disk = Disk::Luks.options(&site.disk(Disk::Luks), "s");
    let read = read_command(PATTERN);
    let wrapper = wrapper.to_str().expect("text");
    let words = [
        wrapper,
        "qemu-io",
        "-r",
        "--object",
        "secret,id=s,ref=web01/root",
        "--image-opts",
        &disk,
        "-c",
        &read,
    ];
    finish(&mut site.run(&[], words))
        .exits(1)
        .says(&["without having read the master key", "--channel file"]);
    finish(&mut site.run(&["--channel", "file"], words)).ok();
    finish(&mut site.run(&["--channel", "keyring"], words)).ok();
    // Without the wrapper the pipe is no problem, and a failure of another sort is not taken for one.
    finish(&mut site.run(&[], &words[1..])).ok();
    let wrong: Vec<&str> = words[1..]
        .iter()
        .map(|word| {
            if word.starts_with("secret,") {
                "secret,id=s,ref=web01/wrong"
            } else {
                word
            }
        })
        .collect();
    finish(&mut site.run(&[], wrong))
        .exits(1)
        .says_nothing_of(&["--channel file"]);
}

fn resolve(site: &Site, arguments: &[&str]) -> std::process::Command {
    let mut command = site.keyhaul(["resolve", "--runtime-dir"]);
    command.arg(site.runtime()).args(arguments);
    command
}

fn release(site: &Site, folder: &Path) -> keyhaul_e2e::Finished {
    let mut command = site.keyhaul(["resolve", "--release"]);
    finish(command.arg(folder))
}
