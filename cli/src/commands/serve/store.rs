//! What the service gives out: all that its policy serves, and after a reload all that the new one
//! does.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use keyhaul_core::policy::Location;
use keyhaul_core::resolver::Routed;
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions, Metadata,
    Page, Policy, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore,
};
use keyhaul_plugin_host::PluginFactory;
use keyhaul_remote::server::Settings;

use crate::failure::Outcome;
use crate::session;

/// The store behind the service. What has begun is finished by the policy it began with.
#[derive(Debug)]
pub struct Served {
    descriptor: Descriptor,
    /// What libraries are loaded, by whatever policy: they stay.
    plugins: PluginFactory,
    now: RwLock<Now>,
}

#[derive(Clone, Debug)]
struct Now {
    policy: Policy,
    store: Arc<dyn SecretStore>,
}

impl Served {
    /// By the policy that the settings name. Opens no store.
    pub fn by(settings: &Settings) -> Outcome<Self> {
        let plugins = PluginFactory::default();
        let now = Now::by(policy(settings)?, plugins.clone())?;
        Ok(Self {
            descriptor: now.store.descriptor().clone(),
            plugins,
            now: RwLock::new(now),
        })
    }

    /// The policy as it is now in its file, checked; none where nothing in it has changed, so that
    /// open stores stay open.
    pub fn changed(&self, settings: &Settings) -> Outcome<Option<impl FnOnce() + '_>> {
        let policy = policy(settings)?;
        if self.now().policy == policy {
            return Ok(None);
        }
        let new = Now::by(policy, self.plugins.renewed())?;
        Ok(Some(move || {
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
        }))
    }

    /// Whether a library is being loaded, which may never end.
    pub fn is_loading(&self) -> bool {
        self.plugins.is_loading()
    }

    fn now(&self) -> Now {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }

    fn store(&self) -> Arc<dyn SecretStore> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        now.store.clone()
    }
}

impl Now {
    fn by(policy: Policy, plugins: PluginFactory) -> Outcome<Self> {
        policy.keeps_scopes_apart()?;
        let resolver = session::resolver_with(policy.clone(), plugins)?;
        let store = Arc::new(Routed::new(Arc::new(resolver)));
        Ok(Self { policy, store })
    }
}

fn policy(settings: &Settings) -> Outcome<Policy> {
    let Some(path) = settings.policy.as_deref().map(Path::to_path_buf) else {
        // Not a user's own, and not the embedded one: a service says what it serves.
        let rule = "the configuration names no `policy`";
        let error = Error::new(ErrorKind::InvalidConfig, rule);
        let advice = "add policy = \"keyhaul.toml\": the stores and routes it serves";
        return Err(error.with_advice(advice).into());
    };
    Ok(Policy::load(&Location::File(path))?)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for Served {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.store().capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.store().get(path, options).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        self.store().get_many(paths, options).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.store().stat(path, options).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.store().put(path, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.store().generate(path, recipe, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.store().delete(path, options).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.store().list(prefix, options).await
    }

    async fn probe(&self) -> Result<()> {
        self.store().probe().await
    }
}
