//! Encrypted disks, made by real qemu-img without keyhaul, with a pattern that only who has the
//! passphrase can read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{finish, program};

/// The passphrase of every [`Disk`].
pub const PASSPHRASE: &str = "correct, horse=battery staple";
/// Not the passphrase of any.
pub const WRONG_PASSPHRASE: &str = "correct, horse=battery stapler";
/// What is written over the first 64 KiB.
pub const PATTERN: u8 = 0x5a;

/// How often making a volume is tried.
const ATTEMPTS: usize = 10;

/// A kind of encrypted disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// A raw LUKS volume.
    Luks,
    /// LUKS inside qcow2.
    Qcow2,
}

impl Disk {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Luks, Self::Qcow2];

    /// What its file is called.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Luks => "disk.luks",
            Self::Qcow2 => "disk.qcow2",
        }
    }

    /// The options of a block device that opens it with the secret object of this id.
    pub fn options(self, path: &Path, secret_id: &str) -> String {
        let file = format!("file.driver=file,file.filename={}", path.display());
        match self {
            Self::Luks => format!("driver=luks,key-secret={secret_id},{file}"),
            Self::Qcow2 => {
                format!("driver=qcow2,encrypt.format=luks,encrypt.key-secret={secret_id},{file}")
            }
        }
    }

    /// The same as the arguments of QMP's `blockdev-add`.
    pub fn blockdev(self, path: &Path, secret_id: &str, node: &str) -> serde_json::Value {
        let file = serde_json::json!({"driver": "file", "filename": path});
        match self {
            Self::Luks => serde_json::json!({
                "driver": "luks", "node-name": node, "read-only": true,
                "key-secret": secret_id, "file": file,
            }),
            Self::Qcow2 => serde_json::json!({
                "driver": "qcow2", "node-name": node, "read-only": true,
                "encrypt": {"format": "luks", "key-secret": secret_id}, "file": file,
            }),
        }
    }

    /// The disk that all tests copy, made where there is none yet.
    pub(crate) fn original(self) -> PathBuf {
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test
            .ancestors()
            .nth(3)
            .expect("the target folder")
            .join("tmp");
        fs::create_dir_all(&folder).expect("made");
        // The name says what is in it: other content needs another name.
        let path = folder.join(format!("keyhaul-e2e-1-{}", self.file_name()));
        if !path.exists() {
            let work = tempfile::tempdir_in(&folder).expect("a folder");
            let made = self.make(work.path());
            // Whoever else made it at the same time made the same.
            fs::rename(made, &path).expect("renamed");
        }
        path
    }

    fn make(self, folder: &Path) -> PathBuf {
        let passphrase = folder.join("passphrase");
        fs::write(&passphrase, PASSPHRASE).expect("written");
        let secret = format!("secret,id=s,file={}", passphrase.display());
        let path = folder.join(self.file_name());
        let (format, options) = match self {
            Self::Luks => ("luks", "key-secret=s,iter-time=10"),
            Self::Qcow2 => (
                "qcow2",
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            ),
        };
        make_volume(|| {
            let mut command = program("qemu-img");
            command.args(["create", "-q", "-f", format, "--object", &secret]);
            command.args(["-o", options]).arg(&path).arg("1M");
            command
        });
        let mut write = program("qemu-io");
        write.args([
            "--object",
            &secret,
            "--image-opts",
            &self.options(&path, "s"),
        ]);
        finish(write.args(["-c", &format!("write -P {PATTERN} 0 64k")])).ok();
        path
    }
}

/// Runs the qemu-img that makes a LUKS volume. That costs seconds, since QEMU first measures how
/// fast it is, whatever is asked; and where the clock of processor time is not steady, as in many a
/// virtual machine, QEMU gives up in these words, and the next attempt is as good as the first.
#[track_caller]
pub fn make_volume(command: impl Fn() -> Command) {
    for _ in 1..ATTEMPTS {
        let done = finish(&mut command());
        if !done.stderr.contains("Unable to get accurate CPU usage") {
            done.ok();
            return;
        }
    }
    finish(&mut command()).ok();
}

/// The qemu-io command that reads the pattern, or another one.
pub fn read_command(pattern: u8) -> String {
    format!("read -P {pattern} 0 64k")
}

/// Whether the export at a socket gives the pattern: asked by qemu-io, with a control that
/// another pattern would not do.
#[track_caller]
pub fn reads_pattern(socket: &Path, export: &str) -> bool {
    let url = format!("nbd+unix:///{export}?socket={}", socket.display());
    let read = |pattern: u8| {
        let mut command = program("qemu-io");
        finish(command.args(["-r", "-f", "raw", "-c", &read_command(pattern), &url]))
    };
    let other = read(!PATTERN);
    assert!(!other.status.success(), "any pattern would do: {other:?}");
    read(PATTERN).status.success()
}
