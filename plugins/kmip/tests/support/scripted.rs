//! A server that speaks TLS and answers what a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyhaul_servers::Issued;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
        let (counted, script) = (Arc::clone(&requests), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
                let counted = Arc::clone(&counted);
                tokio::spawn(async move { serve(acceptor, socket, &*script, &counted).await });
            }
        });
        Self { port, requests }
    }

    pub fn url(&self) -> String {
        format!("kmip://127.0.0.1:{}", self.port)
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

/// An answer with these outcomes: an operation and a payload each.
pub fn answer(outcomes: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let number = |tag, kind, value: u32| item(tag, kind, &value.to_be_bytes());
    let version = item(0x69, 1, &[number(0x6a, 2, 1), number(0x6b, 2, 2)].concat());
    let count = number(0x0d, 2, outcomes.len() as u32);
    let mut parts = vec![item(0x7a, 1, &[version, count].concat())];
    for (index, (operation, payload)) in outcomes.iter().enumerate() {
        let outcome = [
            number(0x5c, 5, *operation),
            number(0x93, 8, index as u32),
            number(0x7f, 5, 0),
            item(0x7c, 1, payload),
        ];
        parts.push(item(0x0f, 1, &outcome.concat()));
    }
    item(0x7b, 1, &parts.concat())
}

/// The answer to the Locate of a read: one object.
pub fn located() -> Vec<u8> {
    answer(&[(8, item(0x94, 7, b"17"))])
}

/// The answer to its Get: `hunter2` as secret data.
pub fn got() -> Vec<u8> {
    let number = |tag, value: u32| item(tag, 5, &value.to_be_bytes());
    let value = item(0x45, 1, &item(0x43, 8, b"hunter2"));
    let block = item(0x40, 1, &[number(0x42, 2), value].concat());
    let object = item(0x85, 1, &[number(0x86, 1), block].concat());
    let payload = [number(0x57, 7), item(0x94, 7, b"17"), object].concat();
    answer(&[(0x0a, payload)])
}
