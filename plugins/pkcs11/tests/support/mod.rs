//! SoftHSM tokens, each test's own, and a library between the store and SoftHSM that counts logins
//! and makes trouble.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{SecretBytes, SecretPath, SecretStore, StoreConfig, StoreFactory};
use keyhaul_pkcs11::Pkcs11Factory;

pub const PIN: &str = "1234-user";
const INSTALL: &str = "apt-get install softhsm2";
const CONFIG: &str = "SOFTHSM2_CONF";
const LIBRARY: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Whether this is the test itself, in a process with tokens of its own. If not, the test is run so,
/// and its outcome is the outcome: a process has one SoftHSM, set up by its environment.
pub fn in_own_process(test: &str) -> bool {
    if std::env::var_os(CONFIG).is_some() {
        return true;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).expect("a folder");
    let config = folder.path().join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(&config, text).expect("written");
    let this = std::env::current_exe().expect("the test's own path");
    let done = Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env(CONFIG, &config)
        .output()
        .expect("run");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success(), "{}: {said}", done.status);
    // A name that no test has runs none, and succeeds.
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// A token of SoftHSM, and what it takes to reach it.
pub struct Hsm {
    label: String,
    module: PathBuf,
    folder: tempfile::TempDir,
    factory: Pkcs11Factory,
}

impl Hsm {
    /// A new token with this label.
    pub fn new(label: &str) -> Self {
        let done = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--so-pin", "5678-officer", "--pin", PIN])
            .output()
            .unwrap_or_else(|error| panic!("softhsm2-util: {error}; {INSTALL}"));
        assert!(done.status.success(), "{done:?}");
        Self::existing(label)
    }

    /// The token of this label, which another handle made.
    pub fn existing(label: &str) -> Self {
        let hsm = Self {
            label: label.to_owned(),
            module: LIBRARY.into(),
            folder: tempfile::tempdir().expect("a folder"),
            factory: Pkcs11Factory::default(),
        };
        hsm.set_pin(PIN);
        hsm
    }

    /// The same, reached through the library that makes trouble.
    pub fn with_trouble(label: &str) -> Self {
        let mut hsm = Self::new(label);
        hsm.module = hsm.folder.path().join("trouble.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/trouble.c");
        let done = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&hsm.module)
            .arg(source)
            .arg(format!("-DLIBRARY=\"{LIBRARY}\""))
            .arg(format!("-DFOLDER=\"{}\"", hsm.folder.path().display()))
            .output()
            .unwrap_or_else(|error| panic!("cc: {error}; apt-get install gcc libc6-dev"));
        assert!(done.status.success(), "{done:?}");
        hsm
    }

    /// A store in the token, bare.
    pub fn store(&self) -> Arc<dyn SecretStore> {
        self.store_with(&[])
    }

    /// A store at this URI, without any options.
    pub fn store_at(&self, uri: &str) -> Arc<dyn SecretStore> {
        let config = StoreConfig::new("hsm", uri, Options::default(), "keyhaul.toml:2:1");
        let config = config.expect("a config");
        self.factory.open(&config).expect("no I/O, no failure")
    }

    /// A store in the token with these options too.
    pub fn store_with(&self, more: &[(&str, Value)]) -> Arc<dyn SecretStore> {
        let place = "keyhaul.toml:2:1";
        let config = StoreConfig::new("hsm", "pkcs11:", self.options(more), place);
        let config = config.expect("a config");
        self.factory.open(&config).expect("no I/O, no failure")
    }

    /// What a policy says of the token, and these options too.
    pub fn options(&self, more: &[(&str, Value)]) -> Options {
        let pin = format!("file:{}", self.pin_file().display());
        let own = [
            ("module", text(&self.module.to_string_lossy())),
            ("pin", text(&pin)),
            ("token", text(&self.label)),
        ];
        Options::at("keyhaul.toml:3:1", own.iter().chain(more).cloned())
    }

    /// Writes the PIN that the store reads.
    pub fn set_pin(&self, pin: &str) {
        let file = self.pin_file();
        fs::write(&file, format!("{pin}\n")).expect("written");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("a mode");
    }

    /// Makes trouble from now on, as `trouble.c` knows it; `""` for none.
    pub fn trouble(&self, what: &str) {
        // Never half written.
        let new = self.folder.path().join("trouble.new");
        fs::write(&new, what).expect("written");
        fs::rename(new, self.folder.path().join("trouble")).expect("moved");
    }

    /// Where the library is.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// How often a function of the library was called.
    pub fn calls(&self, function: &str) -> usize {
        let log = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        log.lines().filter(|line| *line == function).count()
    }

    /// The file that the store reads the PIN from.
    pub fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }
}

/// A store with every layer.
pub fn layered(store: Arc<dyn SecretStore>) -> Arc<dyn SecretStore> {
    standard(store, &LayerSettings::default(), None)
}

/// The same, with a limit of this much for an attempt, and one attempt.
pub fn impatient(store: Arc<dyn SecretStore>, timeout: Duration) -> Arc<dyn SecretStore> {
    let mut settings = LayerSettings::default();
    settings.timeout = timeout;
    settings.retries = 0;
    standard(store, &settings, None)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

pub fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes())
}
