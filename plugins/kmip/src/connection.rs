//! One connection to a server: TLS, a message there, a message back.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use keyhaul_tls::find;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Address;
use crate::error::transport;
use crate::failure::garbled;
use crate::message::MAX_ANSWER;
use crate::ttlv::{HEADER, Malformed, tag};

/// How long to listen for why a server ended the connection: it is only about a better error.
const LISTEN: Duration = Duration::from_millis(500);

/// A connection, on which nothing is under way.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    pub(crate) born: Instant,
}

/// Why an exchange came to nothing.
pub(crate) struct Broken {
    pub(crate) error: Error,
    /// Whether the connection was at its end before an answer began: one that was kept can have
    /// been for long.
    pub(crate) unanswered: bool,
}

impl Connection {
    pub(crate) async fn open(tls: ClientConfig, address: &Address) -> Result<Self> {
        let connecting = async {
            let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
            socket.set_nodelay(true)?;
            TlsConnector::from(Arc::new(tls))
                .connect(address.name.clone(), socket)
                .await
        };
        let stream = connecting
            .await
            .map_err(|error| transport(error, address))?;
        Ok(Self {
            stream,
            born: Instant::now(),
        })
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
