//! Certificates and stores for a test's servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyhaul_core::StoreConfig;
use keyhaul_core::registry::{Options, Value};
use keyhaul_remote::client::{RemoteStore, Service};
use keyhaul_servers::{Authority, Issued};
use rustls::ServerConfig;
use tempfile::TempDir;

use crate::stage;

/// An authority, its servers' certificate, and a node's in files.
pub struct Site {
    pub folder: TempDir,
    pub authority: Authority,
    server: Issued,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("keys of the test");
        let server = authority.server(&["localhost", "127.0.0.1"]);
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
        authority.client("y").write(folder.path(), "y");
        Self {
            folder,
            authority,
            server,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What this site's servers speak.
    pub fn tls(&self) -> Arc<ServerConfig> {
        stage::tls(&self.server, &self.authority.pem(), b"h2")
    }

    /// The node's store at these servers.
    pub fn store(&self, addresses: &[String]) -> RemoteStore {
        RemoteStore::open(&config(self.folder.path(), addresses)).expect("opens")
    }

    /// The service that the node sees there.
    pub fn service(&self, addresses: &[String]) -> Service {
        Service::open(&config(self.folder.path(), addresses)).expect("opens")
    }
}

/// A store at these servers, with the files `ca.pem`, `y.crt` and `y.key` of a folder.
pub fn config(folder: &Path, addresses: &[String]) -> StoreConfig {
    let file = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let values = [
        ("ca-cert", file("ca.pem").into()),
        ("client-cert", file("y.crt").into()),
        ("client-key", format!("file:{}", file("y.key")).into()),
        ("addresses", Value::Texts(addresses[1..].to_vec())),
    ];
    let url = format!("keyhaul+https://{}", addresses[0]);
    let place = "keyhaul.toml:1:1";
    StoreConfig::new("site", &url, Options::at(place, values), place).expect("a store")
}
