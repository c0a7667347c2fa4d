//! What the tests of this crate share: a host with an identity and a store.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod processes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    Error, GetOptions, PutMode, PutOptions, Result, SecretBytes, SecretPath, SecretStore,
    StoreConfig, Version,
};
use keyhaul_file::FileStore;
use tempfile::TempDir;

/// A folder with room for a store and, beside it, an identity.
pub struct Host {
    folder: TempDir,
}

impl Host {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("store")
    }

    pub fn identity(&self) -> PathBuf {
        self.path("identity")
    }

    pub fn config(&self) -> StoreConfig {
        config(&self.root(), &self.identity(), vec![])
    }

    pub fn config_with(&self, more: Vec<(&str, Value)>) -> StoreConfig {
        config(&self.root(), &self.identity(), more)
    }

    pub fn store(&self) -> FileStore {
        FileStore::open(&self.config()).expect("a valid configuration")
    }

    pub fn plain(&self) -> FileStore {
        FileStore::open(&plain_config(&self.root())).expect("a valid configuration")
    }

    /// The file of a secret whose names need no encoding.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root().join("secrets").join(format!("{path}.secret"))
    }
}

/// An encrypted store that makes what is missing, unless `more` says otherwise.
pub fn config(root: &Path, identity: &Path, more: Vec<(&str, Value)>) -> StoreConfig {
    let mut all = vec![
        ("identity", format!("file:{}", identity.display()).into()),
        ("create", true.into()),
    ];
    all.extend(more);
    let url = format!("file://{}", root.display());
    StoreConfig::new("local", &url, Options::at("test:2:1", all), "test:1:1").expect("a valid URL")
}

pub fn plain_config(root: &Path) -> StoreConfig {
    let url = format!("file+plain://{}", root.display());
    let all = Options::at("test:2:1", [("create", true)]);
    StoreConfig::new("qemu", &url, all, "test:1:1").expect("a valid URL")
}

pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a valid path")
}

pub fn version(text: &str) -> Version {
    Version::new(text).expect("a valid version")
}

pub fn update(text: &str) -> PutOptions {
    PutOptions::default().mode(PutMode::Update(version(text)))
}

pub async fn put(store: &FileStore, name: &str, value: &[u8]) -> String {
    let value = SecretBytes::copy_from(value);
    let written = store.put(&path(name), &value, &PutOptions::default()).await;
    let version = written.expect("written").version;
    version
        .map(|version| version.to_string())
        .unwrap_or_default()
}

pub async fn get(store: &FileStore, name: &str) -> Result<Vec<u8>> {
    let secret = store.get(&path(name), &GetOptions::default()).await?;
    Ok(secret.value.expose().to_vec())
}

pub async fn refused(store: &FileStore, name: &str) -> Error {
    get(store, name).await.expect_err("refused")
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode set");
}

/// Every file below a folder, hidden ones included.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
