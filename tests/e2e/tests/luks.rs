//! Encrypted disks are read with secrets from a store: by the tools and by a running VM.

use std::fs;
use std::path::Path;

use keyhaul_e2e::{
    Disk, PASSPHRASE, PATTERN, Running, Site, Vm, argv, environ, finish, make_volume, program,
    read_command, reads_pattern,
};

#[test]
fn qemu_io_reads_both_kinds_of_disk() {
    let site = Site::with_passphrases();
    for disk in Disk::ALL {
        let path = site.disk(disk);
        let read = |object: &str, pattern: u8| {
            let image = disk.options(&path, "root");
            let read = read_command(pattern);
            let words = [
                "qemu-io",
                "-r",
                "--object",
                object,
                "--image-opts",
                &image,
                "-c",
                &read,
            ];
            finish(&mut site.run(&[], words))
        };
        for object in [
            "secret,id=root,ref=web01/root",
            r#"{"qom-type":"secret","id":"root","ref":"web01/root"}"#,
        ] {
            let done = read(object, PATTERN)
                .ok()
                .says_nothing_of(&["warning", "error"]);
            assert!(
                done.text().contains("read 65536/65536 bytes"),
                "{}",
                done.text()
            );
            let other = read(object, !PATTERN).exits(1);
            assert!(other.text().contains("Pattern verification failed"));
        }
        read("secret,id=root,ref=web01/wrong", PATTERN)
            .exits(1)
            .says(&["Invalid password"]);
    }
}

#[test]
fn a_vm_opens_its_disks_as_it_starts() {
    let site = Site::with_passphrases();
    let luks = site.disk(Disk::Luks);
    let qcow2 = site.disk(Disk::Qcow2);
    let blockdev =
        |disk: Disk, path, id| format!("{},node-name={id},read-only=on", disk.options(path, id));
    let arguments = [
        // The order of words is the user's: QEMU makes objects first.
        "-blockdev",
        &blockdev(Disk::Luks, &luks, "luks"),
        "-object",
        "secret,id=luks,ref=web01/root",
        "-object",
        r#"{"qom-type": "secret", "id": "qcow2", "ref": "web01/root"}"#,
        "-blockdev",
        &blockdev(Disk::Qcow2, &qcow2, "qcow2"),
        "-drive",
        &format!(
            "if=none,id=legacy,read-only=on,format=luks,key-secret=luks,file={}",
            luks.display()
        ),
    ];
    let mut vm = Vm::start(&site, &[], &arguments);
    for node in ["luks", "qcow2", "legacy"] {
        // The VM's own reads, and as anybody sees them from outside.
        let read = |pattern: u8| {
            let line = format!("qemu-io {node} \"{}\"", read_command(pattern));
            serde_json::json!({"command-line": line})
        };
        let before = vm
            .log()
            .matches("read 65536/65536 bytes at offset 0")
            .count();
        vm.qmp
            .call("human-monitor-command", read(PATTERN))
            .expect("read");
        let log = vm.log();
        assert_eq!(
            log.matches("read 65536/65536 bytes at offset 0").count(),
            before + 1,
            "{log}"
        );
        assert!(
            !log.contains("Pattern verification failed"),
            "{node}: {log}"
        );
        if node != "legacy" {
            assert!(vm.reads_node(node), "{node}");
        }
    }
    let control = format!("qemu-io luks \"{}\"", read_command(!PATTERN));
    vm.qmp
        .call(
            "human-monitor-command",
            serde_json::json!({"command-line": control}),
        )
        .expect("read");
    assert!(
        vm.log().contains("Pattern verification failed"),
        "{}",
        vm.log()
    );
    assert_only_ciphertext(vm.qemu().pid());
    assert!(vm.quit().success());
}

#[test]
fn a_vm_with_a_wrong_passphrase_does_not_start() {
    let site = Site::with_passphrases();
    for disk in Disk::ALL {
        let device = disk.options(&site.disk(disk), "root");
        let device = format!("{device},node-name=disk");
        let arguments = [
            "-object",
            "secret,id=root,ref=web01/wrong",
            "-blockdev",
            &device,
        ];
        Vm::fail(&site, &[], &arguments)
            .exits(1)
            .says(&["Invalid password"]);
    }
}

