//! What the tests against real QEMU share: a LUKS volume, a QMP connection, and time limits.

#![allow(dead_code, reason = "each test uses its part")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

pub const PASSPHRASE: &[u8] = b"correct horse, battery staple";
const LIMIT: Duration = Duration::from_secs(60);

/// A LUKS volume whose first 4096 bytes are 0xa5, in a folder that every user can read.
pub struct Volume {
    pub folder: tempfile::TempDir,
    pub image: PathBuf,
}

impl Volume {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        let image = folder.path().join("disk.luks");
        let plain = folder.path().join("passphrase");
        std::fs::write(&plain, PASSPHRASE).expect("written");
        let object = format!("secret,id=s,file={}", plain.display());
        let options = "key-secret=s,iter-time=10";
        create_luks(&object, options, &image);
        let opened = format!("driver=luks,key-secret=s,file.filename={}", image.display());
        run(Command::new("qemu-io")
            .args(["--object", &object, "-c", "write -P 0xa5 0 4096"])
            .args(["--image-opts", &opened]));
        std::fs::remove_file(plain).expect("removed");
        std::fs::set_permissions(&image, PermissionsExt::from_mode(0o644)).expect("mode");
        Self { folder, image }
    }

    /// The words of a qemu-io that reads the volume with the secret `id`.
    pub fn read_with(&self, id: &str) -> Vec<OsString> {
        let image = format!(
            "driver=luks,key-secret={id},file.filename={}",
            self.image.display()
        );
        ["-r", "-c", "read -P 0xa5 0 4096", "--image-opts", &image]
            .map(OsString::from)
            .to_vec()
    }

    /// The volume as the value of `-blockdev` or the arguments of `blockdev-add`.
    pub fn blockdev(&self, id: &str) -> Value {
        json!({
            "driver": "luks", "node-name": "disk", "key-secret": id, "read-only": true,
            "file": {"driver": "file", "filename": self.image, "read-only": true},
        })
    }
}

/// QEMU measures how fast its key derivation is, and gives up on a busy machine.
fn create_luks(object: &str, options: &str, image: &Path) {
    for _ in 0..20 {
        let made = output(
            Command::new("qemu-img")
                .args([
                    "create", "-q", "--object", object, "-f", "luks", "-o", options,
                ])
                .args([image.as_os_str(), OsStr::new("1M")]),
        );
        let words = String::from_utf8_lossy(&made.stderr);
        if made.status.success() {
            return;
        }
        assert!(
            words.contains("Unable to get accurate CPU usage"),
            "{words}"
        );
    }
    panic!("the machine is too busy to make a LUKS volume");
}

/// A program that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = output(command);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    output
}

/// A program's output; it is killed and the test fails when it takes too long.
pub fn output(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{command:?}: {error}: apt-get install qemu-system-x86 qemu-utils")
        });
    let guard = Guard::new(&child);
    let stdout = child.stdout.take().expect("piped");
    let stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(BufReader::new(stderr)));
    let mut bytes = Vec::new();
    std::io::copy(&mut BufReader::new(stdout), &mut bytes).expect("read");
    let words = reader.join().expect("no panic").unwrap_or_default();
    // Not reaped before the guard is called off: the id cannot become another process's.
    drop(guard);
    let status = child.wait().expect("ended");
    Output {
        status,
        stdout: bytes,
        stderr: words.into_bytes(),
    }
}

/// Kills a process that takes too long, until it is dropped.
struct Guard {
    done: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    fn new(child: &Child) -> Self {
        let id = rustix::process::Pid::from_child(child);
        let (done, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
            }
        });
        Self {
            done: Some(done),
            thread: Some(thread),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.done.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Whether qemu-io found the pattern. It exits with success where the pattern differs.
pub fn found_pattern(output: &Output) -> bool {
    let stdout = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && stdout.contains("read 4096/4096 bytes")
        && !stdout.contains("verification failed")
}

/// An emulator without a machine, and a QMP connection to it: by its standard streams, since a
/// socket that is connected to while QEMU starts can be accepted twice, the second time for ever.
pub struct Emulator {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    guard: Option<Guard>,
}

impl Emulator {
    /// Starts one with more arguments, or gives what it said on ending.
    pub fn start(args: &[impl AsRef<OsStr>]) -> Result<Self, String> {
        Self::start_with(args, |_| {})
    }

    /// As [`start`](Self::start), with a last change of the command.
    pub fn start_with(
        args: &[impl AsRef<OsStr>],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self, String> {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-M",
                "none",
                "-S",
                "-display",
                "none",
                "-nodefaults",
                "-qmp",
                "stdio",
            ])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().expect("qemu-system-x86_64");
        let mut emulator = Self {
            input: child.stdin.take().expect("piped"),
            output: BufReader::new(child.stdout.take().expect("piped")),
            guard: Some(Guard::new(&child)),
            child,
        };
        let greeted = emulator.line().is_some();
        if greeted
            && emulator
                .ask(&json!({"execute": "qmp_capabilities"}))
                .is_ok()
        {
            return Ok(emulator);
        }
        let _ = emulator.child.kill();
        let stderr = emulator.child.stderr.take().expect("piped");
        Err(std::io::read_to_string(stderr).unwrap_or_default())
    }

    /// Sends a QMP command and gives its result or its error's description.
    pub fn ask(&mut self, command: &Value) -> Result<Value, String> {
        self.ask_text(&command.to_string())
    }

    /// As [`ask`](Self::ask), for a command in text.
    pub fn ask_text(&mut self, command: &str) -> Result<Value, String> {
        writeln!(self.input, "{command}").map_err(|error| error.to_string())?;
        loop {
            let Some(mut reply) = self.line() else {
                return Err("the connection ended".into());
            };
            if let Some(result) = reply.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = reply.pointer("/error/desc") {
                return Err(error.as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// A property of an object.
    pub fn property(&mut self, id: &str, name: &str) -> Result<Value, String> {
        self.ask(&json!({
            "execute": "qom-get", "arguments": {"path": format!("/objects/{id}"), "property": name},
        }))
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(read) if read > 0 => serde_json::from_str(&line).ok(),
            _ => None,
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.guard = None;
        let _ = self.child.wait();
    }
}

/// The names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("listed");
    entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}
