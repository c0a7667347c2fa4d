//! Why a server ended a TLS connection that seemed to stand.
//!
//! In TLS 1.3 a server judges the client's certificate after the client believes the handshake to be
//! done. When the first request is being written by then, the write fails and the alert stays
//! unread. A second handshake that says nothing and listens gets to read it.

use std::sync::Arc;
use std::time::Duration;

use keyhaul_tls::find;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::Address;

/// How long connecting may take: it is only about a better error.
const LIMIT: Duration = Duration::from_secs(2);
/// How long to listen. A server that believes us says nothing.
const LISTEN: Duration = Duration::from_millis(500);

/// What the server at `address` says to a client that shakes hands and is silent then.
pub(super) async fn alert(tls: &Arc<ClientConfig>, address: &Address) -> Option<rustls::Error> {
    let name = ServerName::try_from(address.host.clone()).ok()?;
    let connecting = async {
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
        TlsConnector::from(Arc::clone(tls))
            .connect(name, socket)
            .await
    };
    let error = match tokio::time::timeout(LIMIT, connecting).await.ok()? {
        Err(error) => error,
        Ok(mut stream) => {
            let mut byte = [0];
            tokio::time::timeout(LISTEN, stream.read(&mut byte))
                .await
                .ok()?
                .err()?
        }
    };
    find::<rustls::Error>(&error).cloned()
}
