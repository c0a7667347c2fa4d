//! The policy: one file per deployment that says which store serves which references.
//!
//! Swapping storage is editing this file, and nothing else.

mod document;
mod file;
mod parse;
mod pattern;
mod rules;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::encoding::Encoding;
use crate::layers::CacheSettings;
use crate::reference::{Field, Version};
use crate::registry::{Options, Registry, StoreConfig};
use crate::{Error, ErrorKind, Reference, Result, SecretPath};

pub use file::{Location, check_trust, locate};
pub use pattern::{Pattern, matches_segment};
pub use store::{BreakerChoice, store_keys};

/// Reads a table of options from a text that is nothing else, as a store's `options` has them; `name`
/// is what errors call the text.
///
/// # Errors
/// `InvalidConfig` with the place, where it is no TOML or holds what no option can be.
pub fn parse_options(name: &str, text: &str) -> Result<Options> {
    let document = document::Document { name, text };
    let mut options = Options::default();
    for (key, node) in &document.parse()? {
        let key = key.get_ref();
        options
            .0
            .insert(key.to_string(), document.option(key, node)?);
    }
    Ok(options)
}

/// What a program holds of its policy: every line checked, nothing opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// What errors call it: its path, or words for the embedded default.
    pub name: String,
    /// The stores by their names.
    pub stores: BTreeMap<String, StoreEntry>,
    /// The routes, drop-ins' after the main file's. The first that matches serves.
    pub routes: Vec<Route>,
    /// Where operations are recorded, where they are.
    pub audit: Option<PathBuf>,
}

/// A store with the settings of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreEntry {
    /// What its backend needs.
    pub config: StoreConfig,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How often a transient failure is tried again.
    pub retries: Option<u32>,
    /// How long an operation may take with all its retries.
    pub deadline: Option<Duration>,
    /// How many requests may be under way at the same time.
    pub concurrency: Option<u32>,
    /// How many requests may begin in a second.
    pub rate: Option<u32>,
    /// When the store counts as down.
    pub breaker: BreakerChoice,
    /// What is kept of its answers.
    pub cache: Option<CacheSettings>,
    /// Whether its secrets can be named without a route: [`Direct`](crate::Direct).
    pub direct: bool,
}

/// A line of the policy: references that match → store, path in it, decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// What it serves.
    pub pattern: Pattern,
    /// The store that serves; any further ones are for reads while the ones before are away.
    pub stores: Vec<String>,
    /// The path in the store, with `{scope}` and `{name}` to be filled in.
    pub path: String,
    /// The field of values that are maps.
    pub field: Option<Field>,
    /// How stored text stands for bytes.
    pub encoding: Encoding,
    /// Where it stands: `PATH:LINE`.
    pub place: String,
}

/// Where a reference leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The stores, the first for writes; it alone where a version is asked for.
    pub stores: Vec<String>,
    /// The path in them.
    pub path: SecretPath,
    /// The version asked for.
    pub version: Option<Version>,
    /// The field: the reference's own, or the route's.
    pub field: Option<Field>,
    /// How stored text stands for bytes.
    pub encoding: Encoding,
    /// The pattern that matched; none where no route was asked.
    pub pattern: Option<Pattern>,
    /// The route that decided, or the store that was named: `PATH:LINE`.
    pub route: String,
}

impl Policy {
    /// Reads a policy from its text; `name` is what errors call it.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the line and what is known.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Error>> {
        parse::policy(name, &[(name.to_owned(), text.to_owned())])
    }

    /// Loads the policy of a location, drop-ins included, after checking whose it is.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(location: &Location) -> Result<Self, Vec<Error>> {
        file::load(location)
    }

    /// Holds the policy against the backends that a program knows.
    ///
    /// # Errors
    /// Every unknown scheme and option, every failover that would get round a key service, and every
    /// path in one.
    pub fn check(&self, registry: &Registry) -> Result<(), Vec<Error>> {
        let mut errors: Vec<Error> = self
            .stores
            .values()
            .filter_map(|entry| registry.check(&entry.config).err())
            .collect();
        errors.extend(rules::key_services(self, registry));
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// Where `reference` leads: the first route that matches.
    ///
    /// # Errors
    /// `NotFound` where no route matches, `InvalidReference` where the path it leads to cannot be one.
    pub fn target(&self, reference: &Reference) -> Result<Target> {
        let route = self
            .routes
            .iter()
            .find(|route| route.pattern.matches(reference));
        let route = route.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no route of {} matches", self.name),
            )
            .with_reference(reference.short())
            .with_advice("add a [[routes]] entry whose `match` covers it, as `**` does")
        })?;
        let path = route
            .path
            .replace("{scope}", reference.scope())
            .replace("{name}", reference.name());
        let path = SecretPath::new(path).map_err(|error| {
            error
                .with_route(&route.place)
                .with_reference(reference.short())
        })?;
        // A version is the first store's own: another's of that name is another value.
        let stores = match reference.version() {
            Some(_) => route.stores.iter().take(1).cloned().collect(),
            None => route.stores.clone(),
        };
        Ok(Target {
            stores,
            path,
            version: reference.version().cloned(),
            field: reference.field().or(route.field.as_ref()).cloned(),
            encoding: route.encoding,
            pattern: Some(route.pattern.clone()),
            route: route.place.clone(),
        })
    }
}
