//! A service of `serve --dev`, and whoever asks it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No step of these tests takes a tenth of it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A service to try things out, ended with the value.
pub struct Service {
    pub folder: TempDir,
    child: Child,
    notified: UnixDatagram,
}

impl Service {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder)
    }

    pub fn start_in(folder: TempDir) -> Self {
        let socket = folder.path().join("notify");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).expect("bound");
        notified.set_read_timeout(Some(LIMIT)).expect("set");
        let output = |name| fs::File::create(folder.path().join(name)).expect("made");
        let child = keyhaul(folder.path())
            .args([
                "serve",
                "--dev",
                "--folder",
                "dev",
                "--listen",
                "127.0.0.1:0",
            ])
            .env("NOTIFY_SOCKET", &socket)
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .expect("started");
        let mut service = Self {
            folder,
            child,
            notified,
        };
        service.told("READY=1");
        service
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("dev").join(name)
    }

    /// Waits for what the service manager is told.
    pub fn told(&mut self, expected: &str) {
        let mut buffer = [0; 256];
        let length = self.notified.recv(&mut buffer);
        let length = length.unwrap_or_else(|error| panic!("{error}: {}", self.said()));
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert_eq!(text.lines().next(), Some(expected), "{}", self.said());
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).expect("there")
    }

    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).expect("there")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("told");
    }

    pub fn end(mut self) -> TempDir {
        self.signal(Signal::TERM);
        self.told("STOPPING=1");
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}: {}", self.said());
        // What drop would end is over.
        let Self { folder, .. } = &self;
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::rename(folder.path().join("dev"), elsewhere.path().join("dev")).expect("moved");
        elsewhere
    }

    pub fn run(&self, role: &str, arguments: &[&str]) -> Output {
        keyhaul(&self.path(""))
            .args(["--config", &format!("{role}.toml")])
            .args(arguments)
            .output()
            .expect("started")
    }

    #[track_caller]
    pub fn done(&self, role: &str, arguments: &[&str]) -> String {
        let done = self.run(role, arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{role} {arguments:?}: {said}");
        String::from_utf8(done.stdout).expect("text")
    }

    #[track_caller]
    pub fn refused(&self, role: &str, arguments: &[&str], status: i32) {
        let done = self.run(role, arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(
            done.status.code(),
            Some(status),
            "{role} {arguments:?}: {said}"
        );
        assert!(done.stdout.is_empty());
    }

    #[track_caller]
    pub fn json(&self, role: &str, arguments: &[&str]) -> serde_json::Value {
        let text = self.done(role, &[arguments, &["--format", "json"]].concat());
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(document["schema_version"], 1);
        document
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn keyhaul(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyhaul"));
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}
