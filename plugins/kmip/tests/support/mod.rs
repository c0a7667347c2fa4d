//! Stores on KMIP servers: on PyKMIP's, and on one that answers what a test says.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod firewall;
pub mod scripted;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    DeleteOptions, GetOptions, PutOptions, Registry, Result, Secret, SecretBytes, SecretPath,
    SecretStore, StoreConfig,
};
use keyhaul_kmip_store::KmipFactory;
use keyhaul_servers::PyKmip;

/// Certificate and key, in files.
pub type Files = (PathBuf, PathBuf);

/// A server that tests share, each with a client of its own.
pub fn server() -> &'static PyKmip {
    static SERVER: OnceLock<PyKmip> = OnceLock::new();
    SERVER.get_or_init(PyKmip::start)
}

/// A store on the shared server, as the client of this name.
pub fn store_of(client: &str) -> Arc<dyn SecretStore> {
    let server = server();
    store(
        &server.url(),
        &server.ca_path(),
        &server.client(client),
        &[],
    )
}

/// A store.
pub fn store(url: &str, ca: &Path, files: &Files, more: &[(&str, Value)]) -> Arc<dyn SecretStore> {
    try_store(url, ca, files, more).expect("a store")
}

pub fn try_store(
    url: &str,
    ca: &Path,
    files: &Files,
    more: &[(&str, Value)],
) -> Result<Arc<dyn SecretStore>> {
    let config = StoreConfig::new("kms", url, options(ca, files, more), "keyhaul.toml:1:1")?;
    Registry::new().with(KmipFactory).open(&config)
}

/// The options of a store, as a policy has them.
pub fn options(ca: &Path, files: &Files, more: &[(&str, Value)]) -> Options {
    let text = |path: &Path| Value::Text(path.display().to_string());
    let given = [
        ("ca-cert", text(ca)),
        ("client-cert", text(&files.0)),
        ("client-key", format!("file:{}", files.1.display()).into()),
    ];
    Options::at("keyhaul.toml:2:1", given.iter().chain(more).cloned())
}

/// The store through every layer, with more patience than a server takes that is written in Python and
/// looks at all of its objects to find one.
pub fn layered(store: Arc<dyn SecretStore>) -> Arc<dyn SecretStore> {
    let mut settings = LayerSettings::default();
    settings.timeout = Duration::from_secs(60);
    settings.deadline = Duration::from_secs(300);
    standard(store, &settings, None)
}

pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

pub async fn put(store: &dyn SecretStore, at: &str, value: &str) {
    let value = SecretBytes::copy_from(value.as_bytes());
    let put = store.put(&path(at), &value, &PutOptions::default()).await;
    put.unwrap_or_else(|error| panic!("{at}: {error:?}"));
}

pub async fn get(store: &dyn SecretStore, at: &str) -> Result<Secret> {
    store.get(&path(at), &GetOptions::default()).await
}

pub async fn delete(store: &dyn SecretStore, at: &str) -> Result<()> {
    store.delete(&path(at), &DeleteOptions::default()).await
}

/// The value of a secret, as text.
pub async fn value(store: &dyn SecretStore, at: &str) -> String {
    let came = get(store, at).await;
    let came = came.unwrap_or_else(|error| panic!("{at}: {error:?}"));
    String::from_utf8(came.value.expose().to_vec()).expect("text")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
