//! A live service: a server in this process, over real TLS, with certificates of its own authority.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use keyhaul_conformance::Handles;
use keyhaul_core::layers::Layer as _;
use keyhaul_core::registry::Options;
use keyhaul_core::{Result, SecretStore, StoreConfig};
use keyhaul_remote::client::Service;
use keyhaul_remote::pki::{Authority, Subject};
use keyhaul_remote::server::{Server, Settings};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::handles::{Forcing, Granted, Renamed};

const LIFETIME: Duration = Duration::from_secs(86_400);

pub struct Live {
    folder: TempDir,
    files: [String; 2],
    address: SocketAddr,
    window: String,
    end: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

impl Live {
    /// A service over `store`, with this window for what is deleted.
    pub async fn over(store: Arc<dyn SecretStore>, window: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = folder.path().join("pki");
        let authority = Authority::create(&pki, "site").expect("an authority");
        let here = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let server = authority.issue(&Subject::server("server", vec![], here), LIFETIME);
        let server = server.expect("a certificate");
        for role in ["node", "operator", "manager"] {
            let subject = Subject::client(role, format!("spiffe://site/{role}/one"));
            let issued = authority.issue(&subject, LIFETIME).expect("a certificate");
            let copy = |from, to: String| std::fs::copy(from, folder.path().join(to));
            copy(issued.certificate, format!("{role}.crt")).expect("copied");
            copy(issued.key, format!("{role}.key")).expect("copied");
        }
        std::fs::copy(authority.certificate(), folder.path().join("ca.pem")).expect("copied");
        let files = [&server.certificate, &server.key].map(|path| path.display().to_string());
        Self::start(folder, files, 0, store, window).await
    }

    /// A server with what is in the folder.
    async fn start(
        folder: TempDir,
        files: [String; 2],
        port: u16,
        store: Arc<dyn SecretStore>,
        window: &str,
    ) -> Self {
        let text = format!(
            r#"
            version = 1
            listen = ["127.0.0.1:{port}"]
            state = "{folder}/service.db"
            audit = "{folder}/audit.jsonl"
            delete-window = "{window}"
            [tls]
            certificate = "{certificate}"
            key = "{key}"
            client-ca = "{folder}/ca.pem"
            [[roles]]
            uri = "spiffe://site/node/{{name}}"
            role = "node"
            [[roles]]
            uri = "spiffe://site/operator/*"
            role = "operator"
            [[roles]]
            uri = "spiffe://site/manager/*"
            role = "manager"
            "#,
            folder = folder.path().display(),
            certificate = files[0],
            key = files[1],
        );
        let settings = Settings::parse("service.toml", &text).expect("settings");
        let server = Server::open(settings, store).await.expect("opens");
        let address = server.addresses()[0];
        let (end, ended) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let until = async {
                let _ = ended.await;
            };
            server.serve(until).await
        });
        Self {
            folder,
            files,
            address,
            window: window.to_owned(),
            end,
            serving,
        }
    }

    /// The three roles. A path of the suite is a legal reference by another name; the node is
    /// granted a scope when it is first read; the manager deletes what a node holds.
    pub fn handles(&self) -> Handles {
        let manager = self.service("manager");
        let node = self.service("node").store();
        let reader = Granted::new("one", manager.clone());
        Handles {
            reader: Arc::new(Renamed(reader.over(Arc::new(node)))),
            writer: Arc::new(Renamed(Arc::new(self.service("operator").store()))),
            manager: Arc::new(Renamed(Arc::new(Forcing(manager.store())))),
        }
    }

    /// The service, as somebody of this role sees it.
    pub fn service(&self, role: &str) -> Service {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let key = format!("file:{}", file(&format!("{role}.key")));
        let options = [
            ("ca-cert", file("ca.pem")),
            ("client-cert", file(&format!("{role}.crt"))),
            ("client-key", key),
        ];
        let url = format!("keyhaul+https://{}", self.address);
        let place = "keyhaul.toml:1:1";
        let config = StoreConfig::new(role, &url, Options::at(place, options), place);
        Service::open(&config.expect("a store")).expect("opens")
    }

    /// The same service in another process' stead: at the same port, with a key of its own.
    pub async fn restart(self, store: Arc<dyn SecretStore>) -> Self {
        let _ = self.end.send(());
        self.serving.await.expect("no panic").expect("ends well");
        let port = self.address.port();
        Self::start(self.folder, self.files, port, store, &self.window).await
    }

    /// What is at a path, to somebody of this role.
    pub async fn fetch(&self, role: &str, path: &str) -> String {
        let read = |name: String| std::fs::read(self.folder.path().join(name)).expect("there");
        // The library's own TLS wants one for the process; a second one is none.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(&read("ca.pem".into())).expect("PEM");
        let both = [read(format!("{role}.crt")), read(format!("{role}.key"))].concat();
        let client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .identity(reqwest::Identity::from_pem(&both).expect("PEM"))
            .build()
            .expect("a client");
        let url = format!("https://{}{path}", self.address);
        let answer = client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        answer.text().await.expect("text")
    }

    /// Ends the service, in good order.
    pub async fn end(self) {
        let _ = self.end.send(());
        self.serving.await.expect("no panic").expect("ends well");
    }
}
