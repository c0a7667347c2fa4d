//! Answering again what was asked before.

mod kept;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant as Clock;

use self::kept::{Flight, Joined, Key, Outcome, State};
use crate::store::{
    Capabilities, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page, PutOptions,
    Secret, SecretStore,
};
use crate::{Error, ErrorKind, Recipe, Result, SecretBytes, SecretPath};

/// How much a [`Cache`] keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSettings {
    /// How long a value is given out again.
    pub ttl: Duration,
    /// How many values are kept. 256 by default.
    pub entries: usize,
    /// How many bytes they have together, with their labels. 1 MiB by default.
    pub bytes: usize,
}

impl CacheSettings {
    /// Values for `ttl`, with the default bounds.
    pub const fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            entries: 256,
            bytes: 1024 * 1024,
        }
    }

    /// With other bounds.
    #[must_use]
    pub const fn bounded(mut self, entries: usize, bytes: usize) -> Self {
        self.entries = entries;
        self.bytes = bytes;
        self
    }
}

/// Keeps values that were read for a while, in memory, and gives them out without asking.
///
/// - Bounded in entries and in bytes; what was not asked for longest goes first. A value larger
///   than the bound is not kept.
/// - Never longer than the store itself would give a value out: its expiry, its lease.
/// - **Failures are not kept.** Metadata, listings and capabilities are always asked for.
/// - One flight for each key: who asks for what another is just fetching waits for that answer, no
///   longer than its own deadline. Where the one who fetches goes away, the next one fetches.
/// - A write or delete through it forgets the secret, before and after. One that goes past it is
///   seen when the time is over: so is a right that is taken away.
///
/// Right: outside the retries and inside the audit,
/// `Audit::new(sink).over(Cache::over(settings, Retry::new(3).over(store)))`: every read is
/// recorded, from wherever the value came. Wrong: outside the audit, where values are given out of
/// which no record tells; or around a [`Context`](super::Context) alone, where each caller's retry
/// would be a flight of its own.
pub struct Cache {
    settings: CacheSettings,
    store: Arc<dyn SecretStore>,
    state: Mutex<State>,
}

impl Cache {
    /// The layer around `store`.
    pub fn over(settings: CacheSettings, store: Arc<dyn SecretStore>) -> Arc<dyn SecretStore> {
        Arc::new(Self {
            settings,
            store,
            state: Mutex::default(),
        })
    }

    /// Fetches as the one who does so for this key, and tells the others.
    async fn lead(
        &self,
        path: &SecretPath,
        options: &GetOptions,
        lead: Lead<'_>,
    ) -> Result<Secret> {
        let answer = self.store.get(path, options).await;
        lead.finish(answer, options)
    }

