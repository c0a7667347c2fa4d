//! A firewall that forgets connections, and tells nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// In this process, on loopback, gone with the runtime.
pub struct Firewall {
    port: u16,
    connections: Arc<AtomicUsize>,
    forgotten: Arc<AtomicUsize>,
}

impl Firewall {
    /// One in front of the server at this port.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (connections, forgotten) = (Arc::default(), Arc::default());
        let wall = Self {
            port,
            connections: Arc::clone(&connections),
            forgotten: Arc::clone(&forgotten),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(relay(from_client, to_server, number, forgotten.clone()));
                tokio::spawn(relay(from_server, to_client, number, forgotten.clone()));
            }
        });
        wall
    }

    pub fn url(&self) -> String {
        format!("kmip://127.0.0.1:{}", self.port)
    }

    /// How many connections were ever made through it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Swallows whatever comes over the connections of before; new ones pass.
    pub fn forget(&self) {
        self.forgotten.store(self.connections(), Ordering::SeqCst);
    }
}

async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: usize,
    forgotten: Arc<AtomicUsize>,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if number >= forgotten.load(Ordering::SeqCst)
            && to.write_all(&bytes[..length]).await.is_err()
        {
            return;
        }
    }
    // Nobody is told that a forgotten one ended, either.
    if number < forgotten.load(Ordering::SeqCst) {
        std::future::pending().await
    }
}
