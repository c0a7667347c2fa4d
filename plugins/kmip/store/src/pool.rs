//! Connections that are kept for the next request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Request, Result, SecretBytes};
use keyhaul_tls::Client;
use rustls::version::{TLS12, TLS13};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::config::{Address, Settings};
use crate::connection::Connection;
use crate::error::timeout;
use crate::idle::Idle;

/// The limit of one exchange, with the wait for a connection and the making of one, where the
/// request itself has no earlier one.
const LIMIT: Duration = Duration::from_secs(20);
/// How long making a connection may take.
const CONNECTING: Duration = Duration::from_secs(10);

/// A server, and the connections to it.
pub(crate) struct Pool {
    address: Address,
    /// Its files are read anew for each connection: certificates live for days, programs for months.
    identity: Arc<Client>,
    idle: Idle,
    turns: Semaphore,
}

impl Pool {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            address: settings.address.clone(),
            identity: Arc::new(Client::new(
                settings.authority.clone(),
                settings.certificate.clone(),
                settings.key.clone(),
            )),
            idle: Idle::default(),
            turns: Semaphore::new(settings.connections as usize),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a message and gives the answer.
    ///
    /// A connection that was kept can have ended since. Then the message is sent once more on a new
    /// one: each that this store sends can be repeated, since a second object of the same turn holds
    /// the same value, and what is destroyed already stays so. A Register that is refused because the
    /// first one arrived is looked into (`Objects::keep`).
    pub(crate) async fn ask(
        &self,
        message: &SecretBytes,
        request: &Request,
    ) -> Result<SecretBytes> {
        let until = Instant::now() + LIMIT;
        let until = match request.deadline {
            Some(deadline) => until.min(deadline.into()),
            None => until,
        };
        let turn = timeout_at(until, self.turns.acquire());
        let _turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        if let Some(kept) = self.idle.take() {
            match self.exchange(kept, message, until).await {
                Err(Lost::Ended(_)) => {
                    // The others are as old, and as gone.
                    self.idle.clear();
                }
                Err(Lost::Failed(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        let fresh = self.connect(until).await?;
        match self.exchange(fresh, message, until).await {
            Ok(answer) => Ok(answer),
            Err(Lost::Ended(error) | Lost::Failed(error)) => Err(error),
        }
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        message: &SecretBytes,
        until: Instant,
    ) -> Result<SecretBytes, Lost> {
        let silence = Silence(self);
        let exchange = connection.exchange(message, &self.address);
        let answer = timeout_at(until, exchange).await;
        if answer.is_ok() {
            silence.ended();
        }
        match answer {
            Err(_) => Err(Lost::Failed(timeout(&self.address, "gave no answer"))),
            Ok(Err(broken)) if broken.unanswered => Err(Lost::Ended(broken.error)),
            Ok(Err(broken)) => Err(Lost::Failed(broken.error)),
            Ok(Ok(answer)) => {
                // Only now: on one whose answer was not read to its end, the next would be wrong.
                self.idle.keep(connection);
                Ok(answer)
            }
        }
    }

    async fn connect(&self, until: Instant) -> Result<Connection> {
        let identity = Arc::clone(&self.identity);
        let until = until.min(Instant::now() + CONNECTING);
        let connecting = async {
            // 1.2 too: KMIP servers live long.
            let loaded = spawn_blocking(move || identity.load(&[&TLS13, &TLS12])).await;
            let (tls, _) = loaded.unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Internal,
                    "reading certificates ended early",
                ))
            })?;
            Connection::open(tls, &self.address, until).await
        };
        timeout_at(until, connecting)
            .await
            .unwrap_or_else(|_| Err(timeout(&self.address, "took no connection")))
    }
}

/// A wait for an answer. Where it is given up, by us or by who asked, the connections that are idle go
/// too: what swallows this one, a firewall that forgot it, swallows those as well.
struct Silence<'a>(&'a Pool);

impl Silence<'_> {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.idle.clear();
    }
}

/// Why a message got no answer.
enum Lost {
    /// The connection was at its end.
    Ended(Error),
    Failed(Error),
}

fn busy() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "all of the store's connections are at work and none came to its end in time",
    )
    .with_advice("see whether the server is slow; `connections` says how many there may be")
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.address)
    }
}
