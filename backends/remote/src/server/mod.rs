//! The key service: any store, for nodes that read only what they are granted.

mod accounts;
mod audit;
mod bodies;
mod call;
mod config;
mod connection;
mod deletion;
mod entrance;
mod failure;
mod guard;
mod handlers;
mod housekeeping;
mod http;
mod identity;
mod keeper;
mod listen;
mod lists;
mod private;
mod room;
mod sparing;
mod state;
mod sweep;
mod tls;
mod turns;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyhaul_core::{Capabilities, Error, ErrorKind, Result, SecretStore, random};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use audit::{AuditLog, Entry};
use state::{State, StateSettings};
use tls::Tls;

use crate::protocol::seal::Recipient;

pub use audit::{Verified, verify as verify_audit};
pub use config::{Limits, Settings, TlsFiles};
pub use identity::Roles;

/// How many changes are under way at the same time.
const CHANGES: u32 = 256;
/// How many reads have values in memory at the same time.
const READS: usize = 64;
/// How often the end looks whether connections are left.
const POLL: Duration = Duration::from_millis(10);

/// A key service: listens once it is opened, and answers while it is served.
pub struct Server {
    shared: Arc<Shared>,
    settings: Mutex<Settings>,
    addresses: Vec<SocketAddr>,
    listeners: Mutex<Vec<TcpListener>>,
    /// How many connections there is room for.
    room: usize,
    /// One reload after the other.
    reloading: tokio::sync::Mutex<()>,
}

/// What every connection works with.
struct Shared {
    store: Arc<dyn SecretStore>,
    state: Arc<State>,
    audit: Arc<AuditLog>,
    /// What is written is sealed to it.
    recipient: Recipient,
    live: RwLock<Arc<Live>>,
    /// Tells connections that `live` has changed.
    reloads: watch::Sender<()>,
    capabilities: Mutex<Option<(Instant, Capabilities)>>,
    ids: Ids,
    entrance: Arc<entrance::Entrance>,
    connections: Arc<Semaphore>,
    /// For connections that are one too many, to say so.
    turned_away: Arc<Semaphore>,
    accounts: accounts::Accounts,
    /// For bodies under way, in KiB.
    bodies: Arc<Semaphore>,
    /// Warnings about connections.
    sparing: sparing::Sparing,
    /// For changes of secrets: a store that hangs keeps them.
    changes: Arc<Semaphore>,
    /// For changes of the state alone: no store delays a revocation.
    decisions: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// For whoever changes a secret.
    turns: Arc<turns::Turns>,
}

/// What a reload replaces.
struct Live {
    /// Grows with each reload.
    generation: u64,
    tls: Tls,
    roles: Roles,
    delete_window: Duration,
    limits: Limits,
}

/// Makes ids of requests: unlike those of any other process, and cheap.
struct Ids {
    process: String,
    next: AtomicU64,
}

