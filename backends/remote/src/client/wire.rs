//! Requests to one server, as one identity.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{Capability, Error, ErrorKind, Request, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;

use super::call::{Call, is_id};
use super::config::Address;
use super::tls::Identity;
use super::{diagnose, error};
use crate::protocol::{self, Problem, ServiceAnswer, path, seal};

/// The longest answer that is read. Values are limited to less; what a node has ever fetched is not.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How long a connection may take to stand, TLS included, where another server can be asked.
const CONNECT: Duration = Duration::from_secs(3);
/// How often a server that owes an answer is asked whether it lives, and how long it may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// What may be under way in one answer before it is taken up: an answer of many values at once.
const WINDOW: u32 = 1024 * 1024;

/// A pool of connections to one server, as one identity.
pub(super) struct Link {
    pub(super) address: Address,
    pub(super) identity: Arc<Identity>,
    http: reqwest::Client,
    /// Whether a connection may take as long as the request that needs it.
    patient: bool,
    /// Whether it has answered since something broke: then what breaks next may be a mere restart.
    answered: AtomicBool,
    /// Whether a request was given up on: the connection may be dead without anybody having said so.
    stale: AtomicBool,
    writing: Mutex<Option<Arc<Writing>>>,
}

/// What is known of a server to write to it.
#[derive(Debug)]
pub(super) struct Writing {
    /// The server's key.
    pub(super) key: String,
    /// The agreement with its holder.
    pub(super) sender: seal::Sender,
}

/// An answer of the kind that was asked for.
pub(super) struct Answered<T> {
    pub(super) body: T,
    /// What the server calls the request.
    pub(super) id: Option<String>,
}

/// Why a request got no answer of the kind that was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) next: Next,
}

/// Whether another server of the service may be asked instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The server was not reached: nobody has seen the request.
    Always,
    /// It may have been carried out, and the answer lost.
    IfRepeatable,
    /// The service has spoken. To ask another would be to get round what it said.
    Never,
}

impl Link {
    /// Connections to a server; `patient` where there is none besides. A server whose site boots has
    /// a queue before its handshakes: who leaves it and comes again is at its end.
    pub(super) fn new(address: Address, identity: Arc<Identity>, patient: bool) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("keyhaul/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .tls_backend_preconfigured((*identity.tls).clone())
            .https_only(true)
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(4 * WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .http2_keep_alive_timeout(KEEP_ALIVE.1);
        if !patient {
            http = http.connect_timeout(CONNECT);
        }
        let http = http.build().map_err(|error| {
            Error::new(ErrorKind::Internal, "the HTTP client could not be made").with_source(error)
        })?;
        Ok(Self {
            address,
            identity,
            http,
            patient,
            answered: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            writing: Mutex::default(),
        })
    }

    /// Whether another should be made in its place.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Whether connecting to it is bounded by requests only.
    pub(super) fn is_patient(&self) -> bool {
        self.patient
    }

    /// Says that a request was given up on.
    pub(super) fn give_up(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Sends a request and reads its answer; the server is told that we wait until `until`.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<T, Failure> {
        let answered: Answered<T> = self.exchange(call, until).await?;
        Ok(answered.body)
    }

    /// As [`send`](Self::send), with the id that the server knows the request by.
    pub(super) async fn exchange<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<Answered<T>, Failure> {
        let url = self.address.join(call.path, call.query.as_deref());
        let headers = call.headers(until).map_err(Failure::never)?;
        let own = answered_as(&headers);
        let mut request = self.http.request(call.method.clone(), url).headers(headers);
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.explained(error, own.as_deref()).await),
        };
        self.answered.store(true, Ordering::Release);
        let status = response.status();
        let patience = retry_after(response.headers());
        let id = answered_as(response.headers());
        let kind = media_type(response.headers());
        let body = self.read(response, own.as_deref()).await?;
        match kind.as_deref() {
            Some("application/json") if status.is_success() => serde_json::from_slice(&body)
                .map(|body| Answered { body, id })
                // The parser's words could be the answer's.
                .map_err(|_| {
                    Failure::never(self.foreign("an answer that is none of this protocol"))
                }),
            Some(protocol::MEDIA_TYPE) => {
                let problem: Problem = serde_json::from_slice(&body).map_err(|_| {
                    Failure::never(self.foreign("a failure that is none of this protocol"))
                })?;
                let mut error = self.told(problem, id.as_deref());
                if let Some(wait) = patience
                    && error.retry_after().is_none()
                {
                    error = error.with_retry_after(wait);
                }
                Err(Failure::said(error))
            }
            _ if status.is_server_error() => {
                let message = format!(
                    "the key server {} cannot serve now ({status})",
                    self.address
                );
                let error = Error::new(ErrorKind::Unavailable, message);
                Err(Failure {
                    error: match patience {
                        Some(wait) => error.with_retry_after(wait),
                        None => error,
                    },
                    next: Next::IfRepeatable,
                })
            }
            _ => Err(Failure::never(self.foreign(&format!(
                "an answer that is none of a key server's ({status})"
            )))),
        }
    }

