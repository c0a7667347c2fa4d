//! How a server is set up, and its first start.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::OpenBao;
use crate::curl::Curl;
use crate::{Authority, Issued, free_port};

/// The server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// Right in all, but long expired.
    Expired,
    /// For `127.0.0.1` and `localhost`, by the server's authority.
    #[default]
    Good,
    /// For `elsewhere.example` only.
    WrongName,
}

/// What kind of server to start.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    tls: Option<Certificate>,
    client_certificates: bool,
    audited: bool,
    unix_socket: bool,
    node: Option<String>,
    authority: Option<Arc<Authority>>,
}

impl Setup {
    /// As [`OpenBao::tls`] starts it.
    pub fn tls() -> Self {
        Self {
            tls: Some(Certificate::Good),
            ..Self::default()
        }
    }

    /// With this certificate.
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.tls = Some(certificate);
        self
    }

    /// Every connection must show a client certificate of the server's authority.
    pub fn require_client_certificates(mut self) -> Self {
        self.client_certificates = true;
        self
    }

    /// Every request is written to a file, as OpenBao does it: `audit.log` in its folder.
    pub fn audited(mut self) -> Self {
        self.audited = true;
        self
    }

    /// Also listening on a unix socket, in the clear.
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// As a node of a cluster, by the cluster's authority.
    pub(super) fn node(mut self, name: String, authority: Arc<Authority>) -> Self {
        self.node = Some(name);
        self.authority = Some(authority);
        self
    }

    /// Starts it, and waits until it serves.
    pub fn start(self) -> OpenBao {
        let mut server = self.launch();
        if server.unseal_key.is_none() && server.root_token.is_empty() {
            server.initialise();
        }
        server.await_health(&[200]);
        server
    }

    /// Starts it, and waits until it answers.
    pub(super) fn launch(&self) -> OpenBao {
        for _ in 0..5 {
            let mut server = self.prepare();
            server.launch();
            let statuses = [200, 429, 501, 503];
            match server.try_await_health(&statuses) {
                Ok(()) => return server,
                // Somebody took the port in the meantime.
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("OpenBao did not start:\n{log}"),
            }
        }
        panic!("no port on loopback stays free");
    }

    fn prepare(&self) -> OpenBao {
        let folder = tempfile::Builder::new()
            .prefix("keyhaul-bao-")
            .tempdir()
            .expect("a folder");
        let (port, cluster_port) = (free_port(), free_port());
        let root = folder.path().to_owned();
        let mut server = OpenBao {
            daemon: None,
            arguments: Vec::new(),
            curl: Curl::default(),
            root_token: String::new(),
            unseal_key: None,
            authority: None,
            socket: self.unix_socket.then(|| root.join("bao.sock")),
            folder,
        };
        let Some(certificate) = self.tls else {
            self.prepare_dev(&mut server, port, cluster_port);
            return server;
        };
        let authority = self.authority.clone();
        let authority = authority.unwrap_or_else(|| Arc::new(Authority::new("keyhaul tests")));
        fs::write(root.join("ca.crt"), authority.pem()).expect("written");
        issue(&authority, certificate).write(&root, "server");
        let address = format!("https://127.0.0.1:{port}");
        server.curl = Curl {
            address: address.clone(),
            ca: (certificate == Certificate::Good).then(|| root.join("ca.crt")),
            client: Some(authority.client("fixture").write(&root, "fixture")),
        };
        server.authority = Some(authority);
        let storage = root.join("raft");
        fs::create_dir(&storage).expect("a folder");
        let node = self.node.as_deref().unwrap_or("node");
        let mut settings = json!({
            "storage": {"raft": {"path": storage, "node_id": node, "performance_multiplier": 1}},
            "listener": self.listeners(&server, port, cluster_port),
            "api_addr": address,
            "cluster_addr": format!("https://127.0.0.1:{cluster_port}"),
        });
        if self.audited {
            let options = json!({"file_path": root.join("audit.log")});
            settings["audit"] = json!([{"type": "file", "path": "file", "options": options}]);
        }
        server.arguments = vec!["server".to_owned(), configure(&root, &settings)];
        server
    }

    fn prepare_dev(&self, server: &mut OpenBao, port: u16, cluster_port: u16) {
        let token = "root";
        server.root_token = token.to_owned();
        server.curl.address = format!("http://127.0.0.1:{port}");
        server.arguments = [
            "server",
            "-dev",
            "-dev-no-store-token",
            &format!("-dev-root-token-id={token}"),
            &format!("-dev-listen-address=127.0.0.1:{port}"),
        ]
        .map(str::to_owned)
        .to_vec();
        let mut settings = json!({"cluster_addr": format!("http://127.0.0.1:{cluster_port}")});
        if let Some(socket) = &server.socket {
            settings["listener"] = json!([{"unix": {"address": socket}}]);
        }
        let settings = configure(server.folder.path(), &settings);
        server.arguments.push(settings);
    }

    fn listeners(&self, server: &OpenBao, port: u16, cluster_port: u16) -> Value {
        let root = server.folder.path();
        let mut listeners = vec![json!({"tcp": {
            "address": format!("127.0.0.1:{port}"),
            "cluster_address": format!("127.0.0.1:{cluster_port}"),
            "tls_cert_file": root.join("server.crt"),
            "tls_key_file": root.join("server.key"),
            "tls_client_ca_file": root.join("ca.crt"),
            "tls_require_and_verify_client_cert": self.client_certificates,
        }})];
        if let Some(socket) = &server.socket {
            listeners.push(json!({"unix": {"address": socket, "tls_disable": true}}));
        }
        Value::from(listeners)
    }
}

impl OpenBao {
    /// The first steps of a server with storage: one key, and the root token.
    pub(super) fn initialise(&mut self) {
        let shares = json!({"secret_shares": 1, "secret_threshold": 1});
        let reply = self.request("POST", "sys/init", "", Some(&shares));
        assert_eq!(reply.status, 200, "initialising: {reply:?}");
        self.unseal_key = Some(reply.text("/keys_base64/0"));
        self.root_token = reply.text("/root_token");
        self.unseal();
    }
}

fn issue(authority: &Authority, certificate: Certificate) -> Issued {
    let names = ["127.0.0.1", "localhost"];
    match certificate {
        Certificate::Expired => authority.expired_server(&names),
        Certificate::Good => authority.server(&names),
        Certificate::WrongName => authority.server(&["elsewhere.example"]),
    }
}

fn configure(folder: &Path, settings: &Value) -> String {
    let path = folder.join("bao.json");
    fs::write(&path, settings.to_string()).expect("written");
    format!("-config={}", path.display())
}
