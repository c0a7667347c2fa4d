//! A site of one key service: an authority, certificates, a server over a store that counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64ct::{Base64, Encoding as _};
use http::{HeaderMap, Method, StatusCode};
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    MemoryStore, Metadata, Page, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    SecretStore,
};
use keyhaul_remote::protocol::seal::{Binding, Purpose, Recipient, Sender};
use keyhaul_remote::protocol::{
    Outcome, Problem, ReadAnswer, ReadItem, ReadRequest, ServiceAnswer, path,
};
use keyhaul_remote::server::{Server, Settings};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

/// An authority with a list of what it revoked.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    pub pem: String,
    pub key: String,
    pub serial: u64,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn client(&self, serial: u64, uris: &[&str]) -> Issued {
        self.issue(serial, uris, ExtendedKeyUsagePurpose::ClientAuth, 2090)
    }

    pub fn expired(&self, serial: u64, uris: &[&str]) -> Issued {
        self.issue(serial, uris, ExtendedKeyUsagePurpose::ClientAuth, 2021)
    }

    /// A certificate that is good for so long from now on, to the second.
    pub fn short_lived(&self, serial: u64, uris: &[&str], lifetime: Duration) -> Issued {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let end = date_time_ymd(1970, 1, 1) + now.expect("after 1970") + lifetime;
        self.until(
            serial,
            uris,
            ExtendedKeyUsagePurpose::ClientAuth,
            |params| {
                params.not_after = end;
            },
        )
    }

    pub fn server(&self) -> Issued {
        self.issue(1, &[], ExtendedKeyUsagePurpose::ServerAuth, 2090)
    }

    fn issue(
        &self,
        serial: u64,
        uris: &[&str],
        usage: ExtendedKeyUsagePurpose,
        end: i32,
    ) -> Issued {
        self.until(serial, uris, usage, |params| {
            params.not_after = date_time_ymd(end, 1, 1);
        })
    }

    fn until(
        &self,
        serial: u64,
        uris: &[&str],
        usage: ExtendedKeyUsagePurpose,
        end: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        let address = "127.0.0.1".parse().expect("an address");
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        for uri in uris {
            let uri = (*uri).try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        end(&mut params);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        Issued {
            pem: params
                .signed_by(&key, &self.0)
                .expect("a certificate")
                .pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    pub fn crl(&self, revoked: &[&Issued]) -> String {
        self.crl_until(2090, revoked)
    }

    pub fn crl_until(&self, year: i32, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.0)
            .expect("a list")
            .pem()
            .expect("PEM")
    }
}

/// A store that counts how often it is asked, and fails or panics on certain names.
#[derive(Debug)]
pub struct Watched {
    pub inner: MemoryStore,
    pub asked: AtomicUsize,
    /// Whether its metadata say neither version nor time.
    pub is_blank: AtomicBool,
    /// Whether it has no room.
    pub is_full: AtomicBool,
    /// What a write of `…/slow` waits for.
    pub slow: Semaphore,
    /// How many calls hang, as their names want it.
    pub hanging: AtomicUsize,
}

impl Watched {
    fn note(&self, path: &SecretPath) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(!path.as_str().ends_with("/panic"), "as the test wants it");
    }
}

