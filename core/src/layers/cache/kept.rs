//! What a cache keeps: values within bounds, and the flights under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant as Clock;

use super::CacheSettings;
use crate::reference::{Field, Version};
use crate::store::{GetOptions, Metadata, Secret};
use crate::{Result, SecretBytes, SecretPath};

/// What one answer belongs to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) path: SecretPath,
    version: Option<Version>,
    field: Option<Field>,
    expired: bool,
}

impl Key {
    pub(super) fn new(path: &SecretPath, options: &GetOptions) -> Self {
        Self {
            path: path.clone(),
            version: options.version.clone(),
            field: options.field.clone(),
            expired: options.expired,
        }
    }
}

/// A value that several callers share.
pub(super) struct Kept {
    value: SecretBytes,
    metadata: Metadata,
}

impl Kept {
    pub(super) fn copy_of(secret: &Secret) -> Arc<Self> {
        Arc::new(Self {
            value: SecretBytes::copy_from(secret.value.expose()),
            metadata: secret.metadata.clone(),
        })
    }

    /// A caller's own copy.
    pub(super) fn secret(&self) -> Secret {
        let value = SecretBytes::copy_from(self.value.expose());
        Secret::new(value, self.metadata.clone())
    }

    /// How much of the bounds it takes: the value and what comes with it.
    fn size(&self) -> usize {
        self.value.len() + self.metadata.size()
    }

    /// How much longer the store itself would give it out; none for no limit.
    fn lasts(&self) -> Option<Duration> {
        let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
        let lease = self.metadata.lease.as_ref().map(|lease| lease.duration);
        let expiry = self.metadata.expires.map(left);
        expiry.into_iter().chain(lease).min()
    }
}

/// What came of a flight; none while it is under way, or where its leader went away.
pub(super) type Outcome = Option<Result<Arc<Kept>>>;

/// A request under way. Its leader holds the lock until the outcome is there.
pub(super) type Flight = Arc<Mutex<Outcome>>;

/// What there is for a key.
pub(super) enum Joined {
    Kept(Arc<Kept>),
    Leads(Flight, OwnedMutexGuard<Outcome>),
    Follows(Flight),
}

#[derive(Default)]
pub(super) struct State {
    entries: HashMap<Key, Entry>,
    /// Keys by when they were last asked for.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    /// When the first of the entries ends.
    soonest: Option<Clock>,
    flights: HashMap<Key, Flight>,
    /// Counts what was forgotten: what was asked for before is not kept after.
    epoch: u64,
}

struct Entry {
    kept: Arc<Kept>,
    until: Clock,
    used: u64,
}

impl State {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn join(&mut self, key: &Key, now: Clock) -> Joined {
        self.sweep(now);
        // The clock of the entries stands still while the machine sleeps; the secret's own does not.
        let has_expired = |entry: &Entry| entry.kept.metadata.is_expired(SystemTime::now());
        if self.entries.get(key).is_some_and(has_expired) {
            self.remove(key);
        }
        if let Some(entry) = self.entries.get_mut(key) {
            self.uses += 1;
            self.order.remove(&entry.used);
            entry.used = self.uses;
            self.order.insert(entry.used, key.clone());
            return Joined::Kept(entry.kept.clone());
        }
        let flight = self.flights.entry(key.clone()).or_default().clone();
        match flight.clone().try_lock_owned() {
            Ok(guard) if guard.is_none() => Joined::Leads(flight, guard),
            _ => Joined::Follows(flight),
        }
    }

    /// Keeps an answer that was asked for at `epoch`, for as long and as far as there is room.
    pub(super) fn keep(
        &mut self,
        key: &Key,
        kept: &Arc<Kept>,
        epoch: u64,
        settings: &CacheSettings,
        now: Clock,
    ) {
        self.sweep(now);
        let ttl = kept.lasts().map_or(settings.ttl, |l| l.min(settings.ttl));
        let bytes = kept.size();
        let fits = settings.entries > 0 && bytes <= settings.bytes;
        let Some(until) = now.checked_add(ttl).filter(|until| *until > now && fits) else {
            return;
        };
        if epoch != self.epoch {
            return;
        }
        self.remove(key);
        while self.entries.len() >= settings.entries || self.bytes + bytes > settings.bytes {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.remove(&oldest);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.soonest = self.soonest.into_iter().chain([until]).min();
        self.order.insert(self.uses, key.clone());
        let entry = Entry {
            kept: kept.clone(),
            until,
            used: self.uses,
        };
        self.entries.insert(key.clone(), entry);
    }

    /// Drops all that is known of a path. A flight under way lands for those who wait already.
    pub(super) fn forget(&mut self, path: &SecretPath) {
        self.epoch += 1;
        self.flights.retain(|key, _| key.path != *path);
        let keys = self.entries.keys().filter(|key| key.path == *path);
        for key in keys.cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// Ends a flight. Without an answer it stays for those who wait, of whom one leads next.
    pub(super) fn land(&mut self, key: &Key, flight: &Flight, answered: bool) {
        if answered {
            let is_this = |known: &Flight| Arc::ptr_eq(known, flight);
            if self.flights.get(key).is_some_and(is_this) {
                self.flights.remove(key);
            }
            return;
        }
        // The list's, the leader's and its lock's: nobody waits.
        self.flights.retain(|_, known| {
            let own = if Arc::ptr_eq(known, flight) { 3 } else { 1 };
            Arc::strong_count(known) > own
        });
    }

    /// Drops what has ended, so that it is wiped.
    fn sweep(&mut self, now: Clock) {
        if self.soonest.is_none_or(|soonest| now < soonest) {
            return;
        }
        let ended = self.entries.iter().filter(|(_, entry)| entry.until <= now);
        for key in ended.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key);
        }
        self.soonest = self.entries.values().map(|entry| entry.until).min();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.kept.size();
            self.order.remove(&entry.used);
        }
    }
}
