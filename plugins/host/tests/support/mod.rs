//! Plugins where they may be loaded from, and stores of them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part, and a panic is how a test fails"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{Registry, Result, SecretStore, StoreConfig};
use keyhaul_plugin_host::PluginFactory;
use tempfile::TempDir;

/// A folder that nobody else can write, nor any above it: what `/tmp` has not.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        let above = if rustix::process::geteuid().is_root() {
            "/run".into()
        } else {
            std::env::var_os("HOME").expect("a home")
        };
        Self(tempfile::tempdir_in(above).expect("folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A credential's source: a file in here, of ours alone.
    pub fn credential(&self, name: &str, text: &str) -> Value {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        Value::Text(format!("file:{}", path.display()))
    }

    /// A copy of a library in here.
    pub fn install(&self, library: &Path) -> PathBuf {
        let name = library.file_name().expect("a file");
        let path = self.path().join(name);
        std::fs::copy(library, &path)
            .unwrap_or_else(|error| panic!("{}: {error}", library.display()));
        path
    }
}

/// Where cargo puts the libraries of this test's package and its dependencies.
pub fn built(folder: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    // target/debug/deps/TEST
    let target = test.ancestors().nth(2).expect("a target folder");
    target.join(folder).join(name)
}

/// Opens a store of the plugin at `path`.
pub fn open(name: &str, path: &Path, options: Options) -> Result<Arc<dyn SecretStore>> {
    open_pinned(name, path, options, None)
}

/// The same, with a digest.
pub fn open_pinned(
    name: &str,
    path: &Path,
    plugin: Options,
    pin: Option<&str>,
) -> Result<Arc<dyn SecretStore>> {
    let pin = pin.map(|pin| ("sha256", Value::from(pin)));
    let given = [("options", plugin.into())].into_iter().chain(pin);
    let given = Options::at("keyhaul.toml:2:1", given);
    let url = format!("plugin://{}", path.display());
    let config = StoreConfig::new(name, &url, given, "keyhaul.toml:1:1")?;
    Registry::new().with(PluginFactory::default()).open(&config)
}

/// A plugin's own options, as a policy gives them.
pub fn options<const N: usize>(given: [(&str, Value); N]) -> Options {
    Options::at("keyhaul.toml:3:1", given)
}

/// Compiles C to a library in `folder`, as a stranger would.
pub fn compile(folder: &Folder, name: &str, source: &Path, more: &[&str]) -> PathBuf {
    let library = folder.path().join(name);
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../abi/include");
    let done = std::process::Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"])
        .args(["-fPIC", "-shared", "-g", "-o"])
        .arg(&library)
        .arg("-I")
        .arg(include)
        .args(more)
        .arg(source)
        .arg("-lpthread")
        .output()
        .unwrap_or_else(|error| panic!("cc: {error}; apt-get install gcc libc6-dev"));
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words}");
    library
}

/// The plugin that does what no plugin may, in `folder`.
pub fn hostile(folder: &Folder, name: &str, more: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/hostile.c");
    compile(folder, name, &source, more)
}
