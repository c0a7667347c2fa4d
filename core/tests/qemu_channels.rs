//! Every channel, from the command line a person types to the data of a volume, on real QEMU.

mod support;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::qemu::channel::{
    FileChannel, KeyringChannel, PipeChannel, RuntimeDir, release, release_serial,
};
use keyhaul_core::qemu::{CommandLine, KeySource, MasterKey, Owner, encrypt};
use keyhaul_core::{ErrorKind, Reference};
use support::{Emulator, PASSPHRASE, Volume, found_pattern, names, output};

const NOBODY: Owner = Owner {
    uid: 65534,
    gid: 65534,
};

/// A qemu-io with a reference, rewritten.
fn rewritten(volume: &Volume, key: &MasterKey, source: &KeySource) -> Vec<OsString> {
    let mut words = vec![
        "qemu-io".into(),
        "--object".into(),
        "secret,id=s,ref=vm/root".into(),
    ];
    words.extend(volume.read_with("s"));
    let command = CommandLine::parse(&words).expect("valid");
    assert_eq!(
        command.references()[0].reference,
        Reference::parse("vm/root").expect("valid").into()
    );
    let secret = encrypt(key, PASSPHRASE).expect("encrypted");
    command
        .rewrite(source, &[("s".into(), secret)])
        .expect("rewritten")
}

fn command(words: &[OsString], owner: Option<Owner>) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command
}

fn key() -> MasterKey {
    MasterKey::generate().expect("randomness")
}

/// Nobody, where we may become nobody.
fn owners() -> Vec<Option<Owner>> {
    let root = rustix::process::geteuid().is_root();
    std::iter::once(None)
        .chain(root.then_some(Some(NOBODY)))
        .collect()
}

fn read_by_pipe(
    volume: &Volume,
    given_to: Option<Owner>,
    run_as: Option<Owner>,
    inherited: bool,
) -> (Output, bool) {
    let key = key();
    let pipe = Arc::new(PipeChannel::open(&key, given_to).expect("opened"));
    let words = rewritten(volume, &key, &pipe.property());
    let mut command = command(&words, run_as);
    if inherited {
        inherit(&mut command, &pipe);
    }
    (output(&mut command), pipe.is_unread())
}

fn inherit(command: &mut Command, pipe: &Arc<PipeChannel>) {
    let pipe = Arc::clone(pipe);
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(move || pipe.make_inheritable());
    }
}

#[test]
fn a_pipe_is_read_by_the_user_it_belongs_to() {
    let volume = Volume::new();
    for owner in owners() {
        let (output, unread) = read_by_pipe(&volume, owner, owner, true);
        assert!(found_pattern(&output), "{owner:?}: {output:?}");
        assert!(!unread);
    }
    let (output, unread) = read_by_pipe(&volume, None, None, false);
    assert!(
        !found_pattern(&output),
        "the control: nothing was inherited"
    );
    assert!(unread);
    if rustix::process::geteuid().is_root() {
        let (output, unread) = read_by_pipe(&volume, None, Some(NOBODY), true);
        assert!(!found_pattern(&output), "the control: root's pipe");
        assert!(unread);
    }
}

#[test]
fn a_file_is_read_and_seen_to_be_read_and_gone() {
    let volume = Volume::new();
    let runtime = RuntimeDir::open(Some(&volume.folder.path().join("run"))).expect("opened");
    for owner in owners() {
        let key = key();
        let channel = FileChannel::create(&runtime, &key, owner).expect("created");
        let mut watch = channel.watch().expect("watched");
        let words = rewritten(&volume, &key, &channel.property());
        assert!(!watch.was_read());
        let read = output(&mut command(&words, owner));
        assert!(found_pattern(&read), "{owner:?}: {read:?}");
        assert!(watch.was_read());
        channel.remove().expect("removed");
        assert_eq!(names(runtime.path()), [""; 0]);
        assert!(
            !found_pattern(&output(&mut command(&words, owner))),
            "the control: no key"
        );
    }
}