    /// What another fetches, or the right to fetch it where that one went away.
    async fn follow<'c>(
        &'c self,
        key: &Key,
        flight: Flight,
        options: &GetOptions,
    ) -> Result<Followed<'c>> {
        let wait = flight.clone().lock_owned();
        let guard = match options.request.deadline {
            None => wait.await,
            Some(deadline) => tokio::time::timeout_at(Clock::from_std(deadline), wait)
                .await
                .map_err(|_| {
                    Error::new(
                        ErrorKind::Timeout,
                        "the deadline passed while another caller's answer was awaited",
                    )
                    .with_store(&self.descriptor().name)
                    .with_path(&key.path)
                })?,
        };
        match guard.as_ref() {
            Some(Ok(kept)) => Ok(Followed::Answer(Ok(kept.secret()))),
            Some(Err(error)) => Ok(Followed::Answer(Err(error.duplicate()))),
            None => Ok(Followed::Lead(self.led(key.clone(), flight, guard))),
        }
    }

    fn led(&self, key: Key, flight: Flight, guard: OwnedMutexGuard<Outcome>) -> Lead<'_> {
        Lead {
            cache: self,
            epoch: self.state().epoch(),
            key,
            flight,
            guard: Some(guard),
        }
    }

    fn join(&self, key: &Key) -> Next<'_> {
        let joined = self.state().join(key, Clock::now());
        match joined {
            Joined::Kept(kept) => Next::Answer(kept.secret()),
            Joined::Leads(flight, guard) => Next::Lead(self.led(key.clone(), flight, guard)),
            Joined::Follows(flight) => Next::Follow(flight),
        }
    }

    /// Forgets a path now, and again when what is returned is dropped.
    fn forgetting<'c>(&'c self, path: &'c SecretPath) -> Forgetting<'c> {
        self.state().forget(path);
        Forgetting { cache: self, path }
    }

    /// The state, even where another thread panicked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for Cache {
    fn descriptor(&self) -> &Descriptor {
        self.store.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.store.capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let key = Key::new(path, options);
        match self.join(&key) {
            Next::Answer(secret) => Ok(secret),
            Next::Lead(lead) => self.lead(path, options, lead).await,
            Next::Follow(flight) => match self.follow(&key, flight, options).await? {
                Followed::Answer(answer) => answer,
                Followed::Lead(lead) => self.lead(path, options, lead).await,
            },
        }
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let mut answers: Vec<Option<Result<Secret>>> = paths.iter().map(|_| None).collect();
        let (mut leads, mut wanted, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (index, path) in paths.iter().enumerate() {
            match self.join(&Key::new(path, options)) {
                Next::Answer(secret) => answers[index] = Some(Ok(secret)),
                Next::Lead(lead) => {
                    leads.push(lead);
                    wanted.push(path.clone());
                    places.push(index);
                }
                // Also where the path is one that is led a few lines above.
                Next::Follow(_) => {}
            }
        }
        if !wanted.is_empty() {
            let fetched = self.store.get_many(&wanted, options).await;
            for ((place, lead), answer) in places.into_iter().zip(leads).zip(fetched) {
                answers[place] = Some(lead.finish(answer, options));
            }
        }
        // Only now: two who wait for each other's before they fetch their own would wait for ever.
        // Each path once, so that a failure is not asked for again by each repetition; and all of
        // them at once, for where their leader goes away, they are fetched here.
        let first = |index: usize| paths.iter().position(|path| *path == paths[index]);
        let missing = (0..paths.len()).filter(|index| answers[*index].is_none());
        let followed = missing.filter(|index| first(*index) == Some(*index));
        let followed = followed.map(|index| async move {
            let answer = self.get(&paths[index], options).await;
            (index, answer)
        });
        for (index, answer) in join_all(followed).await {
            answers[index] = Some(answer);
        }
        for index in 0..paths.len() {
            if answers[index].is_none() {
                answers[index] = first(index).and_then(|first| copy_of(answers[first].as_ref()?));
            }
        }
        answers.into_iter().flatten().collect()
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.store.stat(path, options).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let _forgetting = self.forgetting(path);
        self.store.put(path, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let _forgetting = self.forgetting(path);
        self.store.generate(path, recipe, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let _forgetting = self.forgetting(path);
        self.store.delete(path, options).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.store.list(prefix, options).await
    }

    async fn probe(&self) -> Result<()> {
        self.store.probe().await
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({:?}) over {:?}", self.settings, self.store)
    }
}

fn copy_of(answer: &Result<Secret>) -> Option<Result<Secret>> {
    Some(match answer {
        Ok(secret) => Ok(Secret::new(
            SecretBytes::copy_from(secret.value.expose()),
            secret.metadata.clone(),
        )),
        Err(error) => Err(error.duplicate()),
    })
}

/// What comes of asking for a key.
enum Next<'c> {
    Answer(Secret),
    Lead(Lead<'c>),
    Follow(Flight),
}

enum Followed<'c> {
    Answer(Result<Secret>),
    Lead(Lead<'c>),
}

/// The right and duty to fetch a key. Dropped without an answer, it passes on.
struct Lead<'c> {
    cache: &'c Cache,
    epoch: u64,
    key: Key,
    flight: Flight,
    guard: Option<OwnedMutexGuard<Outcome>>,
}

impl Lead<'_> {
    /// Keeps the answer for later, and tells it to those who wait.
    fn finish(mut self, answer: Result<Secret>, options: &GetOptions) -> Result<Secret> {
        // The lock is held until the flight has gone from the list: see `drop`.
        let Some(guard) = self.guard.as_mut() else {
            return answer;
        };
        let cache = self.cache;
        match answer {
            Ok(secret) => {
                let kept = kept::Kept::copy_of(&secret);
                let mut state = cache.state();
                state.keep(&self.key, &kept, self.epoch, &cache.settings, Clock::now());
                **guard = Some(Ok(kept));
                Ok(secret)
            }
            Err(error) => {
                // A caller's own deadline is nobody else's.
                let deadline = options.request.deadline;
                if deadline.is_none_or(|deadline| Clock::now().into_std() < deadline) {
                    **guard = Some(Err(error.duplicate()));
                }
                Err(error)
            }
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // The flight goes from the list first: who comes now starts another. Those who wait have
        // it already, and the first of them gets the lock.
        let answered = self.guard.as_ref().is_none_or(|guard| guard.is_some());
        self.cache.state().land(&self.key, &self.flight, answered);
    }
}

/// Forgets a path when it is dropped: with the answer of a write, or without one.
struct Forgetting<'c> {
    cache: &'c Cache,
    path: &'c SecretPath,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.cache.state().forget(self.path);
    }
}
