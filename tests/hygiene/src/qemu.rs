//! A real QEMU to talk to: a LUKS volume that the canary opens, and QMP with every byte recorded.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{LIMIT, finish, wait_until};

/// A LUKS volume whose first 4096 bytes are 0xa5.
#[derive(Clone, Debug)]
pub struct Volume(PathBuf);

impl Volume {
    /// Makes the volume in `folder`, to be opened by `passphrase`. It takes QEMU seconds: share it.
    ///
    /// # Panics
    /// Where qemu-img or qemu-io fails.
    pub fn new(folder: &Path, passphrase: &[u8]) -> Self {
        let image = folder.join("disk.luks");
        let secret = folder.join("passphrase");
        std::fs::write(&secret, passphrase).expect("written");
        let object = format!("secret,id=s,file={}", secret.display());
        let opened = format!("driver=luks,key-secret=s,file.filename={}", image.display());
        let options = "key-secret=s,iter-time=10";
        let mut create = Command::new("qemu-img");
        create.args([
            "create", "-q", "-f", "luks", "--object", &object, "-o", options,
        ]);
        create.arg(&image).arg("1M");
        let mut write = Command::new("qemu-io");
        write.args([
            "--object",
            &object,
            "-c",
            "write -P 0xa5 0 4096",
            "--image-opts",
            &opened,
        ]);
        for mut command in [create, write] {
            succeed(&mut command);
        }
        std::fs::remove_file(secret).expect("removed");
        Self(image)
    }

    /// The words of a qemu-system that opens the volume with the secret `root`, listens for QMP and
    /// logs all that it can.
    pub fn system(&self, socket: &Path, log: &Path) -> Vec<OsString> {
        let blockdev = json!({
            "driver": "luks", "node-name": "disk", "key-secret": "root", "read-only": true,
            "file": {"driver": "file", "filename": self.0, "read-only": true},
        });
        let mut words: Vec<OsString> = "qemu-system-x86_64 -M none -S -display none -nodefaults -d trace:*,unimp,guest_errors -D"
            .split(' ')
            .map(OsString::from)
            .collect();
        words.push(log.into());
        words.push("-qmp".into());
        words.push(format!("unix:{},server=on,wait=off", socket.display()).into());
        words.push("-blockdev".into());
        words.push(blockdev.to_string().into());
        words
    }

    /// The words of a qemu-io that reads the volume with the secret `root`.
    pub fn reader(&self) -> Vec<OsString> {
        let opened = format!(
            "driver=luks,key-secret=root,file.filename={}",
            self.0.display()
        );
        let words = [
            "qemu-io",
            "-r",
            "-c",
            "read -P 0xa5 0 4096",
            "--image-opts",
            &opened,
        ];
        crate::program::words(&words)
    }
}

/// Runs a program that must succeed. qemu-img times itself to choose how slow a passphrase is to
/// try, and gives up where a busy machine gave it no time: then it may try again.
#[track_caller]
fn succeed(command: &mut Command) {
    let mut words = String::new();
    let done = wait_until(|| {
        let (status, _, stderr) = finish(command, b"");
        words = String::from_utf8_lossy(&stderr).into_owned();
        status.success() || !words.contains("accurate CPU usage")
    });
    assert!(done && words.is_empty(), "{command:?}: {words}");
}

/// A QMP connection that remembers every byte of both directions.
pub struct Qmp {
    stream: BufReader<UnixStream>,
    recorded: Vec<u8>,
}

impl Qmp {
    /// Waits for the socket and shakes hands.
    ///
    /// # Panics
    /// Where nobody answers.
    #[track_caller]
    pub fn connect(socket: &Path) -> Self {
        let mut greeted = None;
        wait_until(|| {
            greeted = Self::greeted(socket);
            greeted.is_some()
        });
        let mut qmp = greeted.expect("QEMU greets over QMP");
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// A connection on which QEMU has said the first word. One that is called while it starts can
    /// miss the call, and answers the next.
    fn greeted(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        let limit = |limit| stream.set_read_timeout(Some(limit)).expect("a limit");
        limit(Duration::from_secs(5));
        let patience = Some(Duration::from_secs(10));
        stream.set_write_timeout(patience).expect("a limit");
        let mut greeting = String::new();
        let mut stream = BufReader::new(stream.try_clone().expect("a descriptor"));
        stream
            .read_line(&mut greeting)
            .ok()
            .filter(|read| *read > 0)?;
        limit(LIMIT);
        let recorded = greeting.into_bytes();
        Some(Self { stream, recorded })
    }

    /// Executes a command; its answer, error or not.
    ///
    /// # Panics
    /// Where none comes.
    #[track_caller]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.recorded.extend_from_slice(text.as_bytes());
        self.stream
            .get_mut()
            .write_all(text.as_bytes())
            .expect("sent");
        loop {
            let answer = self.line();
            if answer.get("event").is_none() {
                return answer;
            }
        }
    }

    /// Every property of every object that was made by `-object`, as far as QEMU tells it.
    pub fn objects(&mut self) -> Vec<(String, Value)> {
        let mut told = Vec::new();
        let listed = |answer: &Value| -> Vec<String> {
            let entries = answer["return"].as_array().cloned().unwrap_or_default();
            entries
                .iter()
                .filter_map(|entry| Some(entry["name"].as_str()?.to_owned()))
                .collect()
        };
        for object in listed(&self.execute("qom-list", json!({"path": "/objects"}))) {
            let path = format!("/objects/{object}");
            let mut properties = listed(&self.execute("qom-list", json!({"path": path})));
            properties.extend(["data", "rawdata", "file"].map(str::to_owned));
            for property in properties {
                let arguments = json!({"path": path, "property": property});
                told.push((
                    format!("{object}.{property}"),
                    self.execute("qom-get", arguments),
                ));
            }
        }
        told
    }

    /// Whether the volume reads as it was written; QEMU says so on its standard output.
    #[track_caller]
    pub fn read_volume(&mut self) -> Value {
        let line = "qemu-io disk \"read -P 0xa5 0 4096\"";
        self.execute("human-monitor-command", json!({"command-line": line}))
    }

    /// Every byte that was sent or came.
    pub fn recorded(&self) -> &[u8] {
        &self.recorded
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("an answer");
        self.recorded.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line);
        serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }
}
