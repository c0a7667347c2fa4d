//! One connection: whose it is, for how long that holds, and what is kept between its requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use keyhaul_core::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

use super::accounts::{Account, Charge};
use super::audit::Entry;
use super::call::{BEGIN, LIMIT};
use super::identity::{Identity, MAX_URI, Refusal};
use super::{Live, Shared};
use crate::protocol::seal::Sender;

/// For how long a verified certificate counts as that, unless the configuration changes before. To
/// verify takes a tenth of a millisecond.
const VERIFIED: Duration = Duration::from_secs(5);
/// How many processes behind one connection have their key agreement kept.
const SENDERS: usize = 4;

/// A connection that has shown a certificate.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    /// The far end's address.
    pub(super) peer: Arc<str>,
    /// The SHA-256 of its certificate.
    pub(super) fingerprint: [u8; 32],
    chain: Vec<CertificateDer<'static>>,
    standing: Mutex<Standing>,
    senders: Mutex<VecDeque<(Box<str>, Arc<Sender>)>>,
    /// What its holder takes up, here and on other connections.
    pub(super) account: Arc<Account>,
    /// Why nothing that it asks is looked at, where that is so.
    pub(super) turned_away: Option<Away>,
    /// Asks the loop of the connection to end it.
    pub(super) closing: Notify,
    opened: Instant,
    running: AtomicUsize,
    /// When a request began or ended last, in milliseconds since the beginning.
    active: AtomicU64,
}

/// Why a connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// There are as many as there may be.
    Full,
    /// Its holder has as many as one may have.
    Share,
}

/// What was found when the certificate was last looked at.
struct Standing {
    generation: u64,
    verified: Instant,
    identity: Result<Arc<Identity>, Refusal>,
}

impl Connection {
    /// A connection whose certificate `live` has just verified.
    pub(super) fn new(
        shared: Arc<Shared>,
        live: &Live,
        peer: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        let account = shared.accounts.of(&uri(&chain));
        let mut fingerprint = [0; 32];
        if let Some(certificate) = chain.first() {
            let digest = digest::digest(&digest::SHA256, certificate);
            fingerprint.copy_from_slice(digest.as_ref());
        }
        let standing = Standing {
            generation: live.generation,
            verified: Instant::now(),
            identity: holder(live, &chain),
        };
        Self {
            shared,
            peer: peer.to_string().into(),
            fingerprint,
            chain,
            standing: Mutex::new(standing),
            senders: Mutex::default(),
            account,
            turned_away: None,
            closing: Notify::new(),
            opened: Instant::now(),
            running: AtomicUsize::new(0),
            active: AtomicU64::new(0),
        }
    }

    /// Who asks: the certificate is verified again where the configuration has changed since, and
    /// now and then, so that what was revoked or has expired stops here.
    pub(super) fn identity(&self, live: &Live) -> Result<Arc<Identity>, Refusal> {
        let mut standing = lock(&self.standing);
        if standing.generation != live.generation || standing.verified.elapsed() >= VERIFIED {
            let identity = match live.tls.verify(&self.chain) {
                Ok(()) => holder(live, &self.chain),
                Err(error) => Err(refusal(&error)),
            };
            *standing = Standing {
                generation: live.generation,
                verified: Instant::now(),
                identity,
            };
        }
        standing.identity.clone()
    }

    /// Waits until a reload leaves the certificate nobody's: why it is. What is revoked takes up no
    /// room until it asks again.
    pub(super) async fn outdated(&self) -> Refusal {
        let mut reloads = self.shared.reloads.subscribe();
        let mut seen = lock(&self.standing).generation;
        loop {
            let live = self.shared.live();
            if live.generation != seen {
                seen = live.generation;
                if let Err(reason) = self.identity(&live) {
                    return reason;
                }
            }
            drop(live);
            if reloads.changed().await.is_err() {
                // The service is gone, and with it all connections in a moment.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What the certificate calls its holder, whether it is anybody here or not.
    pub(super) fn uri(&self) -> Arc<str> {
        uri(&self.chain)
    }

    /// Writes records of what is asked here down, durably; refusals as long as the holder has any to
    /// spend.
    ///
    /// # Errors
    /// `Internal` or `Timeout`: then nothing may be done or told. `RateLimited` where there were too
    /// many refusals: they are counted, not recorded, and nothing may be told either.
    pub(super) async fn record(&self, entries: Vec<Entry>) -> Result<u64> {
        self.record_for(&self.account, entries).await
    }

    /// Writes down that nobody asked: the certificate is none of its holder's, or no longer, so the
    /// holder is not charged.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub(super) async fn record_nobody(&self, entry: Entry) -> Result<u64> {
        let accounts = &self.shared.accounts;
        let account = accounts.of_certificate(self.fingerprint, &self.uri());
        self.record_for(&account, vec![entry]).await
    }

    async fn record_for(&self, account: &Arc<Account>, mut entries: Vec<Entry>) -> Result<u64> {
        let refusals = entries.iter().filter(|entry| is_refusal(entry)).count();
        if refusals == 0 {
            return self.shared.record(entries).await;
        }
        match account.charge(refusals) {
            Charge::Paid => {}
            Charge::Refused(wait) => return Err(limited(wait)),
            Charge::Limited(time) => {
                entries.extend(entries.last().map(|last| begin(last, time)));
                self.limit(account, time);
            }
        }
        self.shared.record(entries).await
    }

    /// Ends the limit of an account when it is time.
    fn limit(&self, account: &Arc<Account>, time: Duration) {
        self.shared.sparing.warn("limited", || {
            tracing::warn!(
                uri = &*self.uri(), peer = %self.peer, seconds = time.as_secs(),
                "too many requests of one certificate were refused: what it asks is answered unheard, and the audit counts it"
            );
        });
        let (account, shared) = (Arc::clone(account), Arc::downgrade(&self.shared));
        let uri = self.uri();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(shared) = shared.upgrade()
                && let Some(unrecorded) = account.end()
            {
                // The failure has been logged.
                let _ = shared.record(vec![end(&shared, uri, unrecorded)]).await;
            }
        });
    }

