//! A policy as one store: its paths are `SCOPE/NAME`.

mod list;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{Resolver, group};
use crate::memory::needed_to_put;
use crate::policy::{Route, Target};
use crate::store::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, ListOptions, Metadata, Page,
    PutOptions, Secret, SecretStore,
};
use crate::{
    Encoding, Error, ErrorKind, Field, Recipe, Reference, Result, SecretBytes, SecretPath, Version,
};

/// A store whose secrets are those that a policy serves: what a key service gives out.
///
/// A path is a reference without version and field, which come as options. What no reference can
/// be is `InvalidReference`, for reads too.
///
/// Its capabilities are what every store has that a route leads to first, and the smallest of their
/// limits: no promise is broken, whichever route a path takes. Where the stores differ, one of them
/// may do more than the whole says.
#[derive(Clone, Debug)]
pub struct Routed {
    resolver: Arc<Resolver>,
    descriptor: Descriptor,
}

/// A store, and the routes that lead to it first.
type First<'a> = (Arc<dyn SecretStore>, Vec<&'a Route>);

impl Routed {
    /// A store over the resolver's policy.
    pub fn new(resolver: Arc<Resolver>) -> Self {
        let location = resolver.policy().name.clone();
        Self {
            resolver,
            descriptor: Descriptor::new("policy", "policy", location),
        }
    }

    /// Where a path leads, with what the options name instead of the route.
    fn target(
        &self,
        path: &SecretPath,
        version: Option<&Version>,
        field: Option<&Field>,
    ) -> Result<Target> {
        let mut target = self.resolver.policy().target(&reference(path)?)?;
        if let Some(version) = version {
            // A version is the first store's own: another's of that name is another value.
            target.stores.truncate(1);
            target.version = Some(version.clone());
        }
        if let Some(field) = field {
            target.field = Some(field.clone());
        }
        Ok(target)
    }

    /// That a value is no longer than the whole says, where one route would take more than another.
    /// What cannot be written at all is for the store to say.
    async fn fits(&self, len: usize, options: &PutOptions) -> Result<()> {
        let whole = self.capabilities().await?;
        if len > whole.max_value && whole.has(needed_to_put(options)) {
            let rule = format!("a value has {} bytes at most here", whole.max_value);
            return Err(Error::new(ErrorKind::TooLarge, rule));
        }
        Ok(())
    }

    /// The stores that routes lead to first, each with the routes that do.
    fn firsts(&self) -> Result<Vec<First<'_>>> {
        let policy = self.resolver.policy();
        let leads = |route: &&Route, name: &String| route.stores.first() == Some(name);
        policy
            .stores
            .keys()
            .map(|name| (name, policy.routes.iter().filter(|r| leads(r, name))))
            .map(|(name, routes)| (name, routes.collect::<Vec<_>>()))
            .filter(|(_, routes)| !routes.is_empty())
            .map(|(name, routes)| Ok((self.resolver.store(name)?, routes)))
            .collect()
    }
}

#[async_trait]
impl SecretStore for Routed {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let mut whole: Option<Capabilities> = None;
        for (store, routes) in self.firsts()? {
            let store = store.capabilities().await?;
            for route in routes {
                let one = through(route, store);
                let sofar = whole.get_or_insert(one);
                sofar.can &= one.can;
                sofar.max_value = sofar.max_value.min(one.max_value);
            }
        }
        Ok(whole.unwrap_or(Capabilities::new(Capability::empty(), 0)))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let target = self.target(path, options.version.as_ref(), options.field.as_ref())?;
        self.resolver
            .read(&target, options.clone())
            .await
            .map_err(|error| located(error, path, &target))
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let (version, field) = (options.version.as_ref(), options.field.as_ref());
        let mut groups = Vec::new();
        let mut answers: Vec<Option<Result<Secret>>> = Vec::with_capacity(paths.len());
        // Of each group's targets, whose answers they are. A repeated path is asked for again:
        // values are not copied.
        let mut whose: Vec<Vec<usize>> = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            match self.target(path, version, field) {
                Ok(target) => {
                    let group = group(&mut groups, &target);
                    groups[group].targets.push(target);
                    whose.resize_with(groups.len(), Vec::new);
                    whose[group].push(index);
                    answers.push(None);
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        for (group, fetched) in self.resolver.fetch_all(&groups, options).await {
            let targets = groups[group].targets.iter().zip(&whose[group]);
            for ((target, index), answer) in targets.zip(fetched) {
                let answer = answer.map_err(|error| located(error, &paths[*index], target));
                answers[*index] = Some(answer);
            }
        }
        let missing = || Error::new(ErrorKind::Internal, "a store left out an answer");
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(missing())))
            .collect()
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let target = self.target(path, options.version.as_ref(), options.field.as_ref())?;
        self.resolver
            .look(&target, options.clone())
            .await
            .map_err(|error| located(error, path, &target))
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let target = self.target(path, None, options.field.as_ref())?;
        self.fits(value.len(), options).await?;
        self.resolver
            .write(&target, value, options.clone())
            .await
            .map_err(|error| located(error, path, &target))
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let target = self.target(path, None, options.field.as_ref())?;
        self.fits(recipe.length(), options).await?;
        self.resolver
            .make(&target, recipe, options.clone())
            .await
            .map_err(|error| located(error, path, &target))
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let target = self.target(path, None, None)?;
        let delete = async {
            let store = self.resolver.first(&target)?;
            store.delete(&target.path, options).await
        };
        delete.await.map_err(|error| located(error, path, &target))
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        list::page(&self.resolver, prefix, options).await
    }

    async fn probe(&self) -> Result<()> {
        let policy = self.resolver.policy();
        let led_to = |name: &&String| policy.routes.iter().any(|r| r.stores.contains(name));
        let probes = policy.stores.keys().filter(led_to).map(|name| async move {
            let store = self.resolver.store(name)?;
            store.probe().await
        });
        join_all(probes).await.into_iter().collect()
    }
}

/// The reference that a path is.
fn reference(path: &SecretPath) -> Result<Reference> {
    // The root is no secret, and `?` and `#` would be read as more than a path.
    let reference = Reference::parse(path.as_str())?;
    if reference.subject() == path.as_str() {
        Ok(reference)
    } else {
        let rule = "a path is SCOPE/NAME; version and field are not part of it";
        Err(Error::new(ErrorKind::InvalidReference, rule))
    }
}

/// What a store's capabilities are through a route, whose encoding may need room.
fn through(route: &Route, store: Capabilities) -> Capabilities {
    let max_value = match route.encoding {
        Encoding::Base64 => store.max_value / 4 * 3,
        Encoding::Hex => store.max_value / 2,
        Encoding::Raw | Encoding::Text => return store,
    };
    let mut can = store.can - Capability::GENERATES_REMOTELY;
    // An encoded value is made here, and written.
    can.set(Capability::GENERATE, store.has(Capability::WRITE));
    Capabilities::new(can, max_value)
}

fn located(error: Error, path: &SecretPath, target: &Target) -> Error {
    error
        .with_route(&target.route)
        .with_reference(path.as_str())
}
