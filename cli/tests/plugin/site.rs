//! A folder that plugins may be loaded from, and keyhaul in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder that nobody else can write, nor any above it: what `/tmp` has not.
pub struct Site(TempDir, TempDir);

impl Site {
    pub fn new() -> Self {
        let above = if rustix::process::geteuid().is_root() {
            "/run".into()
        } else {
            std::env::var_os("HOME").expect("a home")
        };
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("keyhaul-test-");
        let shared = builder.tempdir_in("/dev/shm").expect("memory");
        Self(builder.tempdir_in(above).expect("folder"), shared)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    pub fn folder(&self, name: &str) -> String {
        std::fs::create_dir(self.path(name)).expect("folder");
        self.text(name)
    }

    /// A folder of this name in memory, for what plugins keep: a busy disk's fsync takes as long as it
    /// likes.
    pub fn memory(&self, name: &str) -> String {
        let there = self.1.path().join(name);
        std::fs::create_dir(&there).expect("folder");
        std::os::unix::fs::symlink(there, self.path(name)).expect("linked");
        self.text(name)
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        if mode & 0o111 == 0 {
            std::fs::write(&path, text).expect("written");
        } else {
            keyhaul_servers::script(&path, text);
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
        self.text(name)
    }

    /// A policy that serves everything from one store.
    pub fn policy(&self, store: &str) -> String {
        let text = format!(
            "version = 1\n[stores.odd]\n{store}\n[[routes]]\nmatch = \"**\"\nstore = \"odd\"\n"
        );
        self.write("keyhaul.toml", &text, 0o600)
    }

    /// One of the examples, as a program.
    pub fn program(&self, example: &str) -> String {
        let text = std::fs::read_to_string(examples().join(example)).expect(example);
        self.write(&example.replace('/', "-"), &text, 0o755)
    }

    /// The C example as a library; `more` goes to the compiler.
    pub fn jar(&self) -> String {
        self.compile("libjar.so", &examples().join("c/jar.c"), &[])
    }

    /// The example in Rust, which cargo has built with this test.
    pub fn rust_jar(&self) -> String {
        let test = std::env::current_exe().expect("this program");
        let name = "libkeyhaul_plugin_example.so";
        let built = test.with_file_name(name);
        std::fs::copy(&built, self.path(name))
            .unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        self.text(name)
    }

    /// Compiles C as a stranger would.
    pub fn compile(&self, name: &str, source: &Path, more: &[&str]) -> String {
        let done = Command::new("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"])
            .args(["-fPIC", "-shared", "-g", "-o"])
            .arg(self.path(name))
            .arg("-I")
            .arg(header().parent().expect("a folder"))
            .arg("-I")
            .arg(examples().join("c"))
            .args(more)
            .arg(source)
            .arg("-lpthread")
            .output()
            .unwrap_or_else(|error| panic!("cc: {error}; apt-get install gcc libc6-dev"));
        let words = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words}");
        self.text(name)
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.0.path())
            .stdin(Stdio::null());
        command
    }

    pub fn keyhaul(&self, arguments: &[&str]) -> Done {
        let mut command = self.command(env!("CARGO_BIN_EXE_keyhaul"));
        let output = command.args(arguments).output().expect("started");
        Done::from(output)
    }

    /// With the policy of this folder.
    pub fn by_policy(&self, arguments: &[&str]) -> Done {
        let policy = self.text("keyhaul.toml");
        self.keyhaul(&[&["--config", &policy], arguments].concat())
    }
}

/// How a command ended.
pub struct Done {
    pub status: i32,
    pub out: String,
    pub words: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("text"),
            words: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Done {
    #[track_caller]
    pub fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.out, self.words);
        self
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends(0)
    }

    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.words.contains(words), "{words}\n---\n{}", self.words);
        self
    }

    #[track_caller]
    pub fn prints(self, words: &str) -> Self {
        assert!(self.out.contains(words), "{words}\n---\n{}", self.out);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let document: Value = serde_json::from_str(&self.out).expect("JSON");
        assert_eq!(document["schema_version"], 1);
        document
    }
}

pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/examples")
}

pub fn header() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/abi/include/keyhaul_plugin.h")
}
