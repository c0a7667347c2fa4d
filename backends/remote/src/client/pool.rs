//! Several servers of one service: which one is asked, and when another is.

use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Request, Result, random};

use super::call::known_by;
use super::config::{Address, Settings};
use super::tls::{Identity, Source};
use super::wire::{Failure, Link, Next};

/// How long a request may take in all where nobody says.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take where another can be asked.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a server that failed is asked last.
const COOLING: Duration = Duration::from_secs(10);
/// How often the certificate's files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// How long a request is under way before giving up on it says anything about the connection.
const SUSPICIOUS: Duration = Duration::from_millis(500);

/// The servers of one service.
///
/// A client starts with one of them at random, and keeps to it while it serves: so many clients
/// spread over all, and each has few connections.
#[derive(Debug)]
pub(super) struct Pool {
    source: Arc<Source>,
    state: Mutex<State>,
    /// Taken by whoever reads the files.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    servers: Vec<Server>,
    /// The server that is asked first; none before the first request.
    current: Option<usize>,
    identity: Option<Arc<Identity>>,
    /// When the files were looked at.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Server {
    address: Address,
    link: Option<Arc<Link>>,
    failed: Option<Instant>,
}

impl Pool {
    /// Does no I/O.
    pub(super) fn new(settings: &Settings) -> Self {
        let server = |address: &Address| Server {
            address: address.clone(),
            link: None,
            failed: None,
        };
        Self {
            source: Arc::new(Source::new(settings)),
            state: Mutex::new(State {
                servers: settings.addresses.iter().map(server).collect(),
                current: None,
                identity: None,
                looked: None,
            }),
            reading: tokio::sync::Mutex::new(()),
        }
    }

    /// Whether there is more than one server.
    pub(super) fn has_others(&self) -> bool {
        self.state().servers.len() > 1
    }

    /// Makes an attempt at one server, and where that cannot be reached, at the others.
    ///
    /// What is safe to repeat is also tried elsewhere when an answer was lost, or the server says
    /// that it cannot serve now.
    ///
    /// # Errors
    /// The attempt's own; `Timeout` past the deadline or 30 seconds; `InvalidConfig` where the
    /// certificate's files are not what they must be.
    pub(super) async fn run<T, F, A>(
        &self,
        request: &Request,
        repeat: Repeat<'_>,
        attempt: F,
    ) -> Result<T>
    where
        F: Fn(Arc<Link>, Instant) -> A + Send + Sync,
        A: Future<Output = Result<T, Failure>> + Send,
    {
        let limit = Instant::now() + LIMIT;
        let until = request.deadline.map_or(limit, |end| end.min(limit));
        let repeatable = matches!(repeat, Repeat::Safe);
        let mut course = Course::default();
        loop {
            let chosen = tokio::time::timeout_at(until.into(), self.next(&course.tried)).await;
            let (index, link) = match chosen {
                Ok(Ok(Some(chosen))) => chosen,
                Ok(Ok(None)) => return Err(together(course.errors)),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(late("the certificate's files were not read in time")),
            };
            course.tried.push(index);
            let others = repeatable && course.tried.len() < self.state().servers.len();
            let limit = if others { share(until) } else { until };
            let flight = Flight::of(self, index, &link);
            let outcome =
                tokio::time::timeout_at(limit.into(), attempt(Arc::clone(&link), limit)).await;
            flight.land();
            let failure = match outcome {
                Ok(Ok(done)) => {
                    self.served(index);
                    return Ok(done);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    link.give_up();
                    let mut told =
                        format!("the key server {} gave no answer in time", link.address);
                    if let Some(id) = known_by(request) {
                        told += &format!(" to request {id}");
                    }
                    Failure {
                        error: late(told),
                        next: Next::IfRepeatable,
                    }
                }
            };
            if failure.error.kind() == ErrorKind::Unauthenticated
                && !course.renewed
                && self.renew(&link.identity).await
            {
                // We are somebody else now.
                course.renewed = true;
                course.tried.pop();
                continue;
            }
            match failure.next {
                Next::Never => {
                    self.served(index);
                    return Err(failure.error);
                }
                Next::IfRepeatable if !repeatable => {
                    self.failed(index);
                    return Err(repeat.told(failure.error));
                }
                Next::Always | Next::IfRepeatable => self.failed(index),
            }
            course.errors.push(failure.error);
            if Instant::now() >= until {
                return Err(together(course.errors));
            }
        }
    }

