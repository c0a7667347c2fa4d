//! The contract, over a KMIP server.

use std::fmt;

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page,
    PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore, SecretStoreExt as _,
    StoreConfig, law, page,
};

use crate::MAX_VALUE;
use crate::config::{SCHEME, Settings};
use crate::objects::{Objects, absent};

const CAN: Capability = Capability::READ
    .union(Capability::WRITE)
    .union(Capability::DELETE)
    .union(Capability::LIST)
    .union(Capability::GENERATE);

/// A store on a KMIP server. Needs a tokio runtime with I/O and its clock enabled.
pub(crate) struct KmipStore {
    descriptor: Descriptor,
    objects: Objects,
    connections: usize,
}

impl KmipStore {
    /// Opens a store. Reads nothing and asks nobody yet.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub(crate) fn open(config: &StoreConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        let location = format!("{SCHEME}://{}", settings.address);
        Ok(Self {
            descriptor: Descriptor::new(&config.name, SCHEME, location),
            objects: Objects::new(&settings),
            connections: settings.connections as usize,
        })
    }
}

impl fmt::Debug for KmipStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmipStore({})", self.descriptor)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for KmipStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(CAN, MAX_VALUE))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        let value = self.objects.read(path, &options.request).await?;
        Ok(Secret::new(value, Metadata::default()))
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        self.get_each(paths, options, self.connections).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        if self.objects.exists(path, &options.request).await? {
            Ok(Metadata::default())
        } else {
            Err(absent())
        }
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::not_root(path)?;
        law::fits(value.len(), MAX_VALUE)?;
        self.objects.write(path, value, &options.request).await?;
        Ok(Metadata::default())
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options) | Capability::GENERATE)?;
        law::not_root(path)?;
        law::fits(recipe.length(), MAX_VALUE)?;
        let value = recipe.make()?;
        self.objects.write(path, &value, &options.request).await?;
        Ok(Metadata::default())
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        law::need(CAN, law::to_delete(options))?;
        law::not_root(path)?;
        self.objects.delete(path, &options.request).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        page::check(options)?;
        let paths = self.objects.paths(&options.request).await?;
        page::of(paths, prefix, options)
    }

    async fn probe(&self) -> Result<()> {
        self.objects.probe().await
    }
}
