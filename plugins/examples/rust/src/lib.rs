//! A plugin in Rust: a jar that keeps secrets in memory, for as long as the program runs.
//!
//! It is a backend like any other: a factory with its options, a store with the contract's methods, and
//! one line that makes a plugin of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use keyhaul_core::registry::{Limits, OptionKind, OptionSpec};
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutMode, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    SecretStore, StoreConfig, StoreFactory, Version,
};

keyhaul_plugin_sdk::export_plugin!(JarFactory);

/// Makes jars.
#[derive(Debug)]
pub struct JarFactory;

impl StoreFactory for JarFactory {
    fn schemes(&self) -> &[&'static str] {
        &["jar"]
    }

    fn summary(&self) -> &'static str {
        "a jar in memory, the same at every start"
    }

    fn options(&self) -> &[OptionSpec] {
        &[
            OptionSpec {
                name: "contents",
                kind: OptionKind::Credential,
                default: "none: the jar is empty",
                help: "What is in the jar at first: a line for each secret, its path, a space and its value.",
            },
            OptionSpec {
                name: "largest",
                kind: OptionKind::Integer,
                default: "65536",
                help: "The longest value that fits, in bytes.",
            },
            OptionSpec {
                name: "lid",
                kind: OptionKind::Credential,
                default: "none: the jar is open",
                help: "What opens the jar: a passphrase of at least 8 bytes.",
            },
        ]
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
        let largest = config.options.integer("largest").unwrap_or(65536);
        let largest = usize::try_from(largest).unwrap_or(usize::MAX);
        if let Some(lid) = config.options.credential("lid")?
            && lid.read()?.len() < 8
        {
            let rule = "the lid of a jar has at least 8 bytes";
            return Err(Error::new(ErrorKind::InvalidConfig, rule));
        }
        let jar = Jar {
            descriptor: Descriptor::new(&config.name, "jar", config.url.as_str()),
            largest,
            inside: Mutex::default(),
        };
        if let Some(contents) = config.options.credential("contents")? {
            jar.fill(contents.read()?.expose())?;
            // A line in keyhaul's log, with no byte of a secret.
            let secrets = jar.inside().secrets.len();
            tracing::info!(secrets, "the jar has been filled");
        }
        Ok(Arc::new(jar))
    }
}

/// A jar.
pub struct Jar {
    descriptor: Descriptor,
    largest: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    secrets: BTreeMap<SecretPath, Kept>,
    written: u64,
}

struct Kept {
    value: SecretBytes,
    metadata: Metadata,
}

impl Jar {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the first secrets into it: a line for each, its path, a space and its value.
    fn fill(&self, contents: &[u8]) -> Result<()> {
        let wrong = || {
            error(
                ErrorKind::InvalidConfig,
                "each line of `contents` is a path, a space and a value",
            )
        };
        for line in contents.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let space = line.iter().position(|byte| *byte == b' ');
            let (path, value) = line.split_at(space.ok_or_else(wrong)?);
            let path = std::str::from_utf8(path).map_err(|_| wrong())?;
            let path = SecretPath::new(path).map_err(|_| wrong())?;
            if value.len() - 1 > self.largest {
                return Err(error(
                    ErrorKind::TooLarge,
                    "a value does not fit into the jar",
                ));
            }
            let options = PutOptions::default().mode(PutMode::Create);
            self.keep(&path, SecretBytes::copy_from(&value[1..]), &options)?;
        }
        Ok(())
    }

    fn keep(
        &self,
        path: &SecretPath,
        value: SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let mut inside = self.inside();
        let there = inside.secrets.get(path).map(|kept| &kept.metadata.version);
        match (&options.mode, there) {
            (PutMode::Create, Some(_)) => {
                return Err(error(ErrorKind::AlreadyExists, "it is there"));
            }
            (PutMode::Update(_), None) => return Err(no_secret()),
            (PutMode::Update(wanted), Some(there)) if there.as_ref() != Some(wanted) => {
                return Err(error(ErrorKind::Conflict, "another version is there"));
            }
            _ => {}
        }
        inside.written += 1;
        let mut metadata = Metadata::new(Some(Version::new(inside.written.to_string())?));
        metadata.labels = options.labels.clone();
        let kept = Kept {
            value,
            metadata: metadata.clone(),
        };
        inside.secrets.insert(path.clone(), kept);
        Ok(metadata)
    }
}

