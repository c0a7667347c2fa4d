//! The least Vault policy that a keyhaul policy's routes need.
//!
//! Vault's patterns can say less than ours: `+` is one whole segment, and `*` stands at the very
//! end and means anything from there on. What is said in between must be wider then; a comment in
//! the policy says where and by how much. Never narrower: what a route covers, the policy allows.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use keyhaul_core::{Result, StoreConfig};

use crate::config::{Config, Engine};
use crate::kv::KvVersion;
use words::{Path, paths_of};

/// What a route covers in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The route's pattern, as `prod-*/**`.
    pub pattern: String,
    /// The route's path in the store, as `vms/{scope}/{name}`.
    pub path: String,
}

impl Covered {
    /// What the route with this `match` and `path` covers.
    pub fn new(pattern: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            path: path.into(),
        }
    }
}

/// What is to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Reading values, and what is known of them.
    Read,
    /// That, and creating, changing, deleting and listing.
    Write,
}

/// The least Vault policy, as HCL, under which these stores serve what their routes cover.
///
/// # Errors
/// `InvalidConfig` where a store's settings are none of a Vault store.
pub fn least_policy(stores: &[(StoreConfig, Vec<Covered>)], access: Access) -> Result<String> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    for (store, routes) in stores {
        let config = Config::new(store)?;
        let place = match &config.namespace {
            Some(namespace) => format!("{}, namespace {namespace}", config.server),
            None => config.server.clone(),
        };
        let section = sections.entry(place).or_default();
        section.add(&store.name, &config, routes, access);
    }
    let mut out = String::new();
    let several = sections.len() > 1;
    for (place, section) in &sections {
        if !out.is_empty() {
            out.push('\n');
        }
        line(&mut out, &format!("# {place}: {}", section.names()));
        if several {
            line(
                &mut out,
                "# A policy of its own: it goes to this place only.",
            );
        }
        section.print(&mut out);
    }
    Ok(out)
}

/// The policy of one server and namespace.
#[derive(Default)]
struct Section {
    stores: BTreeSet<String>,
    notes: BTreeSet<String>,
    rules: BTreeMap<String, Rule>,
}

#[derive(Default)]
struct Rule {
    capabilities: BTreeSet<&'static str>,
    notes: BTreeSet<String>,
}

impl Section {
    fn add(&mut self, name: &str, config: &Config, routes: &[Covered], access: Access) {
        self.stores.insert(name.to_owned());
        let paths: BTreeSet<Path> = routes.iter().flat_map(paths_of).collect();
        // As the API's paths are copied: `secret/data` is the mount `secret`.
        let parts = ["/data", "/metadata"];
        let copied = parts
            .iter()
            .find_map(|part| config.mount.strip_suffix(part));
        let mount = match config.kv_version {
            Some(KvVersion::One) => &config.mount,
            _ => copied.unwrap_or(&config.mount),
        };
        if let (Engine::Kv, Access::Write) = (config.engine, access) {
            let part = match config.kv_version {
                Some(KvVersion::One) => "",
                _ => "/metadata",
            };
            for folder in paths.iter().flat_map(Path::folders) {
                let rule = self
                    .rules
                    .entry(format!("{mount}{part}/{folder}"))
                    .or_default();
                rule.capabilities.insert("list");
            }
        }
        for path in &paths {
            let glob = path.text.ends_with('*');
            match (config.engine, config.kv_version.unwrap_or(KvVersion::Two)) {
                (Engine::Leased, _) => {
                    self.allow(format!("{mount}/{}", path.text), path, &["read"]);
                    // A lease's name is the path it came from and an id: `stat` gives back what it drew.
                    let lease = match glob {
                        true => format!("sys/leases/revoke/{mount}/{}", path.text),
                        false => format!("sys/leases/revoke/{mount}/{}/*", path.text),
                    };
                    self.allow(lease, path, &["update"]);
                }
                (Engine::Kv, KvVersion::One) => {
                    let capabilities: &[_] = match (access, glob) {
                        (Access::Read, _) => &["read"],
                        (Access::Write, false) => &["create", "delete", "read", "update"],
                        (Access::Write, true) => &["create", "delete", "list", "read", "update"],
                    };
                    self.allow(format!("{mount}/{}", path.text), path, capabilities);
                }
                (Engine::Kv, KvVersion::Two) => {
                    let (data, metadata): (&[_], &[_]) = match (access, glob) {
                        (Access::Read, _) => (&["read"], &["read"]),
                        (Access::Write, false) => (
                            &["create", "patch", "read", "update"],
                            &["create", "delete", "read", "update"],
                        ),
                        (Access::Write, true) => (
                            &["create", "patch", "read", "update"],
                            &["create", "delete", "list", "read", "update"],
                        ),
                    };
                    self.allow(format!("{mount}/data/{}", path.text), path, data);
                    self.allow(format!("{mount}/metadata/{}", path.text), path, metadata);
                    if access == Access::Write && config.soft_delete {
                        self.allow(format!("{mount}/delete/{}", path.text), path, &["update"]);
                    }
                }
            }
        }
        if config.engine == Engine::Kv && config.kv_version.is_none() {
            self.notes.insert(format!(
                "Store {name} does not say which KV version `{mount}` is: this is for version 2. Else declare kv-version = \"1\"."
            ));
        }
    }

    fn allow(&mut self, text: String, path: &Path, capabilities: &[&'static str]) {
        let rule = self.rules.entry(text).or_default();
        rule.capabilities.extend(capabilities);
        rule.notes.extend(path.wider.iter().cloned());
    }

    fn names(&self) -> String {
        let word = if self.stores.len() == 1 {
            "store"
        } else {
            "stores"
        };
        let names: Vec<_> = self.stores.iter().map(String::as_str).collect();
        format!("{word} {}", names.join(", "))
    }

    fn print(&self, out: &mut String) {
        line(
            out,
            "# Finding out about and renewing its own token is for the policy `default`.",
        );
        for note in &self.notes {
            line(out, &format!("# {note}"));
        }
        for (path, rule) in &self.rules {
            out.push('\n');
            for note in &rule.notes {
                line(out, &format!("# {note}"));
            }
            let capabilities: Vec<_> = rule
                .capabilities
                .iter()
                .map(|c| format!("\"{c}\""))
                .collect();
            line(out, &stanza(path, &capabilities.join(", ")));
        }
    }
}

/// A line of a policy, as errors name it too.
pub(crate) fn stanza(path: &str, capabilities: &str) -> String {
    let path = path.replace('\\', "\\\\").replace('"', "\\\"");
    format!("path \"{path}\" {{ capabilities = [{capabilities}] }}")
}

fn line(out: &mut String, text: &str) {
    // Writing to a String never fails.
    let _ = writeln!(out, "{text}");
}
