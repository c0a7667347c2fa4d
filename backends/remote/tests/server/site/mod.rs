//! A site of one key service: an authority, certificates, a server over a store that counts.

mod authority;
mod peer;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use keyhaul_core::{MemoryStore, PutOptions, Result, SecretBytes, SecretPath, SecretStore as _};
use keyhaul_remote::protocol::path;
use keyhaul_remote::server::{Server, Settings};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

pub use authority::{Authority, Issued};
pub use peer::{Answer, Peer, client_config, read_request};
pub use watched::Watched;

/// A running service.
pub struct Site {
    pub authority: Authority,
    pub folder: tempfile::TempDir,
    pub server: Arc<Server>,
    pub store: Arc<Watched>,
    pub more: String,
    end: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<()>>>,
}

impl Site {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// A service with further lines at the beginning of its configuration.
    pub async fn with(more: &str) -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "ca.crt", &authority.pem());
        write(folder.path(), "ca.crl", &authority.crl(&[]));
        let server = authority.server();
        write(folder.path(), "server.crt", &server.pem);
        write(folder.path(), "server.key", &server.key);
        let store = Arc::new(Watched {
            inner: MemoryStore::new("memory"),
            asked: AtomicUsize::new(0),
            is_blank: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            slow: Semaphore::new(0),
            hanging: AtomicUsize::new(0),
        });
        let settings = settings(folder.path(), more);
        let server = Server::open(settings, Arc::clone(&store) as _).await;
        let server = Arc::new(server.expect("opened"));
        let (end, ended) = oneshot::channel();
        let serving = tokio::spawn({
            let server = Arc::clone(&server);
            async move {
                let until = async { drop(ended.await) };
                server.serve(until).await
            }
        });
        Self {
            authority,
            folder,
            server,
            store,
            more: more.to_owned(),
            end: Some(end),
            serving: Some(serving),
        }
    }

    pub fn asked(&self) -> usize {
        self.store.asked.load(Ordering::SeqCst)
    }

    pub fn node(&self, name: &str) -> Peer {
        let uri = format!("spiffe://site/node/{name}");
        // A serial of its own for each name.
        let serial = name
            .bytes()
            .fold(1000, |sum, byte| sum * 7 + u64::from(byte));
        self.peer(&self.authority.client(serial, &[&uri]))
    }

    pub fn manager(&self) -> Peer {
        self.peer(&self.authority.client(2, &["spiffe://site/manager/all"]))
    }

    pub fn operator(&self) -> Peer {
        self.peer(&self.authority.client(3, &["spiffe://site/operator/all"]))
    }

    pub fn peer(&self, issued: &Issued) -> Peer {
        Peer::new(self, Some(issued), &[b"h2"])
    }

    /// Reloads, with the configuration as it stands.
    pub async fn reload(&self) -> Result<()> {
        let settings = settings(self.folder.path(), &self.more);
        self.server.reload(settings).await
    }

    /// Puts a value behind the service's back.
    pub async fn put(&self, secret: &str, value: &[u8]) {
        let path = SecretPath::new(secret).expect("a path");
        let value = SecretBytes::copy_from(value);
        let options = PutOptions::default();
        self.store
            .inner
            .put(&path, &value, &options)
            .await
            .expect("put");
    }

    pub async fn grant(&self, scope: &str, node: &str) {
        let body = serde_json::json!({ "scope": scope, "node": node });
        let answer = self.manager().post(path::GRANTS, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }

    pub fn audit(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit.jsonl")).expect("the audit")
    }

    /// Ends the service, and gives its last word.
    pub async fn end(&mut self) -> Result<()> {
        drop(self.end.take());
        let serving = self.serving.take().expect("ended once");
        let ended = tokio::time::timeout(Duration::from_secs(60), serving).await;
        ended.expect("in time").expect("no panic")
    }
}

pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = folder.join(name);
    let mut options = std::fs::File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("written");
    path
}

fn settings(folder: &Path, more: &str) -> Settings {
    let text = format!(
        r#"
version = 1
listen = ["127.0.0.1:0"]
state = "service.db"
audit = "audit.jsonl"
{more}
[tls]
certificate = "server.crt"
key = "server.key"
client-ca = "ca.crt"
crl = "ca.crl"

[[roles]]
uri = "spiffe://site/node/{{name}}"
role = "node"

[[roles]]
uri = "spiffe://site/manager/all"
role = "manager"

[[roles]]
uri = "spiffe://site/manager/acme"
role = "manager"
scopes = ["acme.*"]

[[roles]]
uri = "spiffe://site/operator/all"
role = "operator"

[[roles]]
uri = "spiffe://site/operator/acme"
role = "operator"
scopes = ["acme.*"]
"#
    );
    let path = write(folder, "server.toml", &text);
    Settings::load(&path).expect("sound")
}
