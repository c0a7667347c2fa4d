//! One connection to a server: TLS, a message there, a message back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use keyhaul_tls::find;
use rustix::net::sockopt;
use rustls::ClientConfig;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Address;
use crate::error::transport;
use crate::failure::garbled;
use crate::message::MAX_ANSWER;
use crate::ttlv::{HEADER, Malformed, tag};

/// How long to listen for why a server ended the connection: it is only about a better error.
const LISTEN: Duration = Duration::from_millis(500);
/// How old a connection gets, so that a renewed certificate comes into use.
const OLDEST: Duration = Duration::from_secs(600);
/// How long one is kept unused: many a firewall forgets it after some minutes, and tells nobody.
const UNUSED: Duration = Duration::from_secs(60);
/// How long the network may be silent before the kernel asks whether the server is there, how often it
/// asks then, and how many times.
const SILENT: Duration = Duration::from_secs(15);
const ASKING: Duration = Duration::from_secs(5);
const ASKED: u32 = 3;

/// A connection, on which nothing is under way.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    born: Instant,
    used: Instant,
}

/// Why an exchange came to nothing.
pub(crate) struct Broken {
    pub(crate) error: Error,
    /// Whether the connection was at its end before an answer began: one that was kept can have
    /// been for long.
    pub(crate) unanswered: bool,
}

impl Connection {
    /// Connects, until this time at most.
    pub(crate) async fn open(tls: ClientConfig, address: &Address, until: Instant) -> Result<Self> {
        let connecting = async {
            let found = lookup_host((address.host.as_str(), address.port)).await?;
            let socket = first(found.collect(), until).await?;
            socket.set_nodelay(true)?;
            sockopt::set_socket_keepalive(&socket, true)?;
            sockopt::set_tcp_keepidle(&socket, SILENT)?;
            sockopt::set_tcp_keepintvl(&socket, ASKING)?;
            sockopt::set_tcp_keepcnt(&socket, ASKED)?;
            TlsConnector::from(Arc::new(tls))
                .connect(address.name.clone(), socket)
                .await
        };
        let stream = connecting
            .await
            .map_err(|error| transport(error, address))?;
        let born = Instant::now();
        Ok(Self {
            stream,
            born,
            used: born,
        })
    }

    /// How long it may be used.
    pub(crate) fn until(&self) -> Instant {
        until(self.born, self.used)
    }

    /// Whether it may be used once more: it is young, and nothing arrived that nobody asked for. What
    /// did would be taken for the next answer.
    pub(crate) fn is_usable(&mut self) -> bool {
        Instant::now() < self.until() && {
            let mut byte = [0];
            let mut context = Context::from_waker(Waker::noop());
            Pin::new(&mut self.stream)
                .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
                .is_pending()
        }
    }

    /// Sends a request and receives the answer. Whoever stops waiting drops the connection: the
    /// rest of the answer would be taken for the next one.
    pub(crate) async fn exchange(
        &mut self,
        request: &SecretBytes,
        address: &Address,
    ) -> Result<SecretBytes, Broken> {
        if let Err(error) = self.send(request).await {
            let error = self.last_words().await.unwrap_or(error);
            return Err(Broken {
                error: transport(error, address),
                unanswered: true,
            });
        }
        let mut header = [0; HEADER];
        let broken = |error, unanswered| Broken {
            error: transport(error, address),
            unanswered,
        };
        let first = self.stream.read(&mut header).await;
        let first = match first {
            Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof.into(), true)),
            Ok(first) => first,
            Err(error) => return Err(broken(error, true)),
        };
        let rest = self.stream.read_exact(&mut header[first..]).await;
        rest.map_err(|error| broken(error, false))?;
        let len = announced(header).map_err(|error| Broken {
            error,
            unanswered: false,
        })?;
        let mut answer = SecretBytes::init_with(HEADER + len, |bytes| {
            bytes[..HEADER].copy_from_slice(&header);
        });
        let value = &mut answer.expose_mut()[HEADER..];
        let read = self.stream.read_exact(value).await;
        read.map_err(|error| broken(error, false))?;
        self.used = Instant::now();
        Ok(answer)
    }

    async fn send(&mut self, request: &SecretBytes) -> io::Result<()> {
        self.stream.write_all(request.expose()).await?;
        self.stream.flush().await
    }

    /// The alert that a server sent before it ended the connection, where it did: in TLS 1.3 it judges
    /// our certificate after we believe to be connected.
    async fn last_words(&mut self) -> Option<io::Error> {
        let mut byte = [0];
        let heard = tokio::time::timeout(LISTEN, self.stream.read(&mut byte)).await;
        heard
            .ok()?
            .err()
            .filter(|error| find::<rustls::Error>(error).is_some())
    }
}

/// A connection to the first of these that takes one. Each has its part of the time that is left, so
/// that a dead one leaves some to the others.
async fn first(addresses: Vec<SocketAddr>, until: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let part = until.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

fn until(born: Instant, used: Instant) -> Instant {
    (born + OLDEST).min(used + UNUSED)
}

/// How much follows the header of an answer.
fn announced(header: [u8; HEADER]) -> Result<usize> {
    const ANSWER: [u8; 3] = tag_bytes(tag::RESPONSE_MESSAGE);
    let [a, b, c, kind, len @ ..] = header;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if [a, b, c] != ANSWER || kind != 1 || len % 8 != 0 {
        let tag = u32::from_be_bytes([0, a, b, c]);
        return Err(garbled(Malformed::new("no answer", tag)));
    }
    if len > MAX_ANSWER - HEADER {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the KMIP server announces an answer of over {MAX_ANSWER} bytes"),
        )
        .with_advice("see what the object is, with the server's own tools"));
    }
    Ok(len)
}

const fn tag_bytes(tag: u32) -> [u8; 3] {
    let [_, a, b, c] = tag.to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_ten_minutes_and_one_unused() {
        let born = Instant::now();
        let after = |seconds| born + Duration::from_secs(seconds);
        assert_eq!(until(born, after(590)), after(600));
        assert_eq!(until(born, after(10)), after(70));
    }

    #[tokio::test]
    async fn a_dead_address_leaves_time_to_the_next() {
        // One that takes nothing: its queue has room for one connection, and has one.
        let dead = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        rustix::net::bind(&dead, &any).expect("bound");
        rustix::net::listen(&dead, 0).expect("listens");
        let dead = std::net::TcpListener::from(dead);
        let full = dead.local_addr().expect("bound");
        let _queued = TcpStream::connect(full).await.expect("the one");
        let alive = std::net::TcpListener::bind(any).expect("bound");
        let address = alive.local_addr().expect("bound");

        let soon = || Instant::now() + Duration::from_secs(1);
        let socket = first(vec![full, address], soon()).await.expect("the next");
        assert_eq!(socket.peer_addr().expect("connected"), address);
        // The control, and nothing at all.
        let error = first(vec![full], soon()).await.expect_err("dead");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(first(Vec::new(), soon()).await.is_err());
    }
}
