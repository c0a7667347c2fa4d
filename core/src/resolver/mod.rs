//! From references to values: the policy's routes, the registry's stores, and the layers around
//! them, brought together.

mod listing;
mod routed;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::layers::{AuditSink, standard};
use crate::policy::{Policy, Target};
use crate::reference::{Field, Version};
use crate::store::{DeleteOptions, GetOptions, Metadata, PutOptions, Request, Secret, SecretStore};
use crate::{
    Encoding, Error, ErrorKind, Named, Recipe, Reference, Registry, Result, SecretBytes, SecretPath,
};

pub use routed::Routed;

/// How many groups of references are asked for at the same time. Each group is one request to its
/// store, which bounds what happens inside.
const CONCURRENT_GROUPS: usize = 16;

/// Resolves references by one policy.
///
/// Stores are opened when they are first needed, so that a command pays only for what it asks.
#[derive(Debug)]
pub struct Resolver {
    policy: Policy,
    registry: Registry,
    audit: Option<Arc<dyn AuditSink>>,
    open: Mutex<HashMap<String, Arc<dyn SecretStore>>>,
}

impl Resolver {
    /// A resolver; `audit` gets a record of every operation.
    ///
    /// # Errors
    /// All that [`Policy::check`] finds.
    pub fn new(
        policy: Policy,
        registry: Registry,
        audit: Option<Arc<dyn AuditSink>>,
    ) -> Result<Self, Vec<Error>> {
        policy.check(&registry)?;
        Ok(Self {
            policy,
            registry,
            audit,
            open: Mutex::default(),
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where a reference, or a place in a store, leads.
    ///
    /// # Errors
    /// As [`Policy::target`]; `PermissionDenied` where the policy does not allow that a store's
    /// secrets are named by their place.
    pub fn target(&self, wanted: &impl Named) -> Result<Target> {
        wanted.target(&self.policy, &self.registry)
    }

    /// The store of a name, with its layers; opened once.
    ///
    /// # Errors
    /// `InvalidConfig` where the policy has none of that name or its options are wrong.
    pub fn store(&self, name: &str) -> Result<Arc<dyn SecretStore>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(name) {
            return Ok(store.clone());
        }
        let entry = self.policy.stores.get(name).ok_or_else(|| {
            let known = self.policy.stores.keys().map(String::as_str);
            crate::registry::unknown("store", name, known)
        })?;
        let bare = self.registry.open(&entry.config)?;
        let settings = entry.layers(self.registry.factory(&entry.config)?);
        let store = standard(bare, &settings, self.audit.clone());
        open.insert(name.to_owned(), store.clone());
        Ok(store)
    }

    /// The values of `references`, in order, each with its own outcome. Each is fetched once,
    /// however often it is named, and those of one store in one request.
    pub async fn resolve<N: Named>(
        &self,
        references: &[N],
        request: &Request,
    ) -> Vec<Result<Arc<Secret>>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places = Vec::with_capacity(references.len());
        for reference in references {
            places.push(
                self.target(reference)
                    .map(|target| place(&mut groups, target)),
            );
        }
        let options = GetOptions::default().request(request.clone());
        let fetched: HashMap<usize, Vec<Result<Arc<Secret>>>> = self
            .fetch_all(&groups, &options)
            .await
            .into_iter()
            .map(|(group, answers)| {
                let shared = answers.into_iter().map(|answer| answer.map(Arc::new));
                (group, shared.collect())
            })
            .collect();
        let answer = |(reference, place): (&N, Result<(usize, usize)>)| {
            let (group, item) = place?;
            let target = &groups[group].targets[item];
            match fetched.get(&group).and_then(|answers| answers.get(item)) {
                Some(Ok(secret)) => Ok(secret.clone()),
                Some(Err(error)) => Err(self.locate(error.duplicate(), reference, target)),
                None => Err(Error::new(
                    ErrorKind::Internal,
                    "a store left out an answer",
                )),
            }
        };
        references.iter().zip(places).map(answer).collect()
    }

    /// The value of one reference.
    ///
    /// # Errors
    /// As [`SecretStore::get`], with reference and route.
    pub async fn get(&self, reference: &impl Named, options: GetOptions) -> Result<Secret> {
        let target = self.target(reference)?;
        self.read(&target, options)
            .await
            .map_err(|error| self.locate(error, reference, &target))
    }

    /// What is known of one reference's secret, without its value. Only the first store is asked:
    /// a version is its own, and a write that follows goes there.
    ///
    /// # Errors
    /// As [`SecretStore::stat`], with reference and route.
    pub async fn stat(&self, reference: &impl Named, options: GetOptions) -> Result<Metadata> {
        let target = self.target(reference)?;
        self.look(&target, options)
            .await
            .map_err(|error| self.locate(error, reference, &target))
    }

    /// Writes a value where the policy says this reference lives, in the route's encoding.
    ///
    /// # Errors
    /// As [`SecretStore::put`], with reference and route; `InvalidReference` where the reference pins a version.
    pub async fn put(
        &self,
        reference: &Reference,
        value: &SecretBytes,
        options: PutOptions,
    ) -> Result<Metadata> {
        let target = self.writable(reference)?;
        self.write(&target, value, options)
            .await
            .map_err(|error| self.locate(error, reference, &target))
    }

    /// Makes a value by `recipe` where the policy says this reference lives.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn generate(
        &self,
        reference: &Reference,
        recipe: &Recipe,
        options: PutOptions,
    ) -> Result<Metadata> {
        let target = self.writable(reference)?;
        self.make(&target, recipe, options)
            .await
            .map_err(|error| self.locate(error, reference, &target))
    }

