//! The contract, over the engine that is mounted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page,
    PutOptions, Recipe, Request, Result, Secret, SecretBytes, SecretPath, SecretStore, StoreConfig,
};

use crate::auth::{Identity, Method};
use crate::config::{self, Config};
use crate::environment::Environment;
use crate::http::Http;
use crate::kv::Kv;
use crate::lease::Leased;
use crate::wire::Wire;

/// How many values are asked for at the same time, on one connection where the server speaks HTTP/2:
/// a hundred in one round trip. Beyond 16, a server on the same machine gets no faster; one further
/// away does.
pub(crate) const AT_ONCE: u32 = 100;

/// A store in Vault or OpenBao.
pub struct VaultStore {
    descriptor: Descriptor,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Kv(Box<Kv>),
    Leased(Box<Leased>),
}

impl VaultStore {
    /// Opens a store. Does no I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option or variable, and the rule.
    pub fn open(store: &StoreConfig) -> Result<Self> {
        let config = Config::new(store)?;
        let environment = Environment::process();
        let settings = config.settings(store, &environment)?;
        let location = format!("{}/{}", settings.address, config.mount);
        let method = Method::of(store)?;
        let http = Arc::new(Http::new(settings));
        let identity = Identity::new(Arc::clone(&http), method, environment);
        let wire = Wire::new(http, identity);
        let engine = match config.engine {
            config::Engine::Kv => Engine::Kv(Box::new(Kv::new(wire, &config))),
            config::Engine::Leased => Engine::Leased(Box::new(Leased::new(wire, &config))),
        };
        let descriptor = Descriptor::new(&store.name, store.url.scheme(), location);
        Ok(Self { descriptor, engine })
    }
}

impl fmt::Debug for VaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultStore({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for VaultStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        match &self.engine {
            Engine::Kv(kv) => kv.capabilities(&Request::default()).await,
            Engine::Leased(leased) => Ok(leased.capabilities()),
        }
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        match &self.engine {
            Engine::Kv(kv) => kv.get(path, options).await,
            Engine::Leased(leased) => leased.get(path, options).await,
        }
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        match &self.engine {
            Engine::Kv(kv) => {
                let asked: Vec<_> = paths.iter().map(|path| kv.get(path, options)).collect();
                stream::iter(asked)
                    .buffered(AT_ONCE as usize)
                    .collect()
                    .await
            }
            Engine::Leased(leased) => leased.get_many(paths, options).await,
        }
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        match &self.engine {
            Engine::Kv(kv) => kv.stat(path, options).await,
            Engine::Leased(leased) => leased.stat(path, options).await,
        }
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        match &self.engine {
            Engine::Kv(kv) => kv.put(path, value, options).await,
            Engine::Leased(leased) => Err(leased.refuse(Capability::WRITE)),
        }
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        match &self.engine {
            Engine::Kv(kv) => kv.generate(path, recipe, options).await,
            Engine::Leased(leased) => Err(leased.refuse(Capability::GENERATE)),
        }
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        match &self.engine {
            Engine::Kv(kv) => kv.delete(path, options).await,
            Engine::Leased(leased) => Err(leased.refuse(Capability::DELETE)),
        }
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        match &self.engine {
            Engine::Kv(kv) => kv.list(prefix, options).await,
            Engine::Leased(leased) => Err(leased.refuse(Capability::LIST)),
        }
    }

    async fn probe(&self) -> Result<()> {
        match &self.engine {
            Engine::Kv(kv) => kv.probe().await,
            Engine::Leased(leased) => leased.probe().await,
        }
    }
}
