//! One connection: whose it is, for how long that holds, and what is kept between its requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use keyhaul_core::Result;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

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
    /// Asks the loop of the connection to end it.
    pub(super) closing: Notify,
    opened: Instant,
    running: AtomicUsize,
    /// When a request began or ended last, in milliseconds since the beginning.
    active: AtomicU64,
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

    /// What the certificate calls its holder, whether it is anybody here or not.
    pub(super) fn uri(&self) -> Arc<str> {
        let parsed = self.chain.first().map(webpki::EndEntityCert::try_from);
        match parsed {
            Some(Ok(certificate)) => certificate
                .valid_uri_names()
                .find(|uri| uri.len() <= MAX_URI && uri.bytes().all(|byte| byte.is_ascii_graphic()))
                .unwrap_or_default()
                .into(),
            _ => "".into(),
        }
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