#[test]
fn every_tool_takes_references() {
    let site = Site::with_passphrases();
    let luks = Disk::Luks.options(&site.disk(Disk::Luks), "root");
    let object = "secret,id=root,ref=web01/root";

    let raw = site.path("plain.raw");
    let out = raw.to_str().expect("text");
    let long = format!("--object={object}");
    let convert = [
        "qemu-img",
        "convert",
        &long,
        "--image-opts",
        &luks,
        "-O",
        "raw",
        out,
    ];
    finish(&mut site.run(&[], convert)).ok();
    let plain = fs::read(&raw).expect("converted");
    assert!(plain[..65536].iter().all(|byte| *byte == PATTERN));
    // Behind it lies what was never written: noise, which a byte of could be alike by chance.
    assert!(plain[65536..].iter().any(|byte| *byte != PATTERN));

    let socket = site.path("nbd");
    let path = socket.to_str().expect("text");
    let nbd = [
        "qemu-nbd",
        "-r",
        "-t",
        "-k",
        path,
        "-x",
        "disk",
        "--object",
        object,
        "--image-opts",
        &luks,
    ];
    let log = site.path("nbd.log");
    let served = Running::serve(site.run(&[], nbd), &log, || exports_disk(&socket));
    assert!(reads_pattern(&socket, "disk"));
    drop(served);

    let socket = site.path("qsd");
    let server = format!("addr.type=unix,addr.path={}", socket.display());
    let node = format!("{luks},node-name=disk,read-only=on");
    let export = "type=nbd,id=e,node-name=disk,name=disk";
    // The order is literal here: the master key comes before its first user, too.
    let words = [
        "qemu-storage-daemon",
        "--object",
        object,
        "--blockdev",
        &node,
        "--nbd-server",
        &server,
        "--export",
        export,
    ];
    let log = site.path("qsd.log");
    let served = Running::serve(site.run(&[], words), &log, || exports_disk(&socket));
    assert!(reads_pattern(&socket, "disk"));
    drop(served);
}

#[test]
fn no_tool_reads_with_a_wrong_passphrase() {
    let site = Site::with_passphrases();
    let luks = Disk::Luks.options(&site.disk(Disk::Luks), "root");
    let node = format!("{luks},node-name=disk");
    let object = "secret,id=root,ref=web01/wrong";
    let out = site.path("none");
    let out = out.to_str().expect("text");
    for words in [
        vec![
            "qemu-img",
            "convert",
            "--object",
            object,
            "--image-opts",
            &luks,
            "-O",
            "raw",
            out,
        ],
        vec![
            "qemu-nbd",
            "-r",
            "-k",
            out,
            "--object",
            object,
            "--image-opts",
            &luks,
        ],
        vec![
            "qemu-storage-daemon",
            "--object",
            object,
            "--blockdev",
            &node,
        ],
    ] {
        finish(&mut site.run(&[], words))
            .exits(1)
            .says(&["Invalid password"]);
    }
}

fn exports_disk(socket: &Path) -> bool {
    let mut list = program("qemu-nbd");
    finish(list.arg("--list").arg("-k").arg(socket))
        .text()
        .contains("'disk'")
}

#[test]
fn a_volume_made_through_keyhaul_opens_without_it() {
    let site = Site::with_passphrases();
    let path = site.path("made.luks");
    let words = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "luks",
        "--object",
        "secret,id=s,ref=web01/root",
        "-o",
        "key-secret=s,iter-time=200",
        path.to_str().expect("text"),
        "1M",
    ];
    make_volume(|| site.run(&[], words));
    let open = |passphrase: &str| {
        let file = site.file("passphrase", passphrase);
        let mut command = program("qemu-io");
        let secret = format!("secret,id=s,file={}", file.display());
        let image = Disk::Luks.options(&path, "s");
        finish(command.args([
            "-r",
            "--object",
            &secret,
            "--image-opts",
            &image,
            "-c",
            "read 0 512",
        ]))
    };
    open(PASSPHRASE).ok();
    open(&format!("{PASSPHRASE}\n"))
        .exits(1)
        .says(&["Invalid password"]);
}

/// No argument and no variable of the process holds the passphrase or a reference; each secret has
/// its ciphertext and an IV of its own.
fn assert_only_ciphertext(pid: u32) {
    let arguments = argv(pid);
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let all: Vec<String> = arguments.iter().map(|word| text(word)).collect();
    let joined = all.join(" ");
    assert!(
        !joined.contains(PASSPHRASE) && !joined.contains("ref"),
        "{joined}"
    );
    assert!(
        environ(pid)
            .iter()
            .all(|word| !text(word).contains(PASSPHRASE))
    );
    let secrets: Vec<&String> = all.iter().filter(|word| word.contains("keyid")).collect();
    assert_eq!(secrets.len(), 2, "{joined}");
    assert!(
        secrets
            .iter()
            .all(|word| word.contains("iv") && word.contains("data") && word.contains("base64"))
    );
    let cut = |word: &str| word[word.find("iv").expect("an IV")..][..30].to_owned();
    assert_ne!(cut(secrets[0]), cut(secrets[1]), "one IV twice");
}