    /// The server that is asked next, besides those that were; none where there is no other.
    async fn next(&self, tried: &[usize]) -> Result<Option<(usize, Arc<Link>)>> {
        let identity = self.identity().await?;
        let mut state = self.state();
        let Some(index) = state.choose(tried)? else {
            return Ok(None);
        };
        // Where there is nobody else to ask, there is nothing better to do than to wait.
        let patient = state.servers.len() <= tried.len() + 1;
        let server = &mut state.servers[index];
        let fit = |link: &&Arc<Link>| {
            let same = Arc::ptr_eq(&link.identity, &identity);
            same && !link.is_stale() && link.is_patient() == patient
        };
        if let Some(link) = server.link.as_ref().filter(fit) {
            return Ok(Some((index, Arc::clone(link))));
        }
        let link = Arc::new(Link::new(server.address.clone(), identity, patient)?);
        server.link = Some(Arc::clone(&link));
        Ok(Some((index, link)))
    }

    /// Who we are: read at first, and again when the files have changed.
    async fn identity(&self) -> Result<Arc<Identity>> {
        if let Some(known) = self.state().known() {
            return Ok(known);
        }
        let _turn = self.reading.lock().await;
        let before = {
            let state = self.state();
            // While we waited for our turn, another may have looked.
            if let Some(known) = state.known() {
                return Ok(known);
            }
            state.identity.clone()
        };
        let source = Arc::clone(&self.source);
        let old = before.clone();
        let read = tokio::task::spawn_blocking(move || match old {
            Some(old) if !source.has_changed_since(&old) => Ok(None),
            _ => source.load().map(Some),
        });
        let read = read.await.unwrap_or_else(|_| {
            let ended = "reading certificates ended early";
            Err(Error::new(ErrorKind::Internal, ended))
        });
        let mut state = self.state();
        let identity = match (read, before) {
            (Ok(Some(new)), _) => Arc::new(new),
            (Ok(None), Some(before)) => before,
            // Halfway through a renewal, certificate and key do not fit. The old will do till then.
            (Err(error), Some(before)) => {
                tracing::warn!("the certificate's files have changed and cannot be used: {error}");
                before
            }
            (Err(error), None) => return Err(error),
            (Ok(None), None) => {
                return Err(Error::new(ErrorKind::Internal, "no identity was read"));
            }
        };
        state.looked = Some(Instant::now());
        state.identity = Some(Arc::clone(&identity));
        Ok(identity)
    }

    /// Looks at the files at once, since `refused` was. Whether we are somebody else now.
    async fn renew(&self, refused: &Arc<Identity>) -> bool {
        {
            let mut state = self.state();
            let same = |known: &Arc<Identity>| Arc::ptr_eq(known, refused);
            if state.identity.as_ref().is_some_and(same) {
                state.looked = None;
            }
        }
        match self.identity().await {
            Ok(identity) => identity.certificate != refused.certificate,
            Err(_) => false,
        }
    }

    fn served(&self, index: usize) {
        let mut state = self.state();
        state.current = Some(index);
        state.servers[index].failed = None;
    }

