//! Connections that are kept for the next request.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Request, Result, SecretBytes};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::{Address, Settings};
use crate::connection::Connection;
use crate::error::timeout;
use crate::identity::Identity;

/// The limit of one exchange, with the wait for a connection and the making of one, where the
/// request itself has no earlier one.
const LIMIT: Duration = Duration::from_secs(20);
/// How long making a connection may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// How old a connection gets, so that a renewed certificate comes into use.
const OLDEST: Duration = Duration::from_secs(600);

/// A server, and the connections to it.
pub(crate) struct Pool {
    address: Address,
    identity: Arc<Identity>,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl Pool {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            address: settings.address.clone(),
            identity: Arc::new(Identity::new(settings)),
            idle: Mutex::default(),
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
    /// the same value, and what is destroyed already stays so.
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
        if let Some(kept) = self.take() {
            match self.exchange(kept, message, until).await {
                Err(Lost::Ended(_)) => {
                    // The others are as old, and as gone.
                    self.idle().clear();
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
        let exchange = connection.exchange(message, &self.address);
        match timeout_at(until, exchange).await {
            Err(_) => Err(Lost::Failed(timeout(&self.address, "gave no answer"))),
            Ok(Err(broken)) if broken.unanswered => Err(Lost::Ended(broken.error)),
            Ok(Err(broken)) => Err(Lost::Failed(broken.error)),
            Ok(Ok(answer)) => {
                // Only now: on one whose answer was not read to its end, the next would be wrong.
                self.idle().push(connection);
                Ok(answer)
            }
        }
    }

    async fn connect(&self, until: Instant) -> Result<Connection> {
        let identity = Arc::clone(&self.identity);
        let loaded = tokio::task::spawn_blocking(move || identity.load()).await;
        let tls = loaded.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "reading certificates ended early",
            ))
        })?;
        let until = until.min(Instant::now() + CONNECTING);
        let opening = Connection::open(tls, &self.address);
        timeout_at(until, opening)
            .await
            .unwrap_or_else(|_| Err(timeout(&self.address, "took no connection")))
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|kept| kept.born.elapsed() < OLDEST);
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
