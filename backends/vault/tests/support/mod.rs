//! Stores at a real OpenBao, one server for a test file.

#![allow(dead_code, reason = "not every test file needs all of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyhaul_core::registry::Options;
use keyhaul_core::{GetOptions, SecretBytes, SecretPath, StoreConfig};
use keyhaul_servers::OpenBao;
use keyhaul_vault::VaultStore;

/// The server.
pub fn server() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(OpenBao::dev)
}

/// A fresh mount of KV `version`.
pub fn mount(version: u8) -> String {
    let mount = fresh("kv");
    server().kv(&mount, version);
    mount
}

/// A name that nothing else has.
pub fn fresh(prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A store at `mount`, as root.
pub fn store(mount: &str, options: &[(&str, &str)]) -> VaultStore {
    store_as(server().root_token(), mount, options)
}

/// A store at `mount`, as whoever `token` is.
pub fn store_as(token: &str, mount: &str, options: &[(&str, &str)]) -> VaultStore {
    VaultStore::open(&config_as(token, mount, options)).expect("opens")
}

/// Its configuration.
pub fn config_as(token: &str, mount: &str, options: &[(&str, &str)]) -> StoreConfig {
    config_at(server(), token, mount, options)
}

/// The configuration of a store at another server.
pub fn config_at(
    server: &OpenBao,
    token: &str,
    mount: &str,
    options: &[(&str, &str)],
) -> StoreConfig {
    let file = server.folder().join(fresh("token"));
    fs::write(&file, token).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("private");
    let source = format!("file:{}", file.display());
    let place = "keyhaul.toml:2:1";
    let auth = Options::at(place, [("method", "token"), ("token", &source)]);
    let mut options = Options::at(place, options.iter().copied());
    options.0.extend(Options::at(place, [("auth", auth)]).0);
    let address = format!("vault+{}", server.address());
    StoreConfig::new(
        "site",
        &format!("{address}/{mount}"),
        options,
        "keyhaul.toml:1:1",
    )
    .expect("a store")
}

/// A path.
pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

/// A value.
pub fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes())
}

/// What is at a path, as text.
pub async fn text_at(store: &VaultStore, at: &str, options: &GetOptions) -> String {
    use keyhaul_core::SecretStore as _;

    let secret = store.get(&path(at), options).await.expect("there");
    String::from_utf8(secret.value.expose().to_vec()).expect("text")
}
