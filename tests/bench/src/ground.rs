//! What the measurements stand on: the programs, an encrypted store, and secrets in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// How many secrets the large VM has.
pub const MANY: usize = 100;

pub struct Ground {
    pub keyhaul: PathBuf,
    pub bare: PathBuf,
    pub floor: PathBuf,
    pub load: PathBuf,
    pub minimal: PathBuf,
    pub peak: PathBuf,
    pub folder: TempDir,
}

impl Ground {
    pub fn prepare() -> Result<Self, String> {
        let here = std::env::current_exe().map_err(|error| error.to_string())?;
        let programs = here.parent().ok_or("the benchmark has no folder")?;
        let built = |name: &str| {
            let path = programs.join(name);
            if path.exists() {
                Ok(path)
            } else {
                Err(format!(
                    "{name} is missing: cargo build --release --workspace"
                ))
            }
        };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let ground = Self {
            keyhaul: built("keyhaul")?,
            bare: built("keyhaul-bench-bare")?,
            floor: built("keyhaul-bench-floor")?,
            load: built("keyhaul-bench-load")?,
            minimal: built("keyhaul-bench-minimal")?,
            peak: built("keyhaul-bench-peak")?,
            folder,
        };
        for number in 0..MANY {
            let done = ground
                .keyhaul()
                .args(["generate", &format!("web01/disk-{number}")])
                .stderr(Stdio::null())
                .status()
                .map_err(|error| error.to_string())?;
            if !done.success() {
                return Err(format!("keyhaul generate ended with {done}"));
            }
        }
        Ok(ground)
    }

    /// keyhaul with a policy, store and identity of its own: the embedded default in a fresh home.
    pub fn keyhaul(&self) -> Command {
        let mut command = Command::new(&self.keyhaul);
        let home = self.folder.path();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home);
        command
    }

    /// A policy in a file that nobody else can write to.
    pub fn policy(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
        path
    }

    /// `keyhaul run` of the bare program with `count` secrets.
    pub fn run(&self, options: &[&str], count: usize) -> Command {
        self.run_by(self.keyhaul(), options, count)
    }

    /// The same with a keyhaul that has a policy of its own.
    pub fn run_by(&self, mut command: Command, options: &[&str], count: usize) -> Command {
        command.arg("run").args(options).arg("--").arg(&self.bare);
        for number in 0..count {
            command.args([
                "-object",
                &format!("secret,id=disk{number},ref=web01/disk-{number}"),
            ]);
        }
        command
    }

    /// A credential of the same size, encrypted by systemd-creds under the host's key; `None` where it
    /// is not to be had.
    pub fn systemd_creds(&self) -> Option<Command> {
        let clear = self.folder.path().join("clear");
        let sealed: &Path = &self.folder.path().join("sealed");
        fs::write(&clear, "x".repeat(32)).ok()?;
        let made = Command::new("systemd-creds")
            .args(["encrypt", "--with-key=host", "--name=disk"])
            .args([&clear, sealed])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .ok()?;
        let mut command = Command::new("systemd-creds");
        command
            .args(["decrypt", "--name=disk"])
            .arg(sealed)
            .arg("-");
        made.success().then_some(command)
    }
}