#[async_trait]
impl SecretStore for Watched {
    fn descriptor(&self) -> &Descriptor {
        self.inner.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.note(path);
        self.inner.get(path, options).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        paths.iter().for_each(|path| self.note(path));
        if paths.iter().any(|path| path.as_str().contains("/hang")) {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.inner.get_many(paths, options).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.note(path);
        let mut metadata = self.inner.stat(path, options).await?;
        if self.is_blank.load(Ordering::SeqCst) {
            (metadata.version, metadata.created) = (None, None);
        }
        Ok(metadata)
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.note(path);
        if self.is_full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::StorageFull, "no room"));
        }
        if path.as_str().ends_with("/slow") {
            self.slow.acquire().await.expect("open").forget();
        }
        self.inner.put(path, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.note(path);
        if path.as_str().contains("/hang") {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.inner.generate(path, recipe, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.note(path);
        self.inner.delete(path, options).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.note(prefix);
        self.inner.list(prefix, options).await
    }

    async fn probe(&self) -> Result<()> {
        self.inner.probe().await
    }
}

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

/// A client, on one connection where it can.
pub struct Peer {
    client: reqwest::Client,
    url: String,
    fingerprint: [u8; 32],
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

pub fn client_config(site: &Site, issued: Option<&Issued>, alpn: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let pem = site.authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
            builder
                .with_client_auth_cert(vec![chain], key)
                .expect("they fit")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

impl Peer {
    pub fn new(site: &Site, issued: Option<&Issued>, alpn: &[&[u8]]) -> Self {
        let config = client_config(site, issued, alpn);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        let mut fingerprint = [0; 32];
        if let Some(issued) = issued {
            let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("PEM");
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
            fingerprint.copy_from_slice(digest.as_ref());
        }
        Self {
            client,
            url: format!("https://{}", site.server.addresses()[0]),
            fingerprint,
        }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.bytes().await?.to_vec(),
        })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None)
            .await
            .expect("an answer")
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Answer {
        let body = serde_json::to_string(body).expect("JSON");
        let json = [("content-type", "application/json")];
        let answer = self.send(Method::POST, path, &json, Some(body)).await;
        answer.expect("an answer")
    }

    /// Reads secrets: values, or what went wrong.
    pub async fn read(&self, secrets: &[&str]) -> Vec<Result<Vec<u8>, Box<Problem>>> {
        let recipient = Recipient::new().expect("a key");
        let request = read_request(&recipient, secrets);
        let answer = self.post(path::READ, &request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        self.open(&recipient, &request, answer.json())
    }

    pub fn open(
        &self,
        recipient: &Recipient,
        request: &ReadRequest,
        answer: ReadAnswer,
    ) -> Vec<Result<Vec<u8>, Box<Problem>>> {
        let receiver = recipient.meet(&answer.enc).expect("met");
        let opener = receiver
            .opener(Purpose::Read, &answer.salt)
            .expect("a salt");
        let items = answer.items.into_iter().zip(&request.items).enumerate();
        let open = items.map(|(index, (outcome, asked))| match outcome {
            Outcome::Problem { problem } => Err(Box::new(problem)),
            Outcome::Done(sealed) => {
                let binding = Binding {
                    client: &self.fingerprint,
                    nonce: &request.nonce,
                    secret: &asked.secret,
                    version: asked.version.as_deref(),
                    field: asked.field.as_deref(),
                };
                let opened = opener.open(&binding, index, &sealed.value);
                Ok(opened.expect("opens").expose().to_vec())
            }
        });
        open.collect()
    }

    /// Writes a value as an operator does.
    pub async fn write(&self, secret: &str, value: &[u8]) -> Answer {
        let service: ServiceAnswer = self.get(path::SERVICE).await.json();
        let body = self.sealed(&service.key, secret, value);
        self.post(path::WRITE, &body).await
    }

    pub fn sealed(&self, key: &str, secret: &str, value: &[u8]) -> serde_json::Value {
        let sender = Sender::to(key).expect("a key");
        let sealer = sender.sealer(Purpose::Write).expect("a sealer");
        let binding = Binding {
            client: &self.fingerprint,
            nonce: sealer.salt(),
            secret,
            version: None,
            field: None,
        };
        let value = SecretBytes::copy_from(value);
        let value = sealer.seal(&binding, 0, &value).expect("sealed");
        serde_json::json!({
            "secret": secret, "key": key, "enc": sender.enc(), "salt": sealer.salt(),
            "value": value,
        })
    }
}

pub fn read_request(recipient: &Recipient, secrets: &[&str]) -> ReadRequest {
    let item = |secret: &&str| ReadItem {
        secret: (*secret).to_owned(),
        version: None,
        field: None,
        expired: false,
    };
    ReadRequest {
        key: recipient.public().to_owned(),
        nonce: Base64::encode_string(&[7; 16]),
        items: secrets.iter().map(item).collect(),
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The problem's kind.
    pub fn kind(&self) -> String {
        assert_eq!(
            self.headers
                .get("content-type")
                .map(http::HeaderValue::as_bytes),
            Some(&b"application/problem+json"[..]),
            "{}",
            self.text()
        );
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status.as_u16());
        let id = self
            .headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        assert_eq!(problem.request.as_deref(), id);
        problem.kind
    }
}