#[test]
fn a_file_is_for_its_owner_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let volume = Volume::new();
    let runtime = RuntimeDir::open(Some(&volume.folder.path().join("run"))).expect("opened");
    let channel = FileChannel::create(&runtime, &key(), Some(NOBODY)).expect("created");
    let KeySource::File(path) = channel.property() else {
        panic!("a file")
    };
    let cat = |uid| output(Command::new("cat").arg(&path).uid(uid)).stdout.len();
    assert_eq!(cat(NOBODY.uid), 32);
    assert_eq!(cat(1), 0);
    let listed = output(Command::new("ls").arg(runtime.path()).uid(1));
    assert_eq!(listed.stdout, b"");
    // In a directory that nobody cannot pass through, the refusal comes before the file.
    let closed = volume.folder.path().join("closed");
    let closed = RuntimeDir::open(Some(&closed)).expect("opened");
    std::fs::set_permissions(
        closed.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("mode");
    let error = FileChannel::create(&closed, &key(), Some(NOBODY)).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(names(closed.path()), [""; 0]);
}

#[test]
fn a_left_file_stays_until_it_is_released_and_nothing_else_is_released() {
    let volume = Volume::new();
    let runtime = RuntimeDir::open(Some(&volume.folder.path().join("run"))).expect("opened");
    let key = key();
    let channel = FileChannel::create(&runtime, &key, None).expect("created");
    let words = rewritten(&volume, &key, &channel.property());
    let folder = channel.leave().expect("left");
    for _ in 0..2 {
        assert!(found_pattern(&output(&mut command(&words, None))));
    }
    let other = runtime.path().join("keyhaul-0123456789abcdef");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("notes"), "mine").expect("written");
    let odd = runtime.path().join("odd");
    std::fs::create_dir(&odd).expect("made");
    for (path, rule) in [(&other, "`notes` lies in it"), (&odd, "its name")] {
        let error = release(path).expect_err("foreign");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(rule), "{error}");
        assert!(path.exists());
    }
    let held = FileChannel::create(&runtime, &key, None).expect("created");
    assert_eq!(
        release(held.folder()).expect_err("held").kind(),
        ErrorKind::Conflict
    );
    assert!(held.folder().join("master-key.aes").exists());
    release(&folder).expect("released");
    assert!(!folder.exists());
    assert_eq!(
        release(&folder).expect_err("gone").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        release(Path::new("/")).expect_err("the root").kind(),
        ErrorKind::InvalidConfig
    );
}

/// Session keyrings belong to threads, and each test has one of its own.
#[test]
fn a_keyring_is_read_by_what_this_thread_starts_and_gone_afterwards() {
    let volume = Volume::new();
    for owner in owners() {
        let key = key();
        let channel = KeyringChannel::create(&key).expect("created");
        let words = rewritten(&volume, &key, &channel.property());
        let read = output(&mut command(&words, owner));
        assert!(found_pattern(&read), "{owner:?}: {read:?}");
        let elsewhere = words.clone();
        let read = std::thread::spawn(move || {
            // A session of its own does not possess the key, whoever's it is.
            let _other = KeyringChannel::create(&MasterKey::generate().expect("randomness"));
            output(&mut command(&elsewhere, None))
        });
        let read = read.join().expect("no panic");
        assert!(!found_pattern(&read), "the control: another session");
        drop(channel);
        assert!(
            !found_pattern(&output(&mut command(&words, owner))),
            "the control: no key"
        );
    }
}

#[test]
fn a_keyring_key_shows_nothing_but_to_its_possessor() {
    let key = key();
    let channel = KeyringChannel::create(&key).expect("created");
    let shown = std::fs::read_to_string("/proc/keys").expect("proc");
    // Without VIEW, the key is not even listed.
    assert!(!shown.contains(&format!("{:08x}", channel.serial())));
}