    /// Deletes a secret with all its versions.
    ///
    /// # Errors
    /// As [`SecretStore::delete`], with reference and route; `InvalidReference` where the reference pins a version.
    pub async fn delete(&self, reference: &Reference, options: DeleteOptions) -> Result<()> {
        let target = self.writable(reference)?;
        let delete = async { self.first(&target)?.delete(&target.path, &options).await };
        delete
            .await
            .map_err(|error| self.locate(error, reference, &target))
    }

    /// The value at a target, from its first store that answers.
    async fn read(&self, target: &Target, options: GetOptions) -> Result<Secret> {
        let options = options
            .version(target.version.clone())
            .field(target.field.clone());
        let mut last = None;
        for (index, name) in target.stores.iter().enumerate() {
            match self.store(name)?.get(&target.path, &options).await {
                Err(error) if error.kind().is_transient() => {
                    note_move(name, target.stores.get(index + 1), &error);
                    last = Some(error);
                }
                other => return decode(other?, target, name),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Internal, "a route without stores")))
    }

    /// What is known of the secret at a target.
    async fn look(&self, target: &Target, options: GetOptions) -> Result<Metadata> {
        let options = options
            .version(target.version.clone())
            .field(target.field.clone());
        self.first(target)?.stat(&target.path, &options).await
    }

    /// Writes at a target, in its encoding.
    async fn write(
        &self,
        target: &Target,
        value: &SecretBytes,
        options: PutOptions,
    ) -> Result<Metadata> {
        let options = options.field(target.field.clone());
        let stored = target.encoding.encode(value)?;
        let store = self.first(target)?;
        store.put(&target.path, &stored, &options).await
    }

    /// Makes a value at a target.
    async fn make(
        &self,
        target: &Target,
        recipe: &Recipe,
        options: PutOptions,
    ) -> Result<Metadata> {
        let options = options.field(target.field.clone());
        let store = self.first(target)?;
        match target.encoding {
            Encoding::Raw | Encoding::Text => store.generate(&target.path, recipe, &options).await,
            // A store makes plain values only; an encoded one is made here.
            encoding => {
                let stored = encoding.encode(&recipe.make()?)?;
                store.put(&target.path, &stored, &options).await
            }
        }
    }

    /// Every secret of every group, with the group's index.
    async fn fetch_all(
        &self,
        groups: &[Group],
        options: &GetOptions,
    ) -> Vec<(usize, Vec<Result<Secret>>)> {
        stream::iter(0..groups.len())
            .map(|index| {
                let group = &groups[index];
                async move { (index, self.fetch(group, options).await) }
            })
            .buffer_unordered(CONCURRENT_GROUPS)
            .collect()
            .await
    }

    /// Every secret of a group, from its first store that answers.
    async fn fetch(&self, group: &Group, options: &GetOptions) -> Vec<Result<Secret>> {
        let options = options
            .clone()
            .version(group.version.clone())
            .field(group.field.clone());
        let mut answers: Vec<Option<Result<Secret>>> = group.targets.iter().map(|_| None).collect();
        for (index, name) in group.stores.iter().enumerate() {
            let next = group.stores.get(index + 1);
            let missing = |answer: &Option<Result<Secret>>| match answer {
                None => true,
                Some(Err(error)) => error.kind().is_transient(),
                Some(Ok(_)) => false,
            };
            let open: Vec<usize> = (0..answers.len())
                .filter(|index| missing(&answers[*index]))
                .collect();
            if open.is_empty() {
                break;
            }
            let store = match self.store(name) {
                Ok(store) => store,
                Err(error) => {
                    for index in open {
                        answers[index] = Some(Err(error.duplicate()));
                    }
                    break;
                }
            };
            let paths: Vec<SecretPath> = open
                .iter()
                .map(|index| group.targets[*index].path.clone())
                .collect();
            for (index, answer) in open.into_iter().zip(store.get_many(&paths, &options).await) {
                if let Err(error) = &answer
                    && error.kind().is_transient()
                {
                    note_move(name, next, error);
                }
                let target = &group.targets[index];
                answers[index] = Some(answer.and_then(|secret| decode(secret, target, name)));
            }
        }
        let missing = || Error::new(ErrorKind::Internal, "a store left out an answer");
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(missing())))
            .collect()
    }

    fn first(&self, target: &Target) -> Result<Arc<dyn SecretStore>> {
        match target.stores.first() {
            Some(name) => self.store(name),
            None => Err(Error::new(ErrorKind::Internal, "a route without stores")),
        }
    }

    fn writable(&self, reference: &Reference) -> Result<Target> {
        if reference.version().is_some() {
            return Err(Error::new(
                ErrorKind::InvalidReference,
                "a write takes no `?version=`: it makes a new one",
            )
            .with_reference(reference.short()));
        }
        self.policy.target(reference)
    }

    fn locate(&self, error: Error, reference: &impl Named, target: &Target) -> Error {
        let not_found = error.kind() == ErrorKind::NotFound;
        let error = error
            .with_route(&target.route)
            .with_reference(reference.short());
        if not_found {
            let policy = &self.policy.name;
            error.with_advice(format!(
                "`keyhaul explain {}` shows where {policy} looks for it",
                reference.short()
            ))
        } else {
            error
        }
    }
}

