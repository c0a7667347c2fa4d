//! A server that a test commands: real TLS and HTTP/2, and whatever answers the test wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use keyhaul_servers::Issued;

type Handler = Arc<dyn Fn(&Asked) -> Said + Send + Sync>;
type Body = Either<Full<Bytes>, StreamBody<stream::Iter<std::vec::IntoIter<Piece>>>>;
type Piece = Result<Frame<Bytes>, std::io::Error>;

/// What a client asked.
pub struct Asked {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The SHA-256 of the client's certificate, as this end has it.
    pub client: [u8; 32],
}

/// What is said to it.
pub enum Said {
    /// Nothing: the stream is reset.
    Nothing,
    /// A status, a media type and a body; whether its length is announced.
    Answer(u16, &'static str, Vec<u8>, bool),
}

/// A server on a port of loopback, gone when it is dropped.
pub struct Stage {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    tls: RwLock<Arc<ServerConfig>>,
    handler: Handler,
    connections: AtomicUsize,
    targets: Mutex<Vec<String>>,
}

impl Stage {
    /// A server with this certificate and this authority for clients.
    pub async fn new(
        tls: Arc<ServerConfig>,
        handler: impl Fn(&Asked) -> Said + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            tls: RwLock::new(tls),
            handler: Arc::new(handler),
            connections: AtomicUsize::new(0),
            targets: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Speaks TLS otherwise from the next connection on.
    pub fn speak(&self, tls: Arc<ServerConfig>) {
        *self
            .shared
            .tls
            .write()
            .unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What was asked for, as `POST /v1/secrets/read`.
    pub fn requests(&self) -> Vec<String> {
        let targets = self.shared.targets.lock();
        targets.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often `target` was asked for.
    pub fn asked(&self, target: &str) -> usize {
        self.requests()
            .iter()
            .filter(|asked| *asked == target)
            .count()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// TLS 1.3 with `issued`, for clients of `authority`; HTTP/2 unless `protocol` says otherwise.
pub fn tls(issued: &Issued, authority: &str, protocol: &[u8]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM"))
        .expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .expect("a verifier");
    let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("PEM");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let tls = Arc::clone(&shared.tls.read().unwrap_or_else(PoisonError::into_inner));
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(stream) = TlsAcceptor::from(tls).accept(socket).await else {
                return;
            };
            let shown = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first());
            let mut client = [0; 32];
            client.copy_from_slice(digest(&SHA256, shown.expect("required")).as_ref());
            let service = service_fn(move |request| answer(Arc::clone(&shared), client, request));
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    client: [u8; 32],
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let asked = Asked {
        target: parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        method: parts.method,
        headers: parts.headers,
        body: body.to_bytes().to_vec(),
        client,
    };
    let line = format!("{} {}", asked.method, asked.target);
    shared
        .targets
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(line);
    let Said::Answer(status, media, body, announced) = (shared.handler)(&asked) else {
        return Err(std::io::Error::other("as the test wants it"));
    };
    let body = if announced {
        Either::Left(Full::new(Bytes::from(body)))
    } else {
        let pieces: Vec<Piece> = body
            .chunks(64 * 1024)
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        Either::Right(StreamBody::new(stream::iter(pieces)))
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", media)
        .header("x-request-id", "r-stage");
    Ok(response.body(body).expect("a response"))
}
