//! A server in the test's own process, and clients that know no more of it than its protocol:
//! bytes over TLS.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod hanging;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{Result as Done, SecretStore};
use keyhaul_remote::server::{Server, Settings};
use keyhaul_servers::{Authority, Issued};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than a busy machine takes for any step.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A server over some store, with an authority for it and for its clients.
pub struct Ground {
    pub authority: Authority,
    pub address: SocketAddr,
    pub folder: TempDir,
    pub server: Arc<Server>,
    /// The server serves until this is dropped.
    stop: oneshot::Sender<()>,
    task: JoinHandle<Done<()>>,
}

impl Ground {
    pub async fn start(store: Arc<dyn SecretStore>) -> Self {
        Self::with(store, "").await
    }

    /// `more` are lines for the end of the configuration.
    pub async fn with(store: Arc<dyn SecretStore>, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("attacks");
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).expect("written");
        authority
            .server(&["127.0.0.1", "localhost"])
            .write(folder.path(), "server");
        Self::open(folder, authority, store, more).await
    }

    async fn open(
        folder: TempDir,
        authority: Authority,
        store: Arc<dyn SecretStore>,
        more: &str,
    ) -> Self {
        let settings = Settings::parse("attacks", &configuration(&folder, more));
        let server = Server::open(settings.expect("settings"), store).await;
        let server = Arc::new(server.expect("a server"));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.clone();
        let task = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            serving.serve(until).await
        });
        Self {
            authority,
            address: server.addresses()[0],
            folder,
            server,
            stop,
            task,
        }
    }

    /// Ends the server in good order, and starts another on its files.
    pub async fn restart(self, store: Arc<dyn SecretStore>, more: &str) -> Self {
        drop(self.stop);
        tokio::time::timeout(LIMIT, self.task)
            .await
            .expect("it ends")
            .expect("without a panic")
            .expect("and well");
        drop(self.server);
        Self::open(self.folder, self.authority, store, more).await
    }

    /// Ends the server, however long that takes, and gives its last word.
    pub async fn end(self) -> Done<()> {
        drop(self.stop);
        let ended = self.task.await;
        drop(self.server);
        ended.expect("without a panic")
    }

    /// A certificate for who this is: `node/y`, `manager/m`, `operator/o`.
    pub fn who(&self, who: &str) -> Issued {
        let uri = format!("spiffe://site/{who}");
        self.authority.client_of(&[&uri])
    }

    /// A connection that speaks HTTP/1.1; why not, where the server refuses it.
    pub async fn wire(&self, who: Option<&Issued>) -> Result<Wire, String> {
        Wire::open(self.address, &self.authority.pem(), who).await
    }

    /// Asks as `who` over a connection of its own, which must be let in.
    pub async fn ask(
        &self,
        who: &Issued,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut wire = self.wire(Some(who)).await.expect("let in");
        wire.ask(method, path, body).await.expect("answered")
    }

    /// Asks by POST, and it must succeed.
    pub async fn tell(&self, who: &Issued, path: &str, body: Value) -> Value {
        let answer = self.ask(who, "POST", path, Some(&body)).await;
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    /// Grants a scope.
    pub async fn grant(&self, scope: &str, node: &str) {
        let manager = self.who("manager/m");
        let body = json!({"scope": scope, "node": node});
        self.tell(&manager, "/v1/grants", body).await;
    }

    /// Has a value made.
    pub async fn generate(&self, secret: &str) {
        let manager = self.who("manager/m");
        let body = json!({"secret": secret, "alphabet": "alphanumeric", "length": 32});
        self.tell(&manager, "/v1/secrets/generate", body).await;
    }

    /// Whether somebody is served as they should be: the control beside every attack.
    pub async fn serves(&self, node: &Issued, secret: &str) -> bool {
        let body = read(&[secret]);
        let asked = self.ask(node, "POST", "/v1/secrets/read", Some(&body));
        let answer = tokio::time::timeout(LIMIT, asked).await.expect("in time");
        answer.status == 200 && answer.json()["items"][0]["value"].is_string()
    }
}

