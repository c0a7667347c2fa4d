//! Why a server ended a TLS connection that seemed to stand.
//!
//! In TLS 1.3 a server judges the client's certificate after the client believes the handshake to be
//! done, and sends its alert while HTTP/2 is already writing: the write fails first, and the alert
//! stays unread. A second handshake that says nothing and listens gets to read it.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// How long the whole may take: it is only about a better error.
const LIMIT: Duration = Duration::from_secs(2);
const LISTEN: Duration = Duration::from_millis(500);

/// What a server at `host` says to a client that shakes hands as `name` and is silent then.
pub(super) async fn alert(
    config: Arc<ClientConfig>,
    host: String,
    port: u16,
    name: String,
) -> Option<rustls::Error> {
    let listening = tokio::task::spawn_blocking(move || listen(config, &host, port, name));
    let outcome = tokio::time::timeout(LIMIT, listening).await;
    outcome.ok()?.ok()?
}

fn listen(config: Arc<ClientConfig>, host: &str, port: u16, name: String) -> Option<rustls::Error> {
    let until = Instant::now() + LISTEN;
    let bare = |text: &str| text.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(bare(&name)).ok()?;
    let mut session = ClientConnection::new(config, name).ok()?;
    let address = (bare(host).as_str(), port).to_socket_addrs().ok()?.next()?;
    let mut socket = TcpStream::connect_timeout(&address, LISTEN).ok()?;
    socket.set_read_timeout(Some(LISTEN)).ok()?;
    socket.set_write_timeout(Some(LISTEN)).ok()?;
    // A session ticket is given to those who are believed.
    while session.is_handshaking() || session.tls13_tickets_received() == 0 {
        if Instant::now() > until {
            return None;
        }
        match session.complete_io(&mut socket) {
            Ok((0, 0)) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.downcast::<rustls::Error>().ok(),
        }
    }
    None
}