    /// The key agreement with the holder of `key`.
    ///
    /// # Errors
    /// As [`Sender::to`].
    pub(super) fn sender(&self, key: &str) -> Result<Arc<Sender>> {
        let kept = lock(&self.senders)
            .iter()
            .find(|(known, _)| &**known == key)
            .map(|(_, sender)| Arc::clone(sender));
        if let Some(sender) = kept {
            return Ok(sender);
        }
        let sender = Arc::new(Sender::to(key)?);
        let mut senders = lock(&self.senders);
        senders.truncate(SENDERS - 1);
        senders.push_front((key.into(), Arc::clone(&sender)));
        Ok(sender)
    }

    /// Counts a request for as long as what it gives lives.
    pub(super) fn running(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Running(Arc::clone(self))
    }

    /// How long nothing has been asked.
    pub(super) fn idle(&self) -> Duration {
        if self.running.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let active = Duration::from_millis(self.active.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(active)
    }

    fn touch(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.store(since, Ordering::Relaxed);
    }
}

/// A request under way.
pub(super) struct Running(Arc<Connection>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.touch();
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a certificate calls its holder; nothing where that is no URI.
fn uri(chain: &[CertificateDer<'_>]) -> Arc<str> {
    let parsed = chain.first().map(webpki::EndEntityCert::try_from);
    match parsed {
        Some(Ok(certificate)) => certificate
            .valid_uri_names()
            .find(|uri| uri.len() <= MAX_URI && uri.bytes().all(|byte| byte.is_ascii_graphic()))
            .unwrap_or_default()
            .into(),
        _ => "".into(),
    }
}

/// Whether it cost the one who asked nothing to have it recorded: what is not granted, and what is
/// no reference. What is granted and not there is the granted's business.
fn is_refusal(entry: &Entry) -> bool {
    [
        ErrorKind::PermissionDenied,
        ErrorKind::Unauthenticated,
        ErrorKind::InvalidReference,
    ]
    .iter()
    .any(|kind| kind.name() == entry.outcome)
}

/// What whoever is limited is told, whatever it asks.
pub(super) fn limited(wait: Duration) -> Error {
    Error::new(
        ErrorKind::RateLimited,
        "too many requests with this certificate were refused: for a while none is looked at",
    )
    .with_retry_after(wait)
    .with_advice(
        "stop what asks for secrets that are not granted; the service's audit says what that was",
    )
}

/// The record of a limit that begins, beside the refusal that brought it about.
fn begin(last: &Entry, time: Duration) -> Entry {
    let mut entry = Entry {
        operation: LIMIT,
        subject: None,
        outcome: BEGIN,
        reason: Some("too many refusals: what is asked from here on is refused and counted".into()),
        version: None,
        epoch: None,
        migration: None,
        terms: serde_json::Map::new(),
        ..last.clone()
    };
    entry.term("seconds", serde_json::Value::from(time.as_secs()));
    entry
}

/// The record of one that ends.
pub(super) fn end(shared: &Shared, uri: Arc<str>, unrecorded: u64) -> Entry {
    let mut entry = Entry {
        request: shared.fresh_id().into(),
        actor: uri,
        role: None,
        peer: "".into(),
        operation: LIMIT,
        subject: None,
        node: None,
        outcome: Entry::OK,
        reason: Some("the limit is over".into()),
        version: None,
        epoch: None,
        migration: None,
        terms: serde_json::Map::new(),
    };
    entry.term("unrecorded", serde_json::Value::from(unrecorded));
    entry
}

fn holder(live: &Live, chain: &[CertificateDer<'_>]) -> Result<Arc<Identity>, Refusal> {
    let certificate = chain.first().ok_or("there is no certificate")?;
    live.roles.holder(certificate).map(Arc::new)
}

fn refusal(error: &rustls::Error) -> Refusal {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::Revoked) => "the certificate is revoked",
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the certificate has expired"
        }
        rustls::Error::InvalidCertificate(Bad::UnknownRevocationStatus) => {
            "no revocation list is about the certificate"
        }
        _ => "the certificate no longer verifies",
    }
}

/// What a panic left behind is sound: nothing here is changed in steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
