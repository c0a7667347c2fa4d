//! The contract, over a Secret Service.

mod bus;
mod error;
mod items;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page,
    PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore, StoreConfig, law,
    page, wiping_stack,
};
use secret_service::SecretService;

use crate::config::{SECRET_SERVICE, Service};
use bus::Bus;
use error::Failure;
use items::Items;

/// A store in a collection of the desktop's keyring.
///
/// Creating is not among what it can do: the service makes a second item beside the first where two
/// programs create at once, and no request of its protocol says otherwise.
pub struct SecretServiceStore {
    descriptor: Descriptor,
    settings: Service,
    bus: Bus,
}

const CAN: Capability = Capability::READ
    .union(Capability::WRITE)
    .union(Capability::DELETE)
    .union(Capability::LIST)
    .union(Capability::GENERATE);

/// The longest value, in bytes. The service itself names no limit, and rewrites its whole file for
/// each item.
const MAX_VALUE: usize = 64 * 1024;

/// How long a whole operation may take, whatever the layers say: some requests, or a person.
const OPERATION: Duration = Duration::from_secs(9);
const PERSON: Duration = Duration::from_secs(120);

/// How many requests are under way at once.
const AT_ONCE: usize = 16;

/// How often an operation begins again because what it had found was gone at its next step.
const AGAIN: usize = 4;

impl SecretServiceStore {
    pub(crate) fn new(config: &StoreConfig, settings: Service) -> Self {
        let place = settings.collection.as_deref();
        let place = place.map(|name| format!("/{name}")).unwrap_or_default();
        let location = format!("{SECRET_SERVICE}:{place}");
        let bus = Bus::new(settings.bus.clone(), settings.encrypted);
        Self {
            descriptor: Descriptor::new(&config.name, SECRET_SERVICE, location),
            settings,
            bus,
        }
    }

    /// Does `work` with the service, within the limit, and again where the service has been replaced
    /// or an item has gone between two steps.
    async fn with<'a, T>(
        &'a self,
        work: impl Fn(Arc<SecretService<'static>>, usize) -> BoxFuture<'a, Result<T, Failure>>
        + Send
        + Sync,
    ) -> Result<T> {
        let limit = if self.settings.prompt {
            PERSON
        } else {
            OPERATION
        };
        let trying = async {
            let mut tries = 0;
            loop {
                let service = self.bus.service().await?;
                let failure = match wiping(work(Arc::clone(&service), tries)).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => failure,
                };
                if failure.is_stale() {
                    self.bus.forget(&service).await;
                }
                tries += 1;
                if !failure.is_moved() || tries == AGAIN {
                    return Err(failure);
                }
            }
        };
        match tokio::time::timeout(limit, trying).await {
            Ok(done) => done.map_err(Failure::into_error),
            Err(_) => Err(error::no_answer()),
        }
    }

    async fn write(&self, path: &SecretPath, value: &SecretBytes) -> Result<Metadata> {
        law::not_root(path)?;
        self.with(move |service, tries| {
            Box::pin(async move {
                let items = Items::open(&service, &self.settings, tries).await?;
                items.put(path, value).await
            })
        })
        .await
    }
}

/// Overwrites what each step of a future leaves on the stack: the session's cipher puts the blocks of
/// values there, in the library's frames.
fn wiping<T>(mut work: BoxFuture<'_, T>) -> impl Future<Output = T> {
    poll_fn(move |context| wiping_stack(|| work.as_mut().poll(context)))
}

impl fmt::Debug for SecretServiceStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretServiceStore({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for SecretServiceStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(CAN, MAX_VALUE))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        self.with(move |service, tries| {
            Box::pin(async move {
                let items = Items::open(&service, &self.settings, tries).await?;
                items.get(path).await
            })
        })
        .await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        // Each on its own: they share the connection and the session, and one's failure is one's own.
        let each: Vec<_> = paths.iter().map(|path| self.get(path, options)).collect();
        stream::iter(each).buffered(AT_ONCE).collect().await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        self.with(move |service, tries| {
            Box::pin(async move {
                let items = Items::open(&service, &self.settings, tries).await?;
                items.stat(path).await
            })
        })
        .await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(value.len(), MAX_VALUE)?;
        self.write(path, value).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(recipe.length(), MAX_VALUE)?;
        self.write(path, &recipe.make()?).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        law::need(CAN, law::to_delete(options))?;
        law::not_root(path)?;
        self.with(move |service, tries| {
            Box::pin(async move {
                let items = Items::open(&service, &self.settings, tries).await?;
                items.delete(path).await
            })
        })
        .await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        page::check(options)?;
        let paths = self
            .with(move |service, tries| {
                Box::pin(async move {
                    let items = Items::open(&service, &self.settings, tries).await?;
                    items.paths().await
                })
            })
            .await?;
        page::of(paths, prefix, options)
    }

    async fn probe(&self) -> Result<()> {
        self.with(move |service, tries| {
            Box::pin(async move {
                let items = Items::open(&service, &self.settings, tries).await?;
                items.unlock().await.map(|_| ())
            })
        })
        .await
    }
}