    /// What is needed to write there: asked for once.
    pub(super) async fn writing(
        &self,
        request: &Request,
        until: Instant,
    ) -> Result<Arc<Writing>, Failure> {
        let known = self.known().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let answer: ServiceAnswer = self.send(&Call::get(path::SERVICE, request), until).await?;
        let sender = seal::Sender::to(&answer.key)
            .map_err(|_| Failure::never(self.foreign("a key that is none")))?;
        let writing = Arc::new(Writing {
            sender,
            key: answer.key,
        });
        *self.known() = Some(Arc::clone(&writing));
        Ok(writing)
    }

    /// Forgets what is known to write there, and asks again: whether the server has another key now.
    pub(super) async fn rewriting(
        &self,
        before: &Writing,
        request: &Request,
        until: Instant,
    ) -> Result<Option<Arc<Writing>>, Failure> {
        {
            let mut known = self.known();
            // Another task may have asked already.
            if known.as_ref().is_some_and(|known| known.key == before.key) {
                *known = None;
            }
        }
        let after = self.writing(request, until).await?;
        Ok((after.key != before.key).then_some(after))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Arc<Writing>>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The failure of a request that got no answer; where none before it got one either, with what
    /// the server says in TLS.
    async fn explained(&self, error: reqwest::Error, id: Option<&str>) -> Failure {
        let connected = !error.is_connect();
        // What was never sent is in nobody's audit.
        let id = id.filter(|_| connected);
        let told = error::transport(error, &self.address, id);
        let answered = self.answered.swap(false, Ordering::AcqRel);
        if connected
            && told.kind() == ErrorKind::Unavailable
            && !answered
            && let Some(alert) = diagnose::alert(&self.identity.tls, &self.address).await
        {
            let error = error::tls(&alert, &self.address).with_source(told);
            return Failure::of(error, connected);
        }
        Failure::of(told, connected)
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        id: Option<&str>,
    ) -> Result<Vec<u8>, Failure> {
        let too_large = || {
            let message = format!(
                "the key server {} gave an answer of more than {MAX_ANSWER} bytes",
                self.address
            );
            Failure::never(Error::new(ErrorKind::TooLarge, message))
        };
        let announced = response.content_length().unwrap_or(0);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > MAX_ANSWER {
            return Err(too_large());
        }
        // Values in it are sealed: nothing has to be wiped.
        let mut body = Vec::with_capacity(announced);
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(body),
                Ok(Some(piece)) if body.len() + piece.len() <= MAX_ANSWER => {
                    body.extend_from_slice(&piece);
                }
                Ok(Some(_)) => return Err(too_large()),
                Err(error) => {
                    let error = error::transport(error, &self.address, id);
                    return Err(Failure::of(error, true));
                }
            }
        }
    }

    /// The error that a problem stands for, with the server that said it and what it knows the
    /// request by: the problem's own id, or the answer's. That stands underneath, where no advice
    /// takes its place.
    pub(super) fn told(&self, problem: Problem, answer: Option<&str>) -> Error {
        let own = problem.request.clone().filter(|id| is_id(id));
        let error = problem.error();
        let words = match own.as_deref().or(answer) {
            Some(id) => format!(
                "the key server {} said so; its audit has more under request {id}",
                self.address
            ),
            None => format!("the key server {} said so", self.address),
        };
        error.with_source(words)
    }

    /// The error for what no key server of this protocol says.
    pub(super) fn foreign(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!("the key server {} gave {what}", self.address),
        )
        .with_advice("see that a keyhaul of this version serves at that address")
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.address)
    }
}

impl Failure {
    /// What a server says of a request. One that cannot serve now, since its store is down, has
    /// decided nothing; any other word is the service's.
    pub(super) fn said(error: Error) -> Self {
        let next = if passes(&error) {
            Next::IfRepeatable
        } else {
            Next::Never
        };
        Self { error, next }
    }

    /// As the failure of a question before the request itself: of that nobody has seen anything.
    pub(super) fn beforehand(mut self) -> Self {
        if self.next == Next::IfRepeatable {
            self.next = Next::Always;
        }
        self
    }

    pub(super) fn never(error: Error) -> Self {
        Self {
            error,
            next: Next::Never,
        }
    }

    /// The failure of a connection. A server that is not what it should be has not been told
    /// anything; one that refuses our certificate has decided.
    fn of(error: Error, connected: bool) -> Self {
        let next = match error.kind() {
            ErrorKind::Unauthenticated => Next::Never,
            _ if connected => Next::IfRepeatable,
            _ => Next::Always,
        };
        Self { error, next }
    }
}

/// What an answer to [`path::SERVICE`] says that we can do, as far as this version has words for it.
pub(super) fn capabilities(answer: &ServiceAnswer) -> Capability {
    let named = |name: &String| Capability::from_name(&name.to_ascii_uppercase());
    answer.can.iter().filter_map(named).collect()
}

/// Whether a server says no more than that it cannot serve now.
pub(super) fn passes(error: &Error) -> bool {
    use ErrorKind::{RateLimited, Timeout, Unavailable};
    matches!(error.kind(), RateLimited | Timeout | Unavailable)
}

fn answered_as(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(protocol::header::REQUEST_ID)?.to_str().ok()?;
    is_id(id).then(|| id.to_owned())
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

/// Seconds; a key server sends no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
