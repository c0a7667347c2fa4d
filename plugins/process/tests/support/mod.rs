//! Programs to be plugins, and stores of them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{SecretStore, StoreConfig, StoreFactory as _};
use keyhaul_plugin_process::ProcessFactory;
use tempfile::TempDir;

/// A folder that nobody else can write to, nor to any above it: a plugin's is one.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let home = std::env::home_dir().expect("a home");
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix(".keyhaul-test-").tempdir_in(home);
        Self(made.expect("folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A folder below it.
    pub fn folder(&self, name: &str) -> String {
        let path = self.path().join(name);
        std::fs::create_dir(&path).expect("folder");
        path.to_str().expect("text").to_owned()
    }

    /// One of the examples, installed.
    pub fn install(&self, example: &str) -> PathBuf {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
        let text = std::fs::read_to_string(Path::new(examples).join(example)).expect(example);
        self.program(&example.replace('/', "-"), &text)
    }

    /// A program of this text.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        keyhaul_servers::script(&path, text);
        path
    }

    /// A store of `program`.
    pub fn store(&self, program: &Path, arguments: &[&str]) -> Arc<dyn SecretStore> {
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        self.store_with(program, [("args", Value::Texts(arguments))])
    }

    /// A store of `program` with these options in the policy.
    pub fn store_with<const N: usize>(
        &self,
        program: &Path,
        options: [(&str, Value); N],
    ) -> Arc<dyn SecretStore> {
        let url = format!("plugin+exec://{}", program.display());
        let options = Options::at("keyhaul.toml:2:1", options);
        let config = StoreConfig::new("odd", &url, options, "keyhaul.toml:1:1");
        ProcessFactory
            .open(&config.expect("a store"))
            .expect("opened")
    }
}
