//! A store that a plugin serves.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use keyhaul_core::registry::Options;
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page, PutOptions,
    Recipe, Request, Result, Secret, SecretBytes, SecretPath, SecretStore, SecretStoreExt as _,
    wiping_stack,
};

use crate::calls::Caller;
use crate::instance::Instance;
use crate::lanes::LANES;
use crate::log;
use crate::plugin::Plugin;
use crate::waiting::Waiting;

/// A store of a plugin. The library is loaded, and the store opened, by the first request.
pub struct PluginStore {
    descriptor: Descriptor,
    inner: Arc<Inner>,
}

struct Inner {
    plugin: Arc<Plugin>,
    name: Arc<str>,
    options: Options,
    place: String,
    open: OnceLock<Arc<Instance>>,
    opening: Mutex<()>,
}

impl PluginStore {
    pub(crate) fn new(
        descriptor: Descriptor,
        plugin: Arc<Plugin>,
        options: Options,
        place: String,
    ) -> Self {
        let inner = Inner {
            plugin,
            name: descriptor.name.as_str().into(),
            options,
            place,
            open: OnceLock::new(),
            opening: Mutex::default(),
        };
        Self {
            descriptor,
            inner: Arc::new(inner),
        }
    }

    /// Does `work` on one of the plugin's threads, with the store open.
    async fn call<T: Send + 'static>(
        &self,
        request: &Request,
        work: impl FnOnce(&Caller<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (inner, request) = (self.inner.clone(), request.clone());
        let lanes = &self.inner.plugin.lanes;
        lanes
            .run(request.deadline, move |waiting| {
                on_a_thread(&inner.name, || {
                    let instance = inner.instance(&request, waiting)?;
                    work(&Caller {
                        instance: &instance,
                        request: &request,
                        waiting,
                    })
                })
            })
            .await
    }
}

impl Inner {
    /// The open store. Who comes first opens it.
    fn instance(&self, request: &Request, waiting: &Waiting) -> Result<Arc<Instance>> {
        if let Some(open) = self.open.get() {
            return Ok(open.clone());
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever had it may have kept it long.
        waiting.check()?;
        if let Some(open) = self.open.get() {
            return Ok(open.clone());
        }
        let opened = self.plugin.library().and_then(|library| {
            Instance::open(library, &self.name, &self.options, request, waiting)
        });
        let placed = |error| self.options.placed_by_words(error).with_place(&self.place);
        let opened = opened.map_err(placed)?;
        Ok(self.open.get_or_init(|| Arc::new(opened)).clone())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing may block, and whoever drops a store may not: where no thread can be had, ever,
        // it stays open.
        if let Some(open) = self.open.take().map(ManuallyDrop::new) {
            let name = self.name.clone();
            self.plugin.lanes.later(move || {
                on_a_thread(&name, || drop(ManuallyDrop::into_inner(open)));
            });
        }
    }
}

/// Does `work` that calls a plugin for this store, on one of the plugin's threads.
fn on_a_thread<T>(store: &Arc<str>, work: impl FnOnce() -> T) -> T {
    // What a plugin leaves on the stack is ours to wipe: it is our thread's.
    log::on_behalf_of(store, || wiping_stack(work))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for PluginStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.call(&Request::default(), |caller| caller.capabilities())
            .await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let (path, given) = (path.clone(), options.clone());
        self.call(&options.request, move |caller| caller.get(&path, &given))
            .await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let (asked, given) = (paths.to_vec(), options.clone());
        let together = self.call(&options.request, move |caller| {
            // The root has an answer of its own.
            if !caller.takes_many() || asked.iter().any(SecretPath::is_root) {
                return Ok(None);
            }
            caller.get_many(&asked, &given).map(Some)
        });
        match together.await {
            Ok(Some(answers)) => answers,
            Ok(None) => self.get_each(paths, options, LANES).await,
            Err(error) => paths.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let (path, given) = (path.clone(), options.clone());
        self.call(&options.request, move |caller| caller.stat(&path, &given))
            .await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let (path, given) = (path.clone(), options.clone());
        // The call can outlive whoever owns the value.
        let value = SecretBytes::copy_from(value.expose());
        self.call(&options.request, move |caller| {
            caller.put(&path, &value, &given)
        })
        .await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let (path, recipe, given) = (path.clone(), *recipe, options.clone());
        self.call(&options.request, move |caller| {
            caller.generate(&path, &recipe, &given)
        })
        .await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let (path, given) = (path.clone(), options.clone());
        self.call(&options.request, move |caller| caller.delete(&path, &given))
            .await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let (prefix, given) = (prefix.clone(), options.clone());
        self.call(&options.request, move |caller| caller.list(&prefix, &given))
            .await
    }

    async fn probe(&self) -> Result<()> {
        self.call(&Request::default(), |caller| caller.probe())
            .await
    }
}

impl fmt::Debug for PluginStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PluginStore")
            .field(&self.descriptor.name)
            .finish()
    }
}