impl Server {
    /// Opens state, audit and sockets. Nothing is answered until [`serve`](Self::serve).
    ///
    /// # Errors
    /// `InvalidConfig` or `PermissionDenied` with the setting; `Unavailable` where an address is
    /// taken; whatever the state's and the audit's files give.
    pub async fn open(settings: Settings, store: Arc<dyn SecretStore>) -> Result<Self> {
        let wanted = settings.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let tls = Tls::load(&wanted.tls)?;
            let state = State::open(&wanted.state, StateSettings::default())?;
            let audit = AuditLog::open(&wanted.audit, state.anchor())?;
            state.follow(&audit, wanted.accept_older_state)?;
            Ok((tls, state, audit))
        });
        let opened = opened
            .await
            .unwrap_or_else(|_| Err(failure::internal("opening ended early")));
        let (tls, state, audit) = opened?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &settings.listen {
            let failed = |error| Error::io(format!("listening at {address}"), error);
            let listener = listen::at(*address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let room = room::connections(settings.limits.connections);
        let shared = Shared {
            store,
            state: Arc::new(state),
            audit: Arc::new(audit),
            recipient: Recipient::new()?,
            live: RwLock::new(Arc::new(Live::new(0, tls, &settings, room.connections))),
            reloads: watch::Sender::new(()),
            capabilities: Mutex::default(),
            ids: Ids {
                process: random::hex(6)?,
                next: AtomicU64::new(0),
            },
            entrance: Arc::new(entrance::Entrance::new(room.waiting, entrance::HANDSHAKES)),
            connections: Arc::new(Semaphore::new(room.connections)),
            turned_away: Arc::new(Semaphore::new(room::TURNED_AWAY)),
            accounts: accounts::Accounts::default(),
            bodies: Arc::new(Semaphore::new(bodies::ALL)),
            sparing: sparing::Sparing::default(),
            changes: Arc::new(Semaphore::new(CHANGES as usize)),
            decisions: Arc::new(Semaphore::new(CHANGES as usize)),
            reads: Arc::new(Semaphore::new(READS)),
            turns: Arc::default(),
        };
        Ok(Self {
            room: room.connections,
            shared: Arc::new(shared),
            settings: Mutex::new(settings),
            addresses,
            listeners: Mutex::new(listeners),
            reloading: tokio::sync::Mutex::default(),
        })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes over new settings, certificates and revocation lists. Connections stay, save those whose
    /// certificates are nobody's any longer: all are verified again. The audit goes on in a new file
    /// where the old one was moved away.
    ///
    /// # Errors
    /// As [`open`](Self::open), and where something changed that takes a restart; everything stays
    /// as it was then.
    pub async fn reload(&self, settings: Settings) -> Result<()> {
        let _one = self.reloading.lock().await;
        {
            let now = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            let fixed = [
                ("listen", now.listen == settings.listen),
                ("state", now.state == settings.state),
                ("audit", now.audit == settings.audit),
                (
                    "limits.connections",
                    now.limits.connections == settings.limits.connections,
                ),
            ];
            if let Some((name, _)) = fixed.iter().find(|(_, same)| !same) {
                let rule = format!("`{name}` has changed, which takes a restart");
                return Err(Error::new(ErrorKind::InvalidConfig, rule));
            }
        }
        let files = settings.tls.clone();
        let tls = tokio::task::spawn_blocking(move || Tls::load(&files)).await;
        let tls = tls.unwrap_or_else(|_| Err(failure::internal("reading ended early")))?;
        let reopened = timeout(listen::GRACE, self.shared.audit.reopen()).await;
        reopened.unwrap_or_else(|_| {
            let hangs = "the audit's disk did not answer in time";
            Err(Error::new(ErrorKind::Timeout, hangs))
        })?;
        let generation = self.shared.live().generation + 1;
        let live = Arc::new(Live::new(generation, tls, &settings, self.room));
        *self
            .shared
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner) = live;
        self.shared.reloads.send_replace(());
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// Serves until `until` is done: then no connection is accepted any more, what runs is
    /// finished, and what is buffered written down. Can be called once.
    ///
    /// # Errors
    /// `Internal` where it was called before; what writing down at the end gives.
    pub async fn serve(&self, until: impl Future<Output = ()>) -> Result<()> {
        let listeners = self.listeners.lock();
        let listeners = std::mem::take(&mut *listeners.unwrap_or_else(PoisonError::into_inner));
        if listeners.is_empty() {
            return Err(failure::internal("the service was served before"));
        }
        // Dropped, as where the caller gives up on us, it ends everything too.
        let (end, ended) = watch::channel(false);
        let mut tasks = Vec::new();
        for listener in listeners {
            let accept = listen::accept(Arc::clone(&self.shared), listener, ended.clone());
            tasks.push(tokio::spawn(accept));
        }
        let sweeping = sweep::run(Arc::clone(&self.shared), ended.clone());
        tasks.push(tokio::spawn(sweeping));
        let keeping = housekeeping::run(Arc::clone(&self.shared), ended);
        tasks.push(tokio::spawn(keeping));
        until.await;
        let _ = end.send(true);
        // They end at once. What one of them may hang at shall not keep the others.
        if timeout(listen::GRACE, join_all(tasks)).await.is_err() {
            tracing::warn!("the service's own tasks did not end in time");
        }
        let shared = &self.shared;
        // A connection that is being greeted has no room yet: it sees the end, and goes.
        let finished = async {
            while shared.connections.available_permits() < self.room {
                sleep(POLL).await;
            }
            let _ = shared.changes.acquire_many(CHANGES).await;
            let _ = shared.decisions.acquire_many(CHANGES).await;
        };
        // Every part of it has a limit of its own; this is for what defects may come.
        if timeout(listen::GRACE * 2, finished).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let limits = shared.accounts.end_all().into_iter();
        let limits: Vec<_> = limits
            .map(|(uri, unrecorded)| connection::end(shared, uri, unrecorded))
            .collect();
        shared.sparing.tell_all();
        if !limits.is_empty() {
            // The failure has been logged.
            let _ = shared.record(limits).await;
        }
        shared.state.flush().await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn fresh_id(&self) -> String {
        let number = self.ids.next.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.ids.process)
    }

    /// Writes records down, durably.
    ///
    /// # Errors
    /// `Internal`, or `Timeout` where the disk hangs: then nothing may be done or told.
    async fn record(&self, entries: Vec<Entry>) -> Result<u64> {
        self.audit.append(entries).await.map_err(|error| {
            self.sparing.warn("the audit cannot be written", || {
                tracing::error!(%error, "the audit cannot be written: nothing is answered");
            });
            let kind = match error.kind() {
                ErrorKind::Timeout => ErrorKind::Timeout,
                _ => ErrorKind::Internal,
            };
            Error::new(kind, "the audit cannot be written").with_source(error)
        })
    }
}

impl Live {
    fn new(generation: u64, tls: Tls, settings: &Settings, room: usize) -> Self {
        Self {
            generation,
            tls,
            roles: settings.roles.clone(),
            delete_window: settings.delete_window,
            limits: settings.limits.within(room),
        }
    }
}
