//! The contract, over a token that blocks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutOptions, Recipe, Request, Result, Secret, SecretBytes, SecretPath,
    SecretStore, SecretStoreExt as _, StoreConfig, law, page, wiping_stack,
};
use tokio::sync::Semaphore;

use crate::MAX_VALUE;
use crate::caller::Caller;
use crate::config::{SCHEME, Settings};
use crate::error::Failure;
use crate::gate::Gates;
use crate::objects;
use crate::pin::Refusals;
use crate::token::{Desk, Token};

const READS: Capability = Capability::READ.union(Capability::LIST);
const WRITES: Capability = Capability::WRITE
    .union(Capability::DELETE)
    .union(Capability::GENERATE);

/// How long a request waits for a thread before the token counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store in a PKCS#11 token.
///
/// Needs a tokio runtime with its clock enabled. The token is asked on threads of its own, as many as
/// there are sessions: an abandoned request ends on its thread, with the old value or the new one,
/// and changes nothing that it has not begun to change.
pub(crate) struct Pkcs11Store {
    descriptor: Descriptor,
    token: Arc<Token>,
    threads: Arc<Semaphore>,
    sessions: usize,
}

impl Pkcs11Store {
    /// Opens a store. Loads nothing and asks nobody yet.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub(crate) fn open(config: &StoreConfig, gates: &Gates, refusals: &Refusals) -> Result<Self> {
        let settings = Settings::new(config)?;
        let sessions = settings.sessions as usize;
        Ok(Self {
            descriptor: Descriptor::new(&config.name, SCHEME, settings.location()),
            threads: Arc::new(Semaphore::new(sessions)),
            token: Arc::new(Token::new(gates.clone(), refusals.clone(), settings)),
            sessions,
        })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Token) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.threads).acquire_owned();
        let turn = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "all of the store's sessions are at work and none comes to its end",
            )
            .with_advice("see whether the token answers its own tools")
        })?;
        let token = Arc::clone(&self.token);
        let work = move || {
            // Held by the work itself, which can outlive the request.
            let _turn = turn;
            wiping_stack(|| work(&token))
        };
        let done = tokio::task::spawn_blocking(work).await;
        // What a panic said stays out: it could be anything.
        done.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "the token's thread ended early",
            ))
        })
    }

    /// Writes what `make` gives.
    async fn write(
        &self,
        path: &SecretPath,
        (wanted, request): (Capability, &Request),
        len: usize,
        make: impl Fn() -> Result<SecretBytes> + Send + 'static,
    ) -> Result<Metadata> {
        law::need(READS | WRITES, wanted)?;
        let path = path.clone();
        let (caller, waits) = Caller::of(request);
        self.on_thread(move |token| {
            token.with_alone(|desk| {
                writable(desk, wanted)?;
                law::not_root(&path)?;
                law::fits(len, MAX_VALUE)?;
                objects::write(desk, &path, &make()?, &caller)
            })
        })
        .await?;
        drop(waits);
        Ok(Metadata::default())
    }
}

impl fmt::Debug for Pkcs11Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Store({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for Pkcs11Store {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let read_only = self.on_thread(Token::is_read_only).await?;
        Ok(Capabilities::new(can(read_only), MAX_VALUE))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::need(READS, law::to_get(options))?;
        law::not_root(path)?;
        let path = path.clone();
        self.on_thread(move |token| {
            let value = token.with(|desk| objects::read(desk, &path))?;
            Ok(Secret::new(value, Metadata::default()))
        })
        .await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        self.get_each(paths, options, self.sessions).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        law::need(READS, law::to_get(options))?;
        law::not_root(path)?;
        let path = path.clone();
        self.on_thread(move |token| {
            if token.with(|desk| objects::exists(desk, &path))? {
                Ok(Metadata::default())
            } else {
                Err(objects::absent())
            }
        })
        .await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        // The thread can outlive the caller, so it owns a copy, in memory as well kept.
        let copy = SecretBytes::copy_from(value.expose());
        let make = move || Ok(SecretBytes::copy_from(copy.expose()));
        let wanted = (law::to_put(options), &options.request);
        self.write(path, wanted, value.len(), make).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let recipe = *recipe;
        let wanted = law::to_put(options) | Capability::GENERATE;
        let wanted = (wanted, &options.request);
        self.write(path, wanted, recipe.length(), move || recipe.make())
            .await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let wanted = law::to_delete(options);
        law::need(READS | WRITES, wanted)?;
        let path = path.clone();
        let (caller, waits) = Caller::of(&options.request);
        let done = self.on_thread(move |token| {
            token.with_alone(|desk| {
                writable(desk, wanted)?;
                law::not_root(&path)?;
                objects::delete(desk, &path, &caller)
            })
        });
        done.await?;
        drop(waits);
        Ok(())
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        page::check(options)?;
        let (prefix, options) = (prefix.clone(), options.clone());
        self.on_thread(move |token| {
            let paths = token.with(objects::paths)?;
            page::of(paths, &prefix, &options)
        })
        .await
    }

    async fn probe(&self) -> Result<()> {
        self.on_thread(|token| token.with(|_| Ok(()))).await
    }
}

const fn can(read_only: bool) -> Capability {
    if read_only {
        READS
    } else {
        READS.union(WRITES)
    }
}

/// The law of capabilities, as the token is now.
fn writable(desk: &Desk<'_>, wanted: Capability) -> Result<(), Failure> {
    Ok(law::need(can(desk.read_only), wanted)?)
}
