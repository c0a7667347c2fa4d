//! A deployment of its own for each test: a policy, an encrypted store, a home, a runtime
//! directory.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhaul_servers::{Backend, Place};
use tempfile::TempDir;

use crate::{Disk, finish, finish_with, keyhaul};

/// A deployment in a temporary folder, which is gone with it.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    place: Option<Place>,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// One encrypted store that serves everything, made with the first write.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("keyhaul-")
            .tempdir()
            .expect("a temporary folder");
        let site = Self {
            folder,
            place: None,
        };
        // Another user's QEMU passes through, and has one folder to make its sockets in.
        set_mode(&site.path("."), 0o711);
        fs::create_dir(site.path("vm")).expect("made");
        set_mode(&site.path("vm"), 0o777);
        for private in ["config", "data", "state"] {
            fs::create_dir(site.path(private)).expect("made");
            set_mode(&site.path(private), 0o700);
        }
        site.policy(&format!(
            "version = 1\n\n[stores.local]\nurl = \"file://{}\"\nidentity = \"file:{}\"\ncreate = true\n\n[[routes]]\nmatch = \"**\"\nstore = \"local\"\n",
            site.path("data/secrets").display(),
            site.path("state/identity").display(),
        ));
        site
    }

    /// A site with the right passphrase of [`Disk`]s as `web01/root`, and a wrong one as
    /// `web01/wrong`.
    pub fn with_passphrases() -> Self {
        let site = Self::new();
        site.set("web01/root", crate::PASSPHRASE.as_bytes());
        site.set("web01/wrong", crate::WRONG_PASSPHRASE.as_bytes());
        site
    }

    /// The same, save that its policy names an empty store of this kind.
    #[track_caller]
    pub fn on(backend: Backend) -> Self {
        let mut site = Self::new();
        site.swap(backend);
        site
    }

    /// Moves to an empty store of this kind, by another policy file and what that needs in the
    /// environment. The secrets stay behind.
    #[track_caller]
    pub fn swap(&mut self, backend: Backend) {
        let place = backend.place(&self.path("state"));
        self.policy(&place.policy());
        self.place = Some(place);
    }

    /// The store it moved to.
    ///
    /// # Panics
    /// Where it did not.
    pub fn place(&self) -> &Place {
        self.place.as_ref().expect("a site that was swapped")
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where key files go.
    pub fn runtime(&self) -> PathBuf {
        self.path("runtime")
    }

    /// Replaces its policy.
    pub fn policy(&self, text: &str) {
        let path = self.path("keyhaul.toml");
        fs::write(&path, text).expect("written");
        set_mode(&path, 0o600);
    }

    /// A file in it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        path
    }

    /// A program in it.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        keyhaul_servers::script(&path, text);
        path
    }

    /// A copy of an encrypted disk.
    pub fn disk(&self, disk: Disk) -> PathBuf {
        let path = self.path(disk.file_name());
        if !path.exists() {
            fs::copy(disk.original(), &path).expect("copied");
            set_mode(&path, 0o644);
        }
        path
    }

    /// A command with this site's surroundings and nothing of the test's own.
    pub fn surround<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("."))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("."))
            .env("KEYHAUL_CONFIG", self.path("keyhaul.toml"))
            .envs(self.place.iter().flat_map(|place| place.variables.clone()))
            .current_dir(self.folder.path())
    }

    /// keyhaul, in this site.
    pub fn keyhaul<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(keyhaul());
        self.surround(&mut command).args(arguments);
        command
    }

    /// `keyhaul run` with its own options and then the command that it starts.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        options: &[&str],
        command: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut run = self.keyhaul(["run", "--runtime-dir"]);
        run.arg(self.runtime())
            .args(options)
            .arg("--")
            .args(command);
        run
    }

    /// Stores a value, which goes by standard input.
    #[track_caller]
    pub fn set(&self, reference: &str, value: &[u8]) {
        self.set_with(reference, value, &[]);
    }

    /// Stores a value with options.
    #[track_caller]
    pub fn set_with(&self, reference: &str, value: &[u8], options: &[&str]) {
        let mut command = self.keyhaul(["set", reference]);
        finish_with(command.args(options), value).ok();
    }

    /// Reads a value.
    #[track_caller]
    pub fn get(&self, reference: &str) -> Vec<u8> {
        finish(&mut self.keyhaul(["get", reference])).ok().stdout
    }

    /// Makes a value that nobody has seen.
    #[track_caller]
    pub fn generate(&self, reference: &str) {
        finish(&mut self.keyhaul(["generate", reference])).ok();
    }

    /// The key folders that there are.
    pub fn key_folders(&self) -> Vec<PathBuf> {
        match fs::read_dir(self.runtime()) {
            Ok(entries) => entries.map(|entry| entry.expect("entry").path()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}