fn configuration(folder: &TempDir, more: &str) -> String {
    let root = folder.path().display();
    format!(
        r#"version = 1
listen = ["127.0.0.1:0"]
state = "{root}/service.db"
audit = "{root}/audit.jsonl"

[tls]
certificate = "{root}/server.crt"
key = "{root}/server.key"
client-ca = "{root}/ca.crt"

[[roles]]
uri = "spiffe://site/node/{{name}}"
role = "node"

[[roles]]
uri = "spiffe://site/manager/{{name}}"
role = "manager"

[[roles]]
uri = "spiffe://site/tenant/{{name}}"
role = "manager"
scopes = ["tenant-*"]

[[roles]]
uri = "spiffe://site/operator/{{name}}"
role = "operator"

{more}
"#
    )
}

/// The body of a read, to a key that nobody holds.
pub fn read(secrets: &[&str]) -> Value {
    let items: Vec<Value> = secrets
        .iter()
        .map(|secret| json!({"secret": secret}))
        .collect();
    // The curve's base point.
    let key = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    json!({"key": key, "nonce": "AAECAwQFBgcICQoLDA0ODw==", "items": items})
}

/// A connection over TLS, byte by byte.
pub struct Wire {
    pub stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The problem's kind.
    #[track_caller]
    pub fn kind(&self) -> String {
        let json = self.json();
        let kind = json["kind"].as_str();
        kind.unwrap_or_else(|| panic!("no problem: {self:?}"))
            .to_owned()
    }

    /// What anybody could tell two answers apart by: all but the request's id, the
    /// time, and what is drawn at random for every answer.
    pub fn told(&self) -> (u16, Vec<String>, Value) {
        let own = ["x-request-id:", "date:"];
        let head = self.head.to_ascii_lowercase();
        let mut lines: Vec<String> = head
            .lines()
            .filter(|line| !own.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect();
        lines.sort();
        let mut body = self.json();
        forget_own(&mut body);
        (self.status, lines, body)
    }
}

fn forget_own(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for own in ["enc", "request", "salt"] {
                map.remove(own);
            }
            map.values_mut().for_each(forget_own);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_own),
        _ => {}
    }
}

impl Wire {
    pub async fn open(
        address: SocketAddr,
        ca_pem: &str,
        who: Option<&Issued>,
    ) -> Result<Self, String> {
        let opened = Self::try_open(address, ca_pem, who);
        tokio::time::timeout(LIMIT, opened).await.expect("in time")
    }

    async fn try_open(
        address: SocketAddr,
        ca_pem: &str,
        who: Option<&Issued>,
    ) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(text)?;
        Self::over(stream, Self::tls(ca_pem, who)).await
    }

    /// What a client needs to know for TLS.
    pub fn tls(ca_pem: &str, who: Option<&Issued>) -> Arc<ClientConfig> {
        Arc::new(tls(ca_pem, who))
    }

    /// TLS on a connection that is there.
    pub async fn over(stream: TcpStream, tls: Arc<ClientConfig>) -> Result<Self, String> {
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connected = TlsConnector::from(tls).connect(name, stream).await;
        let stream = connected.map_err(text)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(text)?;
        self.stream.flush().await.map_err(text)
    }

    /// The next answer; why not, where the connection ends first.
    pub async fn answer(&mut self) -> Result<Answer, String> {
        let answered = self.try_answer();
        tokio::time::timeout(LIMIT, answered)
            .await
            .expect("in time")
    }

    async fn try_answer(&mut self) -> Result<Answer, String> {
        loop {
            if let Some((answer, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return Ok(answer);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(format!("closed after {} bytes", self.buffer.len())),
                Ok(_) => {}
                Err(error) => return Err(text(error)),
            }
        }
    }

    /// An answer, or the end of the connection.
    pub async fn answer_or_end(&mut self) {
        drop(self.try_answer().await);
    }

    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(&request(method, path, "", body.as_bytes()))
            .await?;
        self.answer().await
    }
}

/// A request in good order, with further lines for its head.
pub fn request(method: &str, path: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let kind = match body {
        [] => "",
        _ => "content-type: application/json\r\n",
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{kind}{more}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn tls(ca_pem: &str, who: Option<&Issued>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM");
    roots.add(ca).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match who {
        None => builder.with_no_client_auth(),
        Some(who) => {
            let chain = CertificateDer::from_pem_slice(who.certificate_pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(who.key_pem.as_bytes()).expect("a key");
            let chain = vec![chain.expect("a certificate")];
            builder.with_client_auth_cert(chain, key).expect("fits")
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A whole answer, and how many bytes it took.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().expect("a length"));
    assert!(!lower.contains("transfer-encoding"), "{head}");
    let body = bytes.get(end..end + length)?.to_vec();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((Answer { status, head, body }, end + length))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
