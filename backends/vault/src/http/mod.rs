//! The wire to a server: one [`Http`] per configured store, shared by logins, values and all else.
//!
//! [`Settings`] say where and how; a [`Call`] is one request, an [`Answer`] what came back, whatever
//! its status: [`Answer::refusal`] is the error it stands for where nobody knows better. Nothing is
//! read from disk or network before the first request.

mod address;
mod answer;
mod call;
mod client;
mod diagnose;
mod proxy;
mod redirect;
mod resolve;
mod settings;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;
use vaultrs::api::sys::requests::ReadHealthRequest;

pub(crate) use address::Address;
pub(crate) use answer::Answer;
pub(crate) use call::{Call, Manner};
pub(crate) use settings::{OPTIONS, Settings};

use client::Client;
use redirect::Hop;

/// The longest answer that is read: a list can have hundreds of thousands of names.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How long an answer to the question whether a server is sealed may take.
const HEALTH: Duration = Duration::from_secs(2);

/// The wire of one store.
pub(crate) struct Http {
    settings: Settings,
    /// One client per address: the store's own, and those it was redirected to. Few, since only
    /// trusted addresses are.
    clients: Mutex<Vec<Arc<Client>>>,
}

impl Http {
    /// A wire. No I/O.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            clients: Mutex::new(Vec::new()),
        }
    }

    /// What it was made with.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends a request. Any status is an answer.
    ///
    /// # Errors
    /// - `Timeout` past the call's deadline or the store's time limit.
    /// - `Unavailable` where the server cannot be reached, cuts the connection, does not speak HTTP
    ///   or redirects to where it is not trusted to.
    /// - `InvalidConfig` where certificates or their settings are wrong.
    /// - `Unauthenticated` where the server wants a client certificate and got none it believes.
    /// - `TooLarge` for an answer of more than 32 MiB.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let limit = Instant::now() + self.settings.timeout;
        let until = call
            .manner
            .deadline
            .map_or(limit, |deadline| deadline.min(limit));
        match tokio::time::timeout_at(until.into(), self.deliver(&call)).await {
            Ok(answer) => answer,
            Err(_) if until < limit => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{} gave no answer before the deadline",
                    self.settings.address
                ),
            )),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{} gave no answer in {:?}",
                    self.settings.address, self.settings.timeout
                ),
            )
            .with_advice(
                "see whether the server is well, or raise `client-timeout` (VAULT_CLIENT_TIMEOUT)",
            )),
        }
    }

    /// Sends and follows, and repeats where the environment says so.
    async fn deliver(&self, call: &Call<'_>) -> Result<Answer> {
        let mut left = if call.is_repeatable() {
            self.settings.max_retries
        } else {
            0
        };
        loop {
            let outcome = self.follow(call).await;
            let again = match &outcome {
                Ok(answer) => answer.status >= 500 && answer.status != 501,
                Err(error) => error.kind() == ErrorKind::Unavailable,
            };
            if !again || left == 0 {
                return self.completed(outcome?, call).await;
            }
            left -= 1;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Sends, and goes where a standby says its leader is, if that address is trusted.
    async fn follow(&self, call: &Call<'_>) -> Result<Answer> {
        let mut client = self.client(&self.settings.address).await?;
        let mut url = call.url(&self.settings.address)?;
        for _ in 0..redirect::MOST {
            let answer = client.send(&self.settings, call, url.clone()).await?;
            match redirect::next(&self.settings, client.address(), &url, &answer)? {
                None => return Ok(answer),
                Some(Hop { address, to }) => {
                    client = self.client(&address).await?;
                    url = to;
                }
            }
        }
        Err(redirect::too_many(&self.settings.address))
    }

    /// The client for an address, made when it is first needed, and anew when a request was given
    /// up on: certificates are read again then.
    async fn client(&self, address: &Address) -> Result<Arc<Client>> {
        let mut clients = self.clients.lock().await;
        clients.retain(|client| !client.is_stale());
        if let Some(client) = clients.iter().find(|client| client.address() == address) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Client::new(&self.settings, address).await?);
        clients.push(Arc::clone(&client));
        Ok(client)
    }

    /// A 503 says in words only whether the server is sealed; its health says it in a field.
    async fn completed(&self, mut answer: Answer, call: &Call<'_>) -> Result<Answer> {
        let health = Call::endpoint(&ReadHealthRequest::default())?.global();
        if answer.status == 503 && call.path != health.path {
            let asked = tokio::time::timeout(HEALTH, self.follow(&health)).await;
            if let Ok(Ok(health)) = asked {
                answer.sealed = health.json::<Health>().ok().map(|health| health.sealed);
            }
        }
        Ok(answer)
    }
}

/// Of an answer of `sys/health`, which has more fields in Vault than in OpenBao.
#[derive(serde::Deserialize)]
struct Health {
    sealed: bool,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.settings.address)
    }
}
