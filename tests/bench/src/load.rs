//! Load on a server with mutual TLS, the same for every server: HTTP/1.1 over TLS 1.3 with a client
//! certificate and the hybrid key exchange, nothing resumed.
//!
//! Reads its [`Order`] as one line of JSON from its standard input, and prints a [`Tally`] as JSON.
//! Anything but status 200 ends it with an error: a refusal is quick and would count as speed.
#![expect(clippy::print_stdout, reason = "the tally is its output")]

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The longest that a whole run may take.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Order {
    /// `127.0.0.1:PORT`.
    address: String,
    /// Whom to trust: a PEM file.
    ca: String,
    /// Certificates and keys, PEM files; connections take them in turn.
    identities: Vec<(String, String)>,
    /// The request line's beginning: `POST /v1/secrets/read`.
    line: String,
    /// Further headers, names and values.
    headers: Vec<(String, String)>,
    /// The body.
    body: String,
    /// How many connections at once.
    connections: usize,
    /// What the connections do.
    work: Work,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    /// Each asks once, and all stay open until standard input ends.
    Idle,
    /// Each asks again and again, one request after the other, for so many milliseconds.
    Kept(u64),
    /// Each is made, asks once and is closed; all at the same time.
    Storm,
}

#[derive(Serialize)]
struct Tally {
    requests: usize,
    seconds: f64,
    p50_micros: u64,
    p99_micros: u64,
}

fn main() -> Result<(), Error> {
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (tally, kept) =
        runtime.block_on(async { tokio::time::timeout(LIMIT, run(&order)).await })??;
    println!("{}", serde_json::to_string(&tally)?);
    std::io::copy(&mut input, &mut std::io::sink())?;
    drop(kept);
    Ok(())
}

async fn run(order: &Order) -> Result<(Tally, Vec<Wire>), Error> {
    let configs = order
        .identities
        .iter()
        .map(|(certificate, key)| config(&order.ca, certificate, key))
        .collect::<Result<Vec<_>, _>>()?;
    let request: Arc<[u8]> = request(order).into();
    let wire = |number: usize| {
        let config = configs[number % configs.len()].clone();
        Wire::open(order.address.clone(), config)
    };
    let numbers = 0..order.connections;
    let mut times = Vec::new();
    let (started, kept) = match order.work {
        Work::Kept(millis) => {
            let mut wires = try_join_all(numbers.map(wire)).await?;
            // What is made at the first request is not what is measured.
            for wire in &mut wires {
                wire.ask(&request).await?;
            }
            let started = Instant::now();
            let end = started + Duration::from_millis(millis);
            let asking = wires.into_iter().map(|wire| {
                let request = request.clone();
                tokio::spawn(wire.ask_until(request, end))
            });
            for asked in try_join_all(asking).await? {
                times.extend(asked?);
            }
            (started, Vec::new())
        }
        Work::Idle | Work::Storm => {
            let started = Instant::now();
            let asking = numbers.map(|number| {
                let (wire, request) = (wire(number), request.clone());
                tokio::spawn(async move {
                    let begun = Instant::now();
                    let mut wire = wire.await?;
                    wire.ask(&request).await?;
                    Ok::<_, Error>((begun.elapsed(), wire))
                })
            });
            let mut kept = Vec::new();
            for asked in try_join_all(asking).await? {
                let (time, wire) = asked?;
                times.push(time);
                kept.push(wire);
            }
            (started, kept)
        }
    };
    Ok((tally(started.elapsed(), times), kept))
}

fn config(ca: &str, certificate: &str, key: &str) -> Result<Arc<ClientConfig>, Error> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
    ];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn request(order: &Order) -> Vec<u8> {
    let headers: String = order
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!(
        "{} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n{headers}\r\n{}",
        order.line,
        order.address,
        order.body.len(),
        order.body
    )
    .into_bytes()
}

fn tally(elapsed: Duration, mut times: Vec<Duration>) -> Tally {
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        let time = times.get(index).or(times.last());
        time.map_or(0, |time| {
            u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
        })
    };
    Tally {
        requests: times.len(),
        seconds: elapsed.as_secs_f64(),
        p50_micros: at(0.5),
        p99_micros: at(0.99),
    }
}

/// One connection. It knows as much of HTTP as its answers need: a status, and a body of a
/// declared length or in chunks.
struct Wire {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Wire {
    async fn open(address: String, config: Arc<ClientConfig>) -> Result<Self, Error> {
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(Self {
            stream: TlsConnector::from(config).connect(name, stream).await?,
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    async fn ask_until(mut self, request: Arc<[u8]>, end: Instant) -> Result<Vec<Duration>, Error> {
        let mut times = Vec::new();
        loop {
            let begun = Instant::now();
            if begun >= end {
                return Ok(times);
            }
            self.ask(&request).await?;
            times.push(begun.elapsed());
        }
    }

    async fn ask(&mut self, request: &[u8]) -> Result<(), Error> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed a connection".into());
            }
            if is_whole(&self.buffer)? {
                return Ok(());
            }
        }
    }
}

/// Whether an answer has come to its end.
fn is_whole(answer: &[u8]) -> Result<bool, Error> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(String::from_utf8_lossy(answer).into_owned().into());
    }
    let body = &answer[head + 4..];
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    match length {
        Some(length) => Ok(body.len() >= length.trim().parse::<usize>()?),
        None => Ok(body.ends_with(b"0\r\n\r\n")),
    }
}
