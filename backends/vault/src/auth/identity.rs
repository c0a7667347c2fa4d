//! One login for all requests of a store, and what becomes of it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::api::{self, Looked};
use super::finding::{Finder, Wrapped};
use super::kept::Place;
use super::method::{Kind, Method, SecretId};
use super::token::{Held, Origin, Token, dead};
use crate::environment::Environment;
use crate::http::Http;

/// For how long a login that the server refused is not tried again: it would only lock the user
/// out, or flood the audit.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a renewal may take. No request waits for it.
const RENEWAL: Duration = Duration::from_secs(30);
/// For how long a login proves by itself that the token lives.
const FRESH: Duration = Duration::from_secs(60);

/// Who a store is to its server. Clones are the same identity.
#[derive(Clone)]
pub(crate) struct Identity(Arc<Inner>);

struct Inner {
    http: Arc<Http>,
    method: Method,
    environment: Environment,
    /// The token in use. Held for no longer than it takes to look or to change it.
    held: Mutex<Option<Held>>,
    /// Whoever has it logs in, renews or looks up: one at a time.
    flight: Arc<Turn<Flight>>,
}

/// What is known to whoever has the turn.
#[derive(Default)]
struct Flight {
    generation: u64,
    /// When the last try ended, and how. Others who waited for it need not try again.
    failed: Option<(Instant, Error)>,
    /// Which token was found alive, and when that was asked.
    alive: Option<(u64, Instant)>,
    /// When finding that out failed last, and how: who waited for it need not ask again.
    unsettled: Option<(Instant, Error)>,
    wrapped: Wrapped,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// A login that holds: more can be asked with it.
    LoggedIn,
    /// A wrapped secret id that is still there to be spent. Whatever asks for more spends it.
    Unspent,
}

/// What a refusal (403) meant.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The token was dead, and here is another: ask once more with it.
    Again(Token),
    /// The token lives: it may not do what was asked.
    Denied,
}

impl Identity {
    /// An identity that has not logged in. No I/O.
    pub(crate) fn new(http: Arc<Http>, method: Method, environment: Environment) -> Self {
        Self(Arc::new(Inner {
            http,
            method,
            environment,
            held: Mutex::new(None),
            flight: Arc::default(),
        }))
    }

    /// The token to ask with. The first call logs in; later ones have it at hand, and start a
    /// renewal when two thirds of the lease are over, without waiting for it.
    ///
    /// # Errors
    /// `Unauthenticated` with the reason where there is none to be had, `Timeout` past `deadline`.
    pub(crate) async fn token(&self, deadline: Option<Instant>) -> Result<Token> {
        let entered = Instant::now();
        if let Some(held) = self.0.valid() {
            if held.is_due(entered) {
                self.refresh();
            }
            return Ok(held.token);
        }
        let turn = self.turn(deadline).await?;
        let inner = Arc::clone(&self.0);
        self.apart(deadline, async move {
            match inner.valid() {
                Some(held) => Ok(held.token),
                None => inner.obtain(turn, entered).await,
            }
        })
        .await
    }

    /// Settles what a 403 to a request with the token `used` meant, by asking once whether it lives.
    ///
    /// # Errors
    /// `Unauthenticated` with the reason where it is dead and there is no other; the error of
    /// asking where that failed.
    pub(crate) async fn denied(&self, used: &Token, deadline: Option<Instant>) -> Result<Verdict> {
        let entered = Instant::now();
        let turn = self.turn(deadline).await?;
        let (inner, used) = (Arc::clone(&self.0), used.clone());
        self.apart(
            deadline,
            async move { inner.settle(turn, &used, entered).await },
        )
        .await
    }

    /// Reaches the server and authenticates. A wrapped secret id is looked at and not spent: such
    /// a probe says that it is there to be spent, not what it will open.
    ///
    /// # Errors
    /// As [`token`](Self::token) and [`denied`](Self::denied).
    pub(crate) async fn probe(&self, deadline: Option<Instant>) -> Result<Probed> {
        let inner = &self.0;
        if let Kind::AppRole {
            secret_id: SecretId::Wrapped(source),
            ..
        } = &inner.method.kind
            && inner.valid().is_none()
            && inner.finder(0).kept().is_none()
        {
            within(deadline, inner.finder(0).inspect(source)).await??;
            return Ok(Probed::Unspent);
        }
        let token = self.token(deadline).await?;
        let fresh = inner.valid().is_some_and(|held| {
            held.token.generation() == token.generation()
                && held.origin == Origin::Login
                && held.since.elapsed() < FRESH
        });
        if !fresh {
            // The same question that a refusal raises: does it live, and if not, is there another?
            self.denied(&token, deadline).await?;
        }
        Ok(Probed::LoggedIn)
    }

