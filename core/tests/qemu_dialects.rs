//! Every dialect on real QEMU: the volume opens with the secret, and does not with another.

mod support;

use std::path::Path;
use std::process::Command;

use keyhaul_core::qemu::channel::{FileChannel, RuntimeDir};
use keyhaul_core::qemu::object::MAX_CONFIG_LINE;
use keyhaul_core::qemu::{Dialect, MasterKey, MasterObject, SecretObject, encrypt};
use serde_json::json;
use support::{Emulator, PASSPHRASE, Volume, found_pattern, output};

/// The master key in a file, and both objects rendered.
struct Rendered {
    _channel: FileChannel,
    master: String,
    secret: String,
}

fn rendered(folder: &Path, dialect: Dialect, passphrase: &[u8]) -> Rendered {
    let path = folder.join("run");
    let runtime = RuntimeDir::open(Some(&path)).expect("opened");
    let key = MasterKey::generate().expect("randomness");
    let channel = FileChannel::create(&runtime, &key, None).expect("created");
    let master = MasterObject::new("m", channel.property()).expect("valid");
    let ciphertext = encrypt(&key, passphrase).expect("encrypted");
    let secret = SecretObject::new("s", "m", ciphertext).expect("valid");
    Rendered {
        master: master.render(dialect).expect("rendered"),
        secret: secret.render(dialect).expect("rendered"),
        _channel: channel,
    }
}

#[test]
fn arguments_and_json_open_a_volume() {
    let volume = Volume::new();
    for dialect in [Dialect::Args, Dialect::Json] {
        let read = |passphrase: &[u8]| {
            let objects = rendered(volume.folder.path(), dialect, passphrase);
            output(
                Command::new("qemu-io")
                    .args(["--object", &objects.master, "--object", &objects.secret])
                    .args(volume.read_with("s")),
            )
        };
        let right = read(PASSPHRASE);
        assert!(found_pattern(&right), "{dialect}: {right:?}");
        let wrong = read(b"another one");
        assert!(
            !found_pattern(&wrong),
            "{dialect}: the control was not refused"
        );
    }
}

#[test]
fn a_config_file_opens_a_volume() {
    let volume = Volume::new();
    let start = |passphrase: &[u8]| {
        let objects = rendered(volume.folder.path(), Dialect::Readconfig, passphrase);
        let config = volume.folder.path().join("objects.cfg");
        std::fs::write(&config, objects.master + &objects.secret).expect("written");
        let config = config.to_str().expect("UTF-8");
        Emulator::start(&[
            "-readconfig",
            config,
            "-blockdev",
            &volume.blockdev("s").to_string(),
        ])
        .map(|_| ())
    };
    start(PASSPHRASE).expect("opened");
    let error = start(b"another one").expect_err("the control");
    assert!(error.contains("Invalid password"), "{error}");
}

#[test]
fn qmp_opens_a_volume() {
    let volume = Volume::new();
    let add = |passphrase: &[u8]| {
        let objects = rendered(volume.folder.path(), Dialect::Qmp, passphrase);
        let mut emulator = Emulator::start(&[] as &[&str]).expect("started");
        emulator.ask_text(&objects.master).expect("the master key");
        emulator.ask_text(&objects.secret).expect("the secret");
        emulator.ask(&json!({"execute": "blockdev-add", "arguments": volume.blockdev("s")}))
    };
    add(PASSPHRASE).expect("opened");
    let error = add(b"another one").expect_err("the control");
    assert!(error.contains("Invalid password"), "{error}");
}

/// The limit is QEMU's own: what is rendered is read whole, and one block more is not.
#[test]
fn the_longest_line_of_a_config_file_is_read_whole() {
    let folder = tempfile::tempdir().expect("folder");
    // 735 to 751 bytes of plaintext make 752 of ciphertext, the last length that fits.
    let objects = rendered(folder.path(), Dialect::Readconfig, &[b'a'; 740]);
    let longest = objects.secret.lines().map(|line| line.len() + 1).max();
    assert!(longest.is_some_and(|longest| longest > MAX_CONFIG_LINE - 20));
    let config = folder.path().join("objects.cfg");
    let start = |text: String| {
        std::fs::write(&config, text).expect("written");
        Emulator::start(&["-readconfig", config.to_str().expect("UTF-8")])
    };
    let data = objects
        .secret
        .split('"')
        .nth_back(1)
        .expect("data")
        .to_owned();
    let mut emulator = start(objects.master.clone() + &objects.secret).expect("started");
    assert_eq!(emulator.property("s", "data"), Ok(data.clone().into()));
    let longer = objects
        .secret
        .replace(&data, &(data.clone() + &"A".repeat(20)));
    let cut = start(objects.master + &longer);
    assert!(cut.is_err(), "QEMU reads longer lines than that");
}

#[test]
fn an_empty_and_a_binary_secret_are_objects_too() {
    let folder = tempfile::tempdir().expect("folder");
    for plaintext in [b"".as_slice(), b"\0\xff\n"] {
        let objects = rendered(folder.path(), Dialect::Args, plaintext);
        let started = Emulator::start(&["-object", &objects.master, "-object", &objects.secret]);
        started.map(|_| ()).expect("accepted");
    }
}
