//! What stands between the suite, whose paths are anything, and a service with roles, whose paths
//! are references.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use keyhaul_core::layers::{Call, Layer};
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, Error, GetOptions, ListOptions, Metadata, Operation,
    Page, PutOptions, Recipe, Request, Result, Secret, SecretBytes, SecretPath, SecretStore,
};
use keyhaul_remote::client::{RemoteStore, Service};
use keyhaul_remote::protocol::GrantRequest;
use tokio::sync::Mutex;

/// A store whose paths are spelled in letters that a reference may have, in the same byte order,
/// so that listings are in order on both sides.
///
/// Each segment begins with `x`; a byte is two hexadecimal digits, with `-` before them where it
/// sorts before `/`: `-` itself does, and digits do not.
#[derive(Debug)]
pub struct Renamed(pub Arc<dyn SecretStore>);

fn there(path: &SecretPath) -> Result<SecretPath> {
    if path.is_root() {
        return Ok(SecretPath::root());
    }
    let mut text = String::new();
    for segment in path.segments() {
        text.push_str(if text.is_empty() { "x" } else { "/x" });
        for byte in segment.bytes() {
            let mark = if byte < b'/' { "-" } else { "" };
            write!(text, "{mark}{byte:02x}").expect("a string takes it");
        }
    }
    SecretPath::new(text)
}

fn back(path: &SecretPath) -> SecretPath {
    let segment = |segment: &str| {
        let digits = segment
            .strip_prefix('x')
            .expect("as it was spelled")
            .replace('-', "");
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
        String::from_utf8((0..digits.len()).step_by(2).map(byte).collect()).expect("text")
    };
    let segments: Vec<String> = path.segments().map(segment).collect();
    SecretPath::new(segments.join("/")).expect("a path")
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for Renamed {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.0.get(&there(path)?, options).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let renamed: Result<Vec<_>> = paths.iter().map(there).collect();
        match renamed {
            Ok(renamed) => self.0.get_many(&renamed, options).await,
            Err(error) => paths.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.0.stat(&there(path)?, options).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.0.put(&there(path)?, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.0.generate(&there(path)?, recipe, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.0.delete(&there(path)?, options).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let page = self.0.list(&there(prefix)?, options).await?;
        let names = |paths: Vec<SecretPath>| paths.iter().map(back).collect();
        Ok(Page::new(
            names(page.secrets),
            names(page.folders),
            page.next,
        ))
    }

    async fn probe(&self) -> Result<()> {
        self.0.probe().await
    }
}

/// Has the scopes of a node's store granted when they are first read.
#[derive(Debug)]
pub struct Granted {
    node: &'static str,
    manager: Service,
    scopes: Mutex<HashSet<String>>,
}

impl Granted {
    pub fn new(node: &'static str, manager: Service) -> Self {
        Self {
            node,
            manager,
            scopes: Mutex::default(),
        }
    }

    async fn grant(&self, path: &SecretPath) -> Result<()> {
        let Some(scope) = path.segments().next() else {
            return Ok(());
        };
        let mut scopes = self.scopes.lock().await;
        if scopes.contains(scope) {
            return Ok(());
        }
        let terms = GrantRequest {
            scope: scope.to_owned(),
            node: self.node.to_owned(),
            names: Vec::new(),
            expires: None,
            if_epoch: None,
        };
        self.manager.grant(&terms, &Request::default()).await?;
        scopes.insert(scope.to_owned());
        Ok(())
    }
}

impl Layer for Granted {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        if let (Operation::Get | Operation::Stat, Some(path)) = (call.operation, call.path) {
            self.grant(path).await?;
        }
        attempt().await
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        for path in paths {
            if let Err(error) = self.grant(path).await {
                return paths
                    .iter()
                    .map(|_| Err(Error::duplicate(&error)))
                    .collect();
            }
        }
        call.store.get_many(paths, options).await
    }
}

/// A manager's store that deletes although a node holds the scope.
#[derive(Debug)]
pub struct Forcing(pub RemoteStore);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for Forcing {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.capabilities().await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.0.get(path, options).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        self.0.get_many(paths, options).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.0.stat(path, options).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.0.put(path, value, options).await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.0.generate(path, recipe, options).await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.0.delete(path, &options.clone().force(true)).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.0.list(prefix, options).await
    }

    async fn probe(&self) -> Result<()> {
        self.0.probe().await
    }
}