    async fn turn(&self, deadline: Option<Instant>) -> Result<OwnedMutexGuard<Flight>> {
        within(deadline, Arc::clone(&self.0.flight).lock_owned()).await
    }

    /// Does `work` to its end even where the caller is cancelled: what a server gives once, as
    /// what was wrapped, must not be lost between two polls.
    async fn apart<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = tokio::spawn(work);
        within(deadline, task).await?.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "the login's task ended early").with_source(error))
        })
    }

    /// Renews or replaces the token, unless somebody is about it. Nobody waits for that.
    fn refresh(&self) {
        if let Ok(turn) = Arc::clone(&self.0.flight).try_lock_owned() {
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move { inner.attend(turn).await });
        }
    }
}

impl Inner {
    /// The token in use, where it is not known to be over.
    fn valid(&self) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().filter(|held| held.is_valid(Instant::now()))
    }

    fn hold(&self, held: Option<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Changes the token in use, where it is still the one of `generation`.
    fn change(&self, generation: u64, change: impl FnOnce(&mut Held)) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held
            .as_mut()
            .filter(|held| held.token.generation() == generation)
        {
            change(held);
        }
    }

    fn finder(&self, generation: u64) -> Finder<'_> {
        Finder {
            http: &self.http,
            method: &self.method,
            environment: &self.environment,
            generation,
        }
    }

    fn place(&self) -> Place {
        Place::new(&self.http, &self.method)
    }

    /// Whether a new login is possible without a person.
    fn can_log_in(&self, flight: &Flight) -> bool {
        match &self.method.kind {
            Kind::AppRole {
                secret_id: SecretId::Wrapped(_),
                ..
            } => !flight.wrapped.is_spent(),
            Kind::Token { .. } => false,
            Kind::Userpass { password, .. } => password.is_some(),
            Kind::AppRole { .. }
            | Kind::Cert { .. }
            | Kind::Jwt { .. }
            | Kind::Kubernetes { .. } => true,
        }
    }

    /// Gets a token, unless a try that this caller waited for has just failed.
    async fn obtain(&self, mut flight: OwnedMutexGuard<Flight>, entered: Instant) -> Result<Token> {
        if let Some((at, error)) = &flight.failed {
            let refused = error.kind() == ErrorKind::Unauthenticated && at.elapsed() < REFUSED;
            if entered <= *at || refused {
                return Err(error.duplicate());
            }
        }
        flight.generation += 1;
        let finder = self.finder(flight.generation);
        match finder.find(&mut flight.wrapped).await {
            Ok(held) => {
                tracing::debug!(origin = %held.origin, "a token is in use");
                let token = held.token.clone();
                flight.failed = None;
                self.hold(Some(held));
                Ok(token)
            }
            Err(error) => {
                flight.failed = Some((Instant::now(), error.duplicate()));
                Err(error)
            }
        }
    }

    /// Whether `used` lives, and what follows.
    async fn settle(
        &self,
        mut flight: OwnedMutexGuard<Flight>,
        used: &Token,
        entered: Instant,
    ) -> Result<Verdict> {
        let held = self.valid();
        if let Some(held) = &held
            && held.token.generation() != used.generation()
        {
            // Somebody has found out already, and logged in anew.
            return Ok(Verdict::Again(held.token.clone()));
        }
        if flight
            .alive
            .is_some_and(|(generation, asked)| generation == used.generation() && asked >= entered)
        {
            return Ok(Verdict::Denied);
        }
        if let Some((at, error)) = &flight.unsettled
            && entered <= *at
        {
            return Err(error.duplicate());
        }
        let asked = Instant::now();
        match self.lives(used, asked).await {
            Ok(true) => {
                flight.alive = Some((used.generation(), asked));
                Ok(Verdict::Denied)
            }
            Ok(false) => self.replace(flight, held, used, entered).await,
            Err(error) => {
                flight.unsettled = Some((Instant::now(), error.duplicate()));
                Err(error)
            }
        }
    }

    /// Asks the server whether `used` lives, and takes note of its life.
    async fn lives(&self, used: &Token, asked: Instant) -> Result<bool> {
        match api::lookup_self(&self.http, used.value(), None).await? {
            Looked::Alive { life, .. } => {
                self.change(used.generation(), |held| held.learn(life, asked));
                Ok(true)
            }
            // Dead, or without the right to look itself up, which the policy `default` gives.
            Looked::Refused => api::is_alive(&self.http, used.value()).await,
        }
    }

    /// Puts another token in the place of a dead one.
    async fn replace(
        &self,
        flight: OwnedMutexGuard<Flight>,
        held: Option<Held>,
        used: &Token,
        entered: Instant,
    ) -> Result<Verdict> {
        let dead = dead(held.as_ref());
        tracing::debug!(reason = dead.message(), "the token is dead");
        self.hold(None);
        if held
            .as_ref()
            .is_some_and(|held| held.origin == Origin::Kept)
        {
            self.place().forget();
        }
        if matches!(self.method.kind, Kind::Token { .. }) || self.can_log_in(&flight) {
            let found = self.obtain(flight, entered).await;
            return match found {
                // What lies there is the very token that is dead.
                Ok(token) if token.value() == used.value() => {
                    self.hold(None);
                    Err(dead)
                }
                Ok(token) => Ok(Verdict::Again(token)),
                // There is no other, which does not say what became of this one.
                Err(_) if matches!(self.method.kind, Kind::Token { .. }) => Err(dead),
                Err(error) => Err(error),
            };
        }
        Err(dead)
    }

    /// Does for the token what is due: finds out its life, renews it, or replaces it.
    async fn attend(&self, mut flight: OwnedMutexGuard<Flight>) {
        let now = Instant::now();
        let Some(held) = self.valid().filter(|held| held.is_due(now)) else {
            return;
        };
        let generation = held.token.generation();
        let deadline = Some(now + RENEWAL);
        // Whatever comes of it, the next request is not to start the same again at once.
        self.change(generation, |held| held.postpone(now));
        let value = held.token.value();
        let Some(life) = held.life else {
            match api::lookup_self(&self.http, value, deadline).await {
                Ok(Looked::Alive { life, .. }) => {
                    self.change(generation, |held| held.learn(life, now));
                }
                Ok(Looked::Refused) => self.change(generation, Held::leave),
                Err(error) => tracing::debug!(%error, "the token was not looked up"),
            }
            return;
        };
        if life.counted {
            self.change(generation, Held::leave);
            return;
        }
        if life.renewable {
            match api::renew_self(&self.http, value, deadline).await {
                // Near its utmost end, renewals give ever less: then it is time for another.
                Ok(Some(renewed)) if renewed.left.is_none_or(|left| left >= life.lease / 2) => {
                    self.change(generation, |held| held.learn(renewed, now));
                    if held.origin == Origin::Kept {
                        self.place().extend(renewed.left);
                    }
                    tracing::debug!("the token's lease is renewed");
                    return;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "the token's lease was not renewed yet");
                    return;
                }
            }
        }
        self.succeed(&mut flight, generation).await;
    }

    /// Logs in anew while the old token still serves.
    async fn succeed(&self, flight: &mut Flight, generation: u64) {
        let person = matches!(self.method.kind, Kind::Token { .. });
        if person || !self.can_log_in(flight) {
            self.change(generation, Held::leave);
            return;
        }
        flight.generation += 1;
        let asked = Instant::now();
        let finder = self.finder(flight.generation);
        match finder.log_in(&mut flight.wrapped, None).await {
            Ok(issued) => {
                let token = Token::new(issued.value, flight.generation);
                self.hold(Some(Held::known(token, Origin::Login, issued.life, asked)));
            }
            // The old one serves until its end, and then the reason is told.
            Err(error) => tracing::warn!(%error, "no new login before the old one ends"),
        }
    }
}

async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), work)
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "no login before the deadline")),
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.method)
    }
}
