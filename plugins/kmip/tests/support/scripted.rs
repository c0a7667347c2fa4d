//! A server that speaks TLS and answers what a test says.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyhaul_core::SecretStore;
use keyhaul_core::registry::Value;
use keyhaul_servers::{Authority, Issued};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::store;

/// What is done once a request has arrived.
#[derive(Clone)]
pub enum Reply {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, and the end of the connection.
    Last(Vec<u8>),
    /// Nothing, ever.
    Stall,
}

/// A server in this process, on loopback, gone with the runtime.
pub struct Scripted {
    port: u16,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Scripted {
    /// Answers the request of each number, from 0, as `script` says.
    pub async fn start(
        issued: &Issued,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, script) = (Arc::clone(&requests), Arc::new(script));
        let accepted = Arc::clone(&connections);
        let ended = Arc::new(AtomicUsize::new(0));
        let gone = Arc::clone(&ended);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
                let (counted, gone) = (Arc::clone(&counted), Arc::clone(&gone));
                tokio::spawn(async move {
                    serve(acceptor, socket, &*script, &counted).await;
                    gone.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            requests,
            connections,
            ended,
        }
    }

    pub fn url(&self) -> String {
        format!("kmip://127.0.0.1:{}", self.port)
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many of them have ended.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    script: &(dyn Fn(usize) -> Reply + Send + Sync),
    counted: &AtomicUsize,
) -> Option<()> {
    let mut stream = acceptor.accept(socket).await.ok()?;
    loop {
        request(&mut stream).await?;
        match script(counted.fetch_add(1, Ordering::SeqCst)) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
            Reply::Last(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                return stream.shutdown().await.ok();
            }
            Reply::Stall => std::future::pending().await,
        }
        stream.flush().await.ok()?;
    }
}

async fn request(stream: &mut TlsStream<TcpStream>) -> Option<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.ok()?;
    let len = u32::from_be_bytes(header[4..].try_into().ok()?);
    let mut rest = vec![0; len as usize];
    stream.read_exact(&mut rest).await.ok()?;
    Some(())
}

/// An item, by hand: a tag's last two bytes, a type, a value.
pub fn item(tag: u16, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x42];
    bytes.extend(tag.to_be_bytes());
    bytes.push(kind);
    bytes.extend((value.len() as u32).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// An answer with these outcomes: an operation, and a payload or the reason why there is none.
pub fn answer(outcomes: &[(u32, Result<Vec<u8>, u32>)]) -> Vec<u8> {
    let version = item(0x69, 1, &[number(0x6a, 2, 1), number(0x6b, 2, 2)].concat());
    let count = number(0x0d, 2, outcomes.len() as u32);
    let mut parts = vec![item(0x7a, 1, &[version, count].concat())];
    for (index, (operation, outcome)) in outcomes.iter().enumerate() {
        let result = match outcome {
            Ok(payload) => [number(0x7f, 5, 0), item(0x7c, 1, payload)].concat(),
            Err(reason) => [number(0x7f, 5, 1), number(0x7e, 5, *reason)].concat(),
        };
        let outcome = [
            number(0x5c, 5, *operation),
            number(0x93, 8, index as u32),
            result,
        ];
        parts.push(item(0x0f, 1, &outcome.concat()));
    }
    item(0x7b, 1, &parts.concat())
}

pub fn number(tag: u16, kind: u8, value: u32) -> Vec<u8> {
    item(tag, kind, &value.to_be_bytes())
}

/// An object's identifier.
pub fn id(id: &str) -> Vec<u8> {
    item(0x94, 7, id.as_bytes())
}

/// The answer to the Locate of a read: one object of keyhaul's.
pub fn located() -> Vec<u8> {
    answer(&[(8, Ok(id("17")))])
}

/// The answer to the two Locates of a write: one object, by its name alone.
pub fn named() -> Vec<u8> {
    answer(&[(8, Ok(id("17"))), (8, Ok(Vec::new()))])
}

/// What is known of secret data: its identifier, its name, and its state as the standard numbers it.
pub fn described(object: &str, name: &str, state: u32) -> Vec<u8> {
    let attribute =
        |name: &str, value| item(0x08, 1, &[item(0x0a, 7, name.as_bytes()), value].concat());
    let name = [item(0x55, 7, name.as_bytes()), number(0x54, 5, 1)].concat();
    [
        id(object),
        attribute("Name", item(0x0b, 1, &name)),
        attribute("Object Type", number(0x0b, 5, 7)),
        attribute("State", number(0x0b, 5, state)),
    ]
    .concat()
}

/// The value `hunter2` of secret data.
pub fn hunter2(object: &str) -> Vec<u8> {
    let value = item(0x45, 1, &item(0x43, 8, b"hunter2"));
    let block = item(0x40, 1, &[number(0x42, 5, 2), value].concat());
    let data = item(0x85, 1, &[number(0x86, 5, 1), block].concat());
    [number(0x57, 5, 7), id(object), data].concat()
}

/// The answer to a read's second message: what is known of the object, pre-active, and its value.
pub fn got() -> Vec<u8> {
    answer(&[
        (0x0b, Ok(described("17", "a", 1))),
        (0x0a, Ok(hunter2("17"))),
    ])
}

/// A store on a server that answers as a script says.
pub struct Stage {
    pub store: Arc<dyn SecretStore>,
    pub server: Scripted,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub async fn new(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(&[], script).await
    }

    pub async fn with(
        more: &[(&str, Value)],
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new("scripted");
        let folder = tempfile::tempdir().expect("folder");
        let ca: PathBuf = folder.path().join("ca.crt");
        std::fs::write(&ca, authority.pem()).expect("written");
        let files = authority.client("x").write(folder.path(), "x");
        let server = Scripted::start(&authority.server(&["127.0.0.1"]), script).await;
        Self {
            store: store(&server.url(), &ca, &files, more),
            server,
            _folder: folder,
        }
    }

    /// One that gives these answers in turn, and then none.
    pub async fn giving(answers: Vec<Vec<u8>>) -> Self {
        Self::new(move |number| {
            answers
                .get(number)
                .cloned()
                .map_or(Reply::Stall, Reply::Bytes)
        })
        .await
    }
}