/// References that one request to one store can answer.
struct Group {
    stores: Vec<String>,
    version: Option<Version>,
    field: Option<Field>,
    targets: Vec<Target>,
}

/// Where a target's answer will be: its group and its index there. Equal targets share it.
fn place(groups: &mut Vec<Group>, target: Target) -> (usize, usize) {
    let group = group(groups, &target);
    let targets = &mut groups[group].targets;
    let same = |t: &Target| t.path == target.path && t.encoding == target.encoding;
    let item = targets.iter().position(same).unwrap_or_else(|| {
        targets.push(target);
        targets.len() - 1
    });
    (group, item)
}

/// The group that a target belongs to, made where there is none yet.
fn group(groups: &mut Vec<Group>, target: &Target) -> usize {
    let fits = |group: &Group| {
        group.stores == target.stores
            && group.version == target.version
            && group.field == target.field
    };
    groups.iter().position(fits).unwrap_or_else(|| {
        groups.push(Group {
            stores: target.stores.clone(),
            version: target.version.clone(),
            field: target.field.clone(),
            targets: Vec::new(),
        });
        groups.len() - 1
    })
}

/// The secret as its route says, from what `store` keeps.
fn decode(secret: Secret, target: &Target, store: &str) -> Result<Secret> {
    let value = target.encoding.decode(secret.value);
    let value = value.map_err(|error| error.with_store(store).with_path(&target.path))?;
    Ok(Secret::new(value, secret.metadata))
}

/// Notes why the next store is asked, where there is one: a failure that is reported is not noted too.
fn note_move(store: &str, next: Option<&String>, error: &Error) {
    if let Some(next) = next {
        let kind = error.kind().name();
        tracing::warn!(store, kind, next, "did not answer: {}", error.message());
    }
}