#[test]
fn a_key_left_in_the_session_can_be_released_and_others_cannot() {
    let volume = Volume::new();
    let key = key();
    // A session that this test and its children share, as a login has.
    let session =
        KeyringChannel::create(&MasterKey::generate().expect("randomness")).expect("session");
    let channel = KeyringChannel::in_session(&key, Duration::from_secs(600)).expect("created");
    let words = rewritten(&volume, &key, &channel.property());
    let serial = channel.leave();
    assert!(found_pattern(&output(&mut command(&words, None))));
    let padd = output(Command::new("keyctl").args(["add", "user", "somebody:else", "x", "@s"]));
    let foreign: i32 = String::from_utf8_lossy(&padd.stdout)
        .trim()
        .parse()
        .expect("a serial");
    assert_eq!(
        release_serial(foreign).expect_err("foreign").kind(),
        ErrorKind::InvalidConfig
    );
    release_serial(serial).expect("released");
    assert!(
        !found_pattern(&output(&mut command(&words, None))),
        "the control: no key"
    );
    assert_eq!(
        release_serial(serial).expect_err("gone").kind(),
        ErrorKind::NotFound
    );
    drop(session);
}

/// In whatever session this test was started in, most often that of the user.
#[test]
fn a_key_in_the_session_there_is_outlives_the_thread_that_left_it() {
    let volume = Volume::new();
    let key = Arc::new(key());
    let shared = Arc::clone(&key);
    let source = std::thread::spawn(move || {
        let channel = KeyringChannel::in_session(&shared, Duration::from_secs(600));
        let channel = channel.expect("created");
        let source = channel.property();
        channel.leave();
        source
    });
    let source = source.join().expect("no panic");
    let words = rewritten(&volume, &key, &source);
    assert!(found_pattern(&output(&mut command(&words, None))));
    let KeySource::Serial(serial) = source else {
        panic!("a serial")
    };
    release_serial(serial).expect("released");
    assert!(
        !found_pattern(&output(&mut command(&words, None))),
        "the control: no key"
    );
}

#[test]
fn a_timeout_ends_a_key_that_nobody_released() {
    let volume = Volume::new();
    let key = key();
    let session =
        KeyringChannel::create(&MasterKey::generate().expect("randomness")).expect("session");
    let channel = KeyringChannel::in_session(&key, Duration::from_secs(1)).expect("created");
    let words = rewritten(&volume, &key, &channel.property());
    channel.leave();
    let started = std::time::Instant::now();
    while found_pattern(&output(&mut command(&words, None))) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "it never ended"
        );
    }
    drop(session);
}

/// The emulator, with the sandbox on: whatever QEMU does with the key is done before.
#[test]
fn an_emulator_in_its_sandbox_reads_every_channel() {
    let volume = Volume::new();
    let runtime = RuntimeDir::open(Some(&volume.folder.path().join("run"))).expect("opened");
    let start = |key: &MasterKey, source: &KeySource, pipe: Option<&Arc<PipeChannel>>| {
        let device = volume.blockdev("s").to_string();
        let words: Vec<OsString> = [
            "qemu-system-x86_64",
            "-object",
            "secret,id=s,ref=vm/root",
            "-blockdev",
            &device,
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]
        .map(OsString::from)
        .to_vec();
        let command = CommandLine::parse(&words).expect("valid");
        let secret = encrypt(key, PASSPHRASE).expect("encrypted");
        let words = command
            .rewrite(source, &[("s".into(), secret)])
            .expect("rewritten");
        let started = Emulator::start_with(&words[1..], |command| {
            if let Some(pipe) = pipe {
                inherit(command, pipe);
            }
        });
        started.map(|_| ())
    };
    let key = key();
    let pipe = Arc::new(PipeChannel::open(&key, None).expect("opened"));
    start(&key, &pipe.property(), Some(&pipe)).expect("by pipe");
    let file = FileChannel::create(&runtime, &key, None).expect("created");
    start(&key, &file.property(), None).expect("by file");
    let ring = KeyringChannel::create(&key).expect("created");
    start(&key, &ring.property(), None).expect("by keyring");
    let other = MasterKey::generate().expect("randomness");
    let error = start(&other, &file.property(), None).expect_err("the control: another key");
    assert!(!error.is_empty());
}
