//! What all layers have in common: forwarding, written once.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::store::{
    Capabilities, DeleteOptions, Descriptor, GetOptions, IdempotencyId, ListOptions, Metadata,
    Page, PutMode, PutOptions, Request, Secret, SecretStore,
};
use crate::{Error, ErrorKind, Operation, Recipe, Result, SecretBytes, SecretPath};

/// What a layer does around each request to the store below it.
///
/// A layer that treats all requests alike says so in [`around`](Self::around) alone. One that
/// answers without asking, as a cache does, implements [`SecretStore`] itself.
pub trait Layer: fmt::Debug + Sized + Send + Sync + 'static {
    /// The request as the store below shall see it, where it shall see another.
    ///
    /// # Errors
    /// The caller gets the error, and the store below is not asked.
    fn request(&self, _request: &Request) -> Result<Option<Request>> {
        Ok(None)
    }

    /// The idempotency id that a write gets, where it shall get one.
    ///
    /// # Errors
    /// The caller gets the error, and the store below is not asked.
    fn identify(&self, _options: &PutOptions) -> Result<Option<IdempotencyId>> {
        Ok(None)
    }

    /// Makes `attempt`, which asks the store below, not at all, once or often.
    fn around<'a, T, F>(
        &'a self,
        call: Call<'a>,
        attempt: F,
    ) -> impl Future<Output = Result<T>> + Send + 'a
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a;

    /// As [`around`](Self::around), for `get_many`, whose answers each have an outcome of their
    /// own. By default the whole is one attempt, and its error the error of each.
    fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> impl Future<Output = Vec<Result<Secret>>> + Send + 'a {
        async move {
            let whole = move || -> BoxFuture<'a, Result<Vec<Result<Secret>>>> {
                Box::pin(async move { Ok(call.store.get_many(paths, options).await) })
            };
            match self.around(call, whole).await {
                Ok(answers) => answers,
                Err(error) => all_fail(paths, &error),
            }
        }
    }

    /// The layer around `store`.
    fn over(self, store: Arc<dyn SecretStore>) -> Arc<dyn SecretStore> {
        Arc::new(Layered { layer: self, store })
    }
}

/// What a layer knows of a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The store below.
    pub store: &'a dyn SecretStore,
    /// What it is asked to do. `Get` for `get_many` too.
    pub operation: Operation,
    /// To which secret or below which prefix; none where there is none or there are many.
    pub path: Option<&'a SecretPath>,
    /// On whose behalf and until when, as the store below sees it.
    pub request: &'a Request,
    /// What may be there already, for a write.
    pub mode: Option<&'a PutMode>,
}

impl<'a> Call<'a> {
    /// The same request, to this one of many paths.
    #[must_use]
    pub fn at(self, path: &'a SecretPath) -> Self {
        Self {
            path: Some(path),
            ..self
        }
    }

    /// `error` with operation, path and store, where it does not name them yet.
    pub fn place(&self, error: Error) -> Error {
        let store = &self.store.descriptor().name;
        let error = error.with_operation(self.operation).with_store(store);
        match self.path {
            Some(path) if !path.is_root() => error.with_path(path),
            _ => error,
        }
    }

    /// A layer's own error, with the place.
    pub fn error(&self, kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        self.place(Error::new(kind, message))
    }
}

/// A store with a layer around it: [`Layer::over`].
pub struct Layered<L> {
    layer: L,
    store: Arc<dyn SecretStore>,
}

impl<L: Layer> Layered<L> {
    fn call<'a>(&'a self, operation: Operation, request: &'a Request) -> Call<'a> {
        Call {
            store: &*self.store,
            operation,
            path: None,
            request,
            mode: None,
        }
    }

    /// The options with the request that the layer wants. They are copied only where it does.
    fn prepared<'o, O: Clone>(
        &self,
        options: &'o O,
        request: &Request,
        set: fn(O, Request) -> O,
    ) -> Result<Cow<'o, O>> {
        Ok(match self.layer.request(request)? {
            Some(request) => Cow::Owned(set(options.clone(), request)),
            None => Cow::Borrowed(options),
        })
    }

    fn prepared_to_put<'o>(&self, options: &'o PutOptions) -> Result<Cow<'o, PutOptions>> {
        let mut options = self.prepared(options, &options.request, PutOptions::request)?;
        if let Some(id) = self.layer.identify(&options)? {
            options.to_mut().idempotency = Some(id);
        }
        Ok(options)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<L: Layer> SecretStore for Layered<L> {
    fn descriptor(&self) -> &Descriptor {
        self.store.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let call = self.call(Operation::Capabilities, &NOBODY);
        let attempt = || self.store.capabilities();
        self.layer.around(call, attempt).await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let options = self.prepared(options, &options.request, GetOptions::request)?;
        let call = self.call(Operation::Get, &options.request).at(path);
        let attempt = || self.store.get(path, &options);
        self.layer.around(call, attempt).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let options = match self.prepared(options, &options.request, GetOptions::request) {
            Ok(options) => options,
            Err(error) => return all_fail(paths, &error),
        };
        let call = self.call(Operation::Get, &options.request);
        self.layer.around_many(call, paths, &options).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let options = self.prepared(options, &options.request, GetOptions::request)?;
        let call = self.call(Operation::Stat, &options.request).at(path);
        let attempt = || self.store.stat(path, &options);
        self.layer.around(call, attempt).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let options = self.prepared_to_put(options)?;
        let call = Call {
            mode: Some(&options.mode),
            ..self.call(Operation::Put, &options.request).at(path)
        };
        let attempt = || self.store.put(path, value, &options);
        self.layer.around(call, attempt).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let options = self.prepared_to_put(options)?;
        let call = Call {
            mode: Some(&options.mode),
            ..self.call(Operation::Generate, &options.request).at(path)
        };
        let attempt = || self.store.generate(path, recipe, &options);
        self.layer.around(call, attempt).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let options = self.prepared(options, &options.request, DeleteOptions::request)?;
        let call = self.call(Operation::Delete, &options.request).at(path);
        let attempt = || self.store.delete(path, &options);
        self.layer.around(call, attempt).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let options = self.prepared(options, &options.request, ListOptions::request)?;
        let call = self.call(Operation::List, &options.request).at(prefix);
        let attempt = || self.store.list(prefix, &options);
        self.layer.around(call, attempt).await
    }

    async fn probe(&self) -> Result<()> {
        let call = self.call(Operation::Probe, &NOBODY);
        let attempt = || self.store.probe();
        self.layer.around(call, attempt).await
    }
}

impl<L: Layer> fmt::Debug for Layered<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {:?}", self.layer, self.store)
    }
}

/// What `capabilities` and `probe` carry.
static NOBODY: Request = Request {
    id: None,
    actor: None,
    deadline: None,
};

/// The error of a whole `get_many`, as each path's own.
pub(super) fn all_fail(paths: &[SecretPath], error: &Error) -> Vec<Result<Secret>> {
    paths
        .iter()
        .map(|path| Err(error.duplicate().with_path(path)))
        .collect()
}