#[async_trait]
impl SecretStore for Jar {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let can = Capability::READ
            | Capability::WRITE
            | Capability::CREATE
            | Capability::UPDATE
            | Capability::DELETE
            | Capability::LIST
            | Capability::GENERATE
            | Capability::LABELS;
        Ok(Capabilities::new(can, self.largest))
    }

    async fn get(&self, path: &SecretPath, _: &GetOptions) -> Result<Secret> {
        let inside = self.inside();
        let kept = inside.secrets.get(path).ok_or_else(no_secret)?;
        let value = SecretBytes::copy_from(kept.value.expose());
        Ok(Secret::new(value, kept.metadata.clone()))
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            answers.push(self.get(path, options).await);
        }
        answers
    }

    async fn stat(&self, path: &SecretPath, _: &GetOptions) -> Result<Metadata> {
        let inside = self.inside();
        let kept = inside.secrets.get(path).ok_or_else(no_secret)?;
        Ok(kept.metadata.clone())
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.keep(path, SecretBytes::copy_from(value.expose()), options)
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.keep(path, recipe.make()?, options)
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let mut inside = self.inside();
        let there = inside.secrets.get(path).map(|kept| &kept.metadata.version);
        match (&options.version, there) {
            (Some(wanted), Some(there)) if there.as_ref() != Some(wanted) => {
                Err(error(ErrorKind::Conflict, "another version is there"))
            }
            _ => {
                inside.secrets.remove(path);
                Ok(())
            }
        }
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let mut entries = BTreeMap::new();
        for path in self
            .inside()
            .secrets
            .keys()
            .filter(|path| path.is_below(prefix))
        {
            let mut below = path.segments().skip(prefix.segments().count());
            match below.next() {
                Some(first) if options.shallow => {
                    let is_folder = below.next().is_some();
                    entries.insert((prefix.join(first)?, is_folder), ());
                }
                _ => {
                    entries.insert((path.clone(), false), ());
                }
            }
        }
        // A cursor is the last entry's path, behind a sign for what it is.
        let cursor = |(path, is_folder): &(SecretPath, bool)| {
            format!("{}{path}", if *is_folder { '+' } else { '-' })
        };
        let after = options.after.as_deref().map(|after| {
            let path = after
                .strip_prefix(['+', '-'])
                .and_then(|path| SecretPath::new(path).ok());
            let path =
                path.ok_or_else(|| error(ErrorKind::InvalidReference, "no page ended there"))?;
            Ok::<_, Error>((path, after.starts_with('+')))
        });
        let after = after.transpose()?;
        let rest = entries
            .into_keys()
            .filter(|entry| after.as_ref().is_none_or(|after| entry > after));
        let mut rest = rest.peekable();
        let page: Vec<_> = rest.by_ref().take(options.limit.unwrap_or(1000)).collect();
        let next = rest.peek().and(page.last()).map(cursor);
        let (folders, secrets): (Vec<_>, Vec<_>) = page.into_iter().partition(|entry| entry.1);
        let paths = |entries: Vec<_>| entries.into_iter().map(|(path, _)| path).collect();
        Ok(Page::new(paths(secrets), paths(folders), next))
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jar").field(&self.descriptor.name).finish()
    }
}

fn no_secret() -> Error {
    error(ErrorKind::NotFound, "no such secret in the jar")
}

fn error(kind: ErrorKind, rule: &'static str) -> Error {
    Error::new(kind, rule)
}
