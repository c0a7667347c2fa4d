//! What `resolve` prints, fed to real QEMU in each of its dialects.

use std::fs;
use std::process::Command;

use keyhaul_e2e::{Disk, PATTERN, Site, Vm, finish, keyhaul, program, read_command};

/// The objects of the right and the wrong passphrase, printed by `resolve`.
fn resolved(site: &Site, format: &str) -> String {
    let mut command = site.keyhaul(["resolve", "--format", format, "--runtime-dir"]);
    command
        .arg(site.runtime())
        .args(["right=web01/root", "wrong=web01/wrong"]);
    let done = finish(&mut command)
        .ok()
        .says(&["keyhaul resolve --release"]);
    done.text().to_owned()
}

/// A QEMU that keyhaul does not start.
fn plain(site: &Site, arguments: &[&str]) -> Vm {
    let words = Vm::words(site, arguments);
    let mut command = Command::new(&words[0]);
    site.surround(&mut command).args(&words[1..]);
    Vm::of(site, command)
}

fn check(site: &Site, mut vm: Vm) {
    for disk in Disk::ALL {
        vm.tells_right_from_wrong(disk, &site.disk(disk));
    }
    assert!(vm.quit().success());
}

#[test]
fn args_are_read_by_a_shell() {
    // A path that a shell and QEMU's option parser would both take apart.
    let site = Site::with_passphrases();
    let runtime = site.path("it's a, 'dir'=$HOME");
    let mut command = site.keyhaul(["resolve", "--runtime-dir"]);
    command
        .arg(&runtime)
        .args(["right=web01/root", "wrong=web01/wrong"]);
    let args = finish(&mut command).ok();
    assert_eq!(args.text().lines().count(), 1);
    site.file("args", args.text());
    let start = site.script(
        "start",
        "#!/bin/sh\neval \"set -- \\\"\\$@\\\" $(cat args)\"\nexec \"$@\"\n",
    );
    let mut command = Command::new(start);
    site.surround(&mut command).args(Vm::words(&site, &[]));
    check(&site, Vm::of(&site, command));
}

#[test]
fn json_objects_are_options() {
    let site = Site::with_passphrases();
    let json = resolved(&site, "json");
    let arguments: Vec<&str> = json.lines().flat_map(|line| ["-object", line]).collect();
    assert_eq!(arguments.len(), 6);
    check(&site, plain(&site, &arguments));
}

#[test]
fn readconfig_reads_a_file() {
    let site = Site::with_passphrases();
    let path = site.file("objects.cfg", resolved(&site, "readconfig"));
    check(
        &site,
        plain(&site, &["-readconfig", path.to_str().expect("text")]),
    );
}

#[test]
fn qmp_adds_objects_to_a_running_vm() {
    let site = Site::with_passphrases();
    let mut vm = plain(&site, &[]);
    for line in resolved(&site, "qmp").lines() {
        vm.qmp.send(line).expect("object-add");
    }
    // A later one has a master key of its own, and the first is not needed for it.
    let mut command = site.keyhaul(["resolve", "--format", "qmp", "--runtime-dir"]);
    let later = finish(command.arg(site.runtime()).arg("later=web01/root")).ok();
    for folder in site
        .key_folders()
        .iter()
        .filter(|folder| !later.text().contains(folder.to_str().expect("text")))
    {
        fs::remove_dir_all(folder).expect("removed");
    }
    for line in later.text().lines() {
        vm.qmp.send(line).expect("object-add");
    }
    vm.read_disk(Disk::Luks, &site.disk(Disk::Luks), "later")
        .expect("the right secret");
    check(&site, vm);
}

#[test]
fn the_keyring_serves_within_a_session() {
    let site = Site::with_passphrases();
    let path = site.disk(Disk::Luks);
    let script = site.script(
        "session",
        "#!/bin/sh\nset -eu\n\"$KEYHAUL\" resolve --channel keyring --format \"$1\" s=\"$2\" >objects\nshift 2\n\"$@\"\n",
    );
    let in_session = |format: &str, reference: &str, command: &[&str]| {
        let mut session = program("keyctl");
        site.surround(&mut session).env("KEYHAUL", keyhaul());
        session
            .args(["session", "-"])
            .arg(&script)
            .args([format, reference]);
        finish(session.args(command))
    };
    let shell = "eval \"set -- \\\"\\$@\\\" $(sed 's/-object/--object/g' objects)\"; exec \"$@\"";
    let image = Disk::Luks.options(&path, "s");
    let read = read_command(PATTERN);
    let words = [
        "sh",
        "-c",
        shell,
        "sh",
        "qemu-io",
        "-r",
        "--image-opts",
        &image,
        "-c",
        &read,
    ];
    in_session("args", "web01/root", &words).ok();
    in_session("args", "web01/wrong", &words)
        .exits(1)
        .says(&["Invalid password"]);
    let json = "first=$(sed -n 1p objects); second=$(sed -n 2p objects); exec \"$@\" --object \"$first\" --object \"$second\"";
    let words = [
        "sh",
        "-c",
        json,
        "sh",
        "qemu-io",
        "-r",
        "--image-opts",
        &image,
        "-c",
        &read,
    ];
    in_session("json", "web01/root", &words).ok();
    // Another session does not find the key.
    let mut outside = program("qemu-io");
    let objects = fs::read_to_string(site.path("objects")).expect("left");
    for object in objects.lines() {
        outside.args(["--object", object]);
    }
    finish(outside.args(["-r", "--image-opts", &image, "-c", &read]))
        .exits(1)
        .says(&["Unable to read serial key"]);
}

#[test]
fn ids_are_chosen_or_made_from_names_and_never_twice() {
    let site = Site::with_passphrases();
    let resolve = |wanted: &[&str]| {
        let mut command = site.keyhaul(["resolve", "--format", "json", "--runtime-dir"]);
        finish(command.arg(site.runtime()).args(wanted))
    };
    let done = resolve(&["web01/root", "other=web01/wrong"]).ok();
    let ids: Vec<String> = done
        .text()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        })
        .collect();
    assert_eq!(ids[1..], ["root", "other"]);
    let before = site.key_folders();
    resolve(&["web01/root", "web02/root"])
        .exits(15)
        .says(&["root"]);
    resolve(&["1bad=web01/root"]).exits(2);
    // Nothing was left, since nothing was printed.
    resolve(&["web01/root", "web01/none", "web01/nothing"])
        .exits(16)
        .says(&["web01/none", "web01/nothing"]);
    assert_eq!(site.key_folders(), before);
}

#[test]
fn what_a_dialect_cannot_say_is_an_error_that_leaves_nothing() {
    let site = Site::new();
    site.set("web01/large", &[b'x'; 1000]);
    let resolve = |format: &str| {
        let mut command = site.keyhaul(["resolve", "--format", format, "--runtime-dir"]);
        finish(command.arg(site.runtime()).arg("web01/large"))
    };
    // A line of a -readconfig file ends at 1023 bytes.
    resolve("readconfig").exits(21);
    assert!(site.key_folders().is_empty());
    resolve("args").ok();
}
