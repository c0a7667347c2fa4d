//! A store that fails on purpose, for tests of layers and of whatever stands above a store.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, IdempotencyId,
    ListOptions, Metadata, Operation, Page, PutMode, PutOptions, Recipe, Request, Result, Secret,
    SecretBytes, SecretPath, SecretStore,
};

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing: it goes through.
    None,
    /// It goes through after this long.
    Delay(Duration),
    /// It never comes back, and never reaches the store.
    Hang,
    /// It fails so, and never reaches the store.
    Fail(ErrorKind),
    /// It fails so, asking to be left alone for this long.
    FailFor(ErrorKind, Duration),
    /// It reaches the store and has its effect; the answer is lost and this comes instead.
    LoseAnswer(ErrorKind),
    /// For `get_many`: the answers at these places fail so, the others go through.
    Half(Vec<usize>, ErrorKind),
}

/// What the store was asked, in the caller's own words.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What to do.
    pub operation: Operation,
    /// To how many paths.
    pub paths: usize,
    /// On whose behalf.
    pub request: Request,
    /// The idempotency id of a write.
    pub idempotency: Option<IdempotencyId>,
}

/// A store around another, which has a fault for each request, in order, and none after the last.
/// Asking for capabilities takes no fault.
pub struct FaultStore {
    inner: Arc<dyn SecretStore>,
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Seen>>,
    dropped: AtomicUsize,
    /// Whether an `Overwrite` has no fault.
    spares_overwrites: bool,
}

impl FaultStore {
    /// `inner`, with these faults to come.
    pub fn new(inner: Arc<dyn SecretStore>, faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        Arc::new(Self::with(inner, faults))
    }

    /// The same, save that an `Overwrite` takes no fault: nobody repeats one, so that whoever asks
    /// for one would see it, as in the trials of what a store cannot do.
    pub fn sparing_overwrites(
        inner: Arc<dyn SecretStore>,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Arc<Self> {
        Arc::new(Self {
            spares_overwrites: true,
            ..Self::with(inner, faults)
        })
    }

    fn with(inner: Arc<dyn SecretStore>, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            inner,
            faults: Mutex::new(faults.into_iter().collect()),
            seen: Mutex::default(),
            dropped: AtomicUsize::new(0),
            spares_overwrites: false,
        }
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// How many requests were dropped before they were answered.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Notes a request and takes its fault.
    fn take(&self, operation: Operation, paths: usize, request: &Request) -> Fault {
        self.note(operation, paths, request, None);
        self.next()
    }

    /// The same, of a write.
    fn take_write(&self, operation: Operation, options: &PutOptions) -> Fault {
        self.note(operation, 1, &options.request, options.idempotency);
        match options.mode {
            PutMode::Overwrite if self.spares_overwrites => Fault::None,
            _ => self.next(),
        }
    }

    fn note(
        &self,
        operation: Operation,
        paths: usize,
        request: &Request,
        idempotency: Option<IdempotencyId>,
    ) {
        lock(&self.seen).push(Seen {
            operation,
            paths,
            request: request.clone(),
            idempotency,
        });
    }

    fn next(&self) -> Fault {
        lock(&self.faults).pop_front().unwrap_or(Fault::None)
    }

    /// Lets a request through, or not.
    async fn suffer<T>(&self, fault: Fault, inner: impl Future<Output = Result<T>>) -> Result<T> {
        let waiting = Waiting(&self.dropped);
        let answer = match fault {
            Fault::None | Fault::Half(..) => inner.await,
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                inner.await
            }
            Fault::Hang => std::future::pending().await,
            Fault::Fail(kind) => Err(fault_of(kind)),
            Fault::FailFor(kind, wait) => Err(fault_of(kind).with_retry_after(wait)),
            Fault::LoseAnswer(kind) => inner.await.and(Err(fault_of(kind))),
        };
        std::mem::forget(waiting);
        answer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for FaultStore {
    fn descriptor(&self) -> &Descriptor {
        self.inner.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let fault = self.take(Operation::Get, 1, &options.request);
        self.suffer(fault, self.inner.get(path, options)).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let fault = self.take(Operation::Get, paths.len(), &options.request);
        let half = match &fault {
            Fault::Half(places, kind) => places.iter().map(|place| (*place, *kind)).collect(),
            _ => Vec::new(),
        };
        let whole = async { Ok(self.inner.get_many(paths, options).await) };
        match self.suffer(fault, whole).await {
            Ok(mut answers) => {
                for (place, kind) in half {
                    answers[place] = Err(fault_of(kind));
                }
                answers
            }
            Err(error) => paths.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let fault = self.take(Operation::Stat, 1, &options.request);
        self.suffer(fault, self.inner.stat(path, options)).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let fault = self.take_write(Operation::Put, options);
        self.suffer(fault, self.inner.put(path, value, options))
            .await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let fault = self.take_write(Operation::Generate, options);
        self.suffer(fault, self.inner.generate(path, recipe, options))
            .await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let fault = self.take(Operation::Delete, 1, &options.request);
        self.suffer(fault, self.inner.delete(path, options)).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let fault = self.take(Operation::List, 1, &options.request);
        self.suffer(fault, self.inner.list(prefix, options)).await
    }

    async fn probe(&self) -> Result<()> {
        let fault = self.take(Operation::Probe, 0, &Request::default());
        self.suffer(fault, self.inner.probe()).await
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultStore").field(&self.inner).finish()
    }
}

/// Counts itself when it is dropped: a request that was not answered.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn fault_of(kind: ErrorKind) -> Error {
    Error::new(kind, "a fault made on purpose")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