    fn failed(&self, index: usize) {
        self.state().servers[index].failed = Some(Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn known(&self) -> Option<Arc<Identity>> {
        let fresh = self.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        self.identity.clone().filter(|_| fresh)
    }

    /// The first in turn from the current one on that was not tried; those that failed a moment
    /// ago come last.
    fn choose(&mut self, tried: &[usize]) -> Result<Option<usize>> {
        let count = self.servers.len();
        let start = match self.current {
            Some(current) => current,
            None => {
                let start = random_below(count)?;
                self.current = Some(start);
                start
            }
        };
        let cooling = |index: &usize| {
            let failed = self.servers[*index].failed;
            failed.is_some_and(|failed| failed.elapsed() < COOLING)
        };
        let turn = (0..count).map(|step| (start + step) % count);
        let mut left: Vec<usize> = turn.filter(|index| !tried.contains(index)).collect();
        left.sort_by_key(cooling);
        Ok(left.first().copied())
    }
}

fn random_below(count: usize) -> Result<usize> {
    let mut bytes = [0; 8];
    random::fill(&mut bytes)?;
    let drawn = u64::from_be_bytes(bytes) % count as u64;
    Ok(usize::try_from(drawn).unwrap_or_default())
}

/// What a request has been through.
#[derive(Debug, Default)]
struct Course {
    tried: Vec<usize>,
    errors: Vec<Error>,
    /// Whether our certificate was read again on its behalf.
    renewed: bool,
}

/// How long one of several servers may take, so that another still has its turn.
fn share(until: Instant) -> Instant {
    let now = Instant::now();
    let half = until.saturating_duration_since(now) / 2;
    now + half.min(PATIENCE)
}

fn late(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Timeout, what)
}

/// Whether a request can be sent again where nobody knows what came of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Repeat<'a> {
    /// Twice is as good as once, whatever others do in between.
    Safe,
    /// It would undo what somebody else has done in between. A command shows how things stand.
    Never { shown_by: &'a str },
}

impl Repeat<'_> {
    /// The error of a request that is not sent again, with what that leaves open.
    fn told(self, error: Error) -> Error {
        let Self::Never { shown_by } = self else {
            return error;
        };
        if !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) {
            return error;
        }
        let message = format!(
            "{}; whether it was carried out is not known",
            error.message()
        );
        let open = Error::new(error.kind(), message).with_advice(format!(
            "see how things stand before it is tried again: {shown_by}"
        ));
        let open = match error.retry_after() {
            Some(wait) => open.with_retry_after(wait),
            None => open,
        };
        // Without one of its own, it has nothing to say that the message does not.
        match error.source() {
            Some(_) => open.with_source(error),
            None => open,
        }
    }
}

/// The error of a service none of whose servers could serve.
fn together(mut errors: Vec<Error>) -> Error {
    let Some(last) = errors.pop() else {
        return Error::new(ErrorKind::Internal, "a key service without servers");
    };
    if errors.is_empty() {
        return last;
    }
    let last_kind = last.kind();
    errors.push(last);
    // What passes by itself at one of them may be all that is wrong.
    let mut kinds = errors.iter().map(Error::kind);
    let kind = kinds.find(|kind| kind.is_transient()).unwrap_or(last_kind);
    let told: Vec<&str> = errors.iter().map(Error::message).collect();
    let message = format!(
        "none of {} servers could serve: {}",
        errors.len(),
        told.join("; ")
    );
    let advice = errors.iter().find_map(Error::advice).map(str::to_owned);
    let error = Error::new(kind, message);
    let error = match errors.iter().filter_map(Error::retry_after).min() {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    };
    let error = match advice {
        Some(advice) => error.with_advice(advice),
        None => error,
    };
    match errors.pop() {
        Some(last) => error.with_source(last),
        None => error,
    }
}

/// A request under way, which tells when it is dropped halfway: by a time limit of a layer's.
struct Flight<'a> {
    pool: &'a Pool,
    index: usize,
    link: Arc<Link>,
    since: Instant,
    landed: bool,
}

impl<'a> Flight<'a> {
    fn of(pool: &'a Pool, index: usize, link: &Arc<Link>) -> Self {
        Self {
            pool,
            index,
            link: Arc::clone(link),
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
            self.link.give_up();
            self.pool.failed(self.index);
        }
    }
}
