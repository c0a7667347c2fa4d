//! A connection pool to one address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, SecretWriter, wipe};
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use rustls::ClientConfig;
use tokio::sync::Mutex;
use url::Url;

use super::resolve::Resolver;
use super::{Address, Answer, Call, MAX_ANSWER, Settings, diagnose, tls};
use crate::error;

/// A pool of connections to one address.
pub(super) struct Client {
    address: Address,
    /// The name that stands for the host in urls, where another is to be asked for.
    server_name: Option<String>,
    client: reqwest::Client,
    /// Whether a proxy stands between.
    proxied: bool,
    /// How TLS is spoken, where it is and no proxy stands between.
    tls: Option<Arc<ClientConfig>>,
    /// Whether a connection stands. Until then one request goes ahead of the others, or each of a
    /// hundred would make a connection of its own although one serves them all.
    warm: AtomicBool,
    first: Mutex<()>,
    /// Whether a request was given up on: the connection may be dead without anybody having said so,
    /// and would take every request after it into the dark.
    stale: AtomicBool,
}

/// How long requests let the first one go ahead.
const AHEAD: Duration = Duration::from_secs(1);
/// How long a request is under way before giving up on it says anything about the connection.
const SUSPICIOUS: Duration = Duration::from_millis(500);

impl Client {
    /// Reads certificates, where they are needed, off the runtime's threads.
    pub(super) async fn new(settings: &Settings, address: &Address) -> Result<Self> {
        let server_name = settings
            .tls
            .server_name
            .as_ref()
            .filter(|_| address.is_tls())
            .cloned();
        if server_name.is_some() && settings.proxies.apply_to(address) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "`tls-server-name` (VAULT_TLS_SERVER_NAME) cannot be had through a proxy",
            )
            .with_advice(
                "address the server by the name in its certificate, or set proxy = \"none\"",
            ));
        }
        let tls = tls::config(&settings.tls, address.is_tls()).await?;
        let proxied = settings.proxies.apply_to(address);
        let kept = (address.is_tls() && !proxied).then(|| Arc::new(tls.clone()));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("keyhaul/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(Resolver::new(
                server_name.clone(),
                address.host().map(str::to_owned),
            )))
            .connect_timeout(settings.timeout);
        builder = settings.proxies.set_up(builder, address)?;
        if let Address::Unix(path) = address {
            builder = builder.unix_socket(path.as_path());
        }
        let client = builder.build().map_err(|error| {
            Error::new(ErrorKind::Internal, "the HTTP client could not be made").with_source(error)
        })?;
        Ok(Self {
            warm: AtomicBool::new(!address.is_tls()),
            address: address.clone(),
            server_name,
            client,
            proxied,
            tls: kept,
            first: Mutex::new(()),
            stale: AtomicBool::new(false),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether another should be made in its place.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Sends a request, and reads its answer whole.
    pub(super) async fn send(
        &self,
        settings: &Settings,
        call: &Call<'_>,
        url: Url,
    ) -> Result<Answer> {
        let mut request = self
            .client
            .request(call.method.clone(), self.named(&url)?)
            .headers(call.headers(settings.namespace.as_deref())?);
        if let Some(body) = call.content() {
            request = request.body(body);
        }
        let cold = !self.warm.load(Ordering::Acquire);
        let flight = Flight::of(&self.stale);
        let response = match self.first_alone(request.send()).await {
            Ok(response) => response,
            Err(error) => {
                flight.land();
                return Err(self.explained(error, cold).await);
            }
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
            body: SecretBytes::copy_from(&[]),
            sealed: None,
            authenticated: call.manner.token.is_some(),
            location: header(response.headers(), &LOCATION),
            from: url,
        };
        let body = self.read(response).await;
        flight.land();
        answer.body = body?;
        Ok(answer)
    }

    /// Runs `sending`, alone while no connection stands.
    async fn first_alone(
        &self,
        sending: impl Future<Output = reqwest::Result<reqwest::Response>>,
    ) -> reqwest::Result<reqwest::Response> {
        let turn = if self.warm.load(Ordering::Acquire) {
            None
        } else {
            // Past the limit it goes all the same: what the first one waits for may be its own affair.
            tokio::time::timeout(AHEAD, self.first.lock()).await.ok()
        };
        // While it waited, another may have got through: then the turn is given on at once.
        let turn = turn.filter(|_| !self.warm.load(Ordering::Acquire));
        let outcome = sending.await;
        self.warm
            .store(outcome.is_ok() || !self.address.is_tls(), Ordering::Release);
        drop(turn);
        outcome
    }

    /// The error for a request that got no answer; over a connection that never gave one, with what
    /// the server said in TLS.
    async fn explained(&self, error: reqwest::Error, cold: bool) -> Error {
        let connected = !error.is_connect() && !error.is_timeout();
        let error = error::transport(error, &self.address, self.proxied);
        let (Some(config), Address::Tcp(url)) = (&self.tls, &self.address) else {
            return error;
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return error;
        };
        if !cold || !connected || error.kind() != ErrorKind::Unavailable {
            return error;
        }
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        match diagnose::alert(Arc::clone(config), host.to_owned(), port, name).await {
            Some(alert) => error::tls(&alert, &self.address).with_source(error),
            None => error,
        }
    }

    /// Reads a body into locked memory. Pieces are wiped where nobody else holds them; where the
    /// library shares its buffer between pieces, wiping is left to the program's allocator.
    async fn read(&self, mut response: reqwest::Response) -> Result<SecretBytes> {
        let failed = |error| error::transport(error, &self.address, self.proxied);
        let announced = response.content_length().unwrap_or(0);
        if announced > MAX_ANSWER as u64 {
            return Err(too_large(&self.address));
        }
        let mut body = SecretWriter::with_limit(MAX_ANSWER);
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            let pushed = body.push(&piece);
            wipe_piece(piece);
            pushed.map_err(|_| too_large(&self.address))?;
        }
        Ok(body.finish())
    }

    /// The url with the name that TLS is to ask for in the place of the host.
    fn named(&self, url: &Url) -> Result<Url> {
        let mut url = url.clone();
        if let Some(name) = &self.server_name {
            url.set_host(Some(name)).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "`tls-server-name` (VAULT_TLS_SERVER_NAME) is no host's name",
                )
            })?;
        }
        Ok(url)
    }
}

/// A request under way, which tells when it is dropped halfway: by a time limit, ours or a layer's.
struct Flight<'a> {
    stale: &'a AtomicBool,
    since: Instant,
    landed: bool,
}

impl<'a> Flight<'a> {
    fn of(stale: &'a AtomicBool) -> Self {
        Self {
            stale,
            since: Instant::now(),
            landed: false,
        }
    }

    fn land(mut self) {
        self.landed = true;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed && self.since.elapsed() > SUSPICIOUS {
            self.stale.store(true, Ordering::Release);
        }
    }
}

fn wipe_piece(piece: Bytes) {
    if let Ok(mut piece) = piece.try_into_mut() {
        wipe(&mut piece);
    }
}

fn too_large(address: &Address) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("{address} gave an answer of more than {MAX_ANSWER} bytes"),
    )
}

fn header(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Seconds; servers send no dates here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = header(headers, &RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
