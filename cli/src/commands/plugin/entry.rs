//! What is known of a plugin that a policy names.

use std::sync::Arc;
use std::time::Instant;

use keyhaul_core::{
    Error, ErrorKind, Request, Result, SecretStore, StoreConfig, StoreFactory as _, percent,
};
use keyhaul_plugin_host::{Digest, PluginFactory};
use keyhaul_plugin_process::ProcessFactory;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::kind::Kind;
use super::words::Words;

/// A store by a plugin.
#[derive(Clone, Deserialize, Serialize)]
pub struct Entry {
    pub store: String,
    pub place: String,
    pub kind: Kind,
    pub path: String,
    /// The digest of what was loaded; where nothing was, of what lies there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    pub pinned: bool,
    /// The digest that the policy wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub loads: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Words>,
}

impl Entry {
    /// The store, where it is a plugin's.
    pub fn new(config: &StoreConfig) -> Option<Self> {
        let kinds = [Kind::Library, Kind::Program];
        let mut kinds = kinds.into_iter();
        let kind = kinds.find(|kind| kind.scheme() == config.url.scheme())?;
        let path = percent::decoded(config.url.path()).unwrap_or_default();
        let pin = config.options.text("sha256").map(str::to_ascii_lowercase);
        let pin = pin.filter(|_| kind == Kind::Library);
        Some(Self {
            store: config.name.clone(),
            place: config.place.clone(),
            kind,
            sha256: None,
            path,
            pinned: pin.is_some(),
            pin,
            name: None,
            version: None,
            loads: false,
            capabilities: None,
            error: None,
        })
    }

    /// The same with the digest of what lies there.
    pub fn with_digest(mut self) -> Self {
        let digest = Digest::of(self.path.as_ref()).ok();
        self.sha256 = digest.map(|digest| digest.to_string());
        self
    }

    /// The same with all that is known of it once it is loaded or started, or why it is not.
    pub async fn looked_at(
        mut self,
        factory: &PluginFactory,
        config: &StoreConfig,
        until: Instant,
    ) -> Self {
        let looked = match timeout_at(until.into(), self.look(factory, config, until)).await {
            Ok(looked) => looked,
            Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer in time")),
        };
        self.loads = looked.is_ok();
        self.error = looked.err().map(|error| Words::from(&error));
        self
    }

    /// The same as one that does not load.
    pub fn broken(mut self, error: &Error) -> Self {
        self.loads = false;
        self.error = Some(error.into());
        self
    }

    async fn look(
        &mut self,
        factory: &PluginFactory,
        config: &StoreConfig,
        until: Instant,
    ) -> Result<()> {
        let store: Arc<dyn SecretStore> = match self.kind {
            Kind::Library => {
                let loaded = factory.load(config)?;
                self.sha256 = Some(loaded.digest.to_string());
                self.name = Some(loaded.name);
                self.version = Some(loaded.version);
                factory.open(config)?
            }
            Kind::Program => {
                let store = ProcessFactory.store(config)?;
                let said = store
                    .said(&Request::default().deadline(Some(until)))
                    .await?;
                self.name = Some(said.name);
                self.version = Some(said.version);
                Arc::new(store)
            }
        };
        self.capabilities = Some(store.capabilities().await?.can.names());
        Ok(())
    }
}
