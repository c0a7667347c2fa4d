//! A plugin that panics wherever it can, with what nobody may see in its message. For the tests.

use std::sync::Arc;

use async_trait::async_trait;
use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page,
    PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore, StoreConfig,
    StoreFactory,
};

keyhaul_plugin_sdk::export_plugin!(Panics);

/// For the tests that compile plugins of their own with it.
pub use keyhaul_plugin_sdk as sdk;

/// Makes stores that panic.
#[derive(Debug)]
pub struct Panics;

impl StoreFactory for Panics {
    fn schemes(&self) -> &[&'static str] {
        &["panics"]
    }

    fn summary(&self) -> &'static str {
        "panics"
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        assert!(config.name != "at-open", "hunter2");
        Ok(Arc::new(Store(Descriptor::new(
            "panics", "panics", "panics:",
        ))))
    }
}

#[derive(Debug)]
struct Store(Descriptor);

#[async_trait]
impl SecretStore for Store {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(Capability::all(), 1024))
    }

    async fn get(&self, path: &SecretPath, _: &GetOptions) -> Result<Secret> {
        assert!(path.as_str() == "fine", "hunter2");
        Ok(Secret::new(
            SecretBytes::copy_from(b"fine"),
            Metadata::default(),
        ))
    }

    async fn get_many(&self, _: &[SecretPath], _: &GetOptions) -> Vec<Result<Secret>> {
        panic!("hunter2")
    }

    async fn stat(&self, _: &SecretPath, _: &GetOptions) -> Result<Metadata> {
        std::panic::panic_any(Worse)
    }

    async fn put(&self, _: &SecretPath, _: &SecretBytes, _: &PutOptions) -> Result<Metadata> {
        panic!("hunter2")
    }

    async fn generate(&self, _: &SecretPath, _: &Recipe, _: &PutOptions) -> Result<Metadata> {
        panic!("hunter2")
    }

    async fn delete(&self, _: &SecretPath, _: &DeleteOptions) -> Result<()> {
        panic!("hunter2")
    }

    async fn list(&self, _: &SecretPath, _: &ListOptions) -> Result<Page> {
        panic!("hunter2")
    }

    async fn probe(&self) -> Result<()> {
        panic!("hunter2")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        panic!("hunter2")
    }
}

/// A panic whose payload panics when it is dropped.
struct Worse;

impl Drop for Worse {
    fn drop(&mut self) {
        panic!("hunter2")
    }
}
