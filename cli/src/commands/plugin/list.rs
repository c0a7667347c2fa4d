//! The plugins that a policy names.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use keyhaul_core::{
    Error, ErrorKind, Policy, Request, Result, SecretStore, StoreConfig, StoreFactory as _, percent,
};
use keyhaul_plugin_host::{Digest, PluginFactory};
use keyhaul_plugin_process::ProcessFactory;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::kind::Kind;
use super::words::Words;
use super::worker::{self, End, Teller};
use crate::commands::Output;
use crate::failure::{Failure, Outcome, status_of};
use crate::global::Global;
use crate::output::{self, Fields, Format, Style};
use crate::session;

const EXAMPLES: &str = "\
Examples:
  keyhaul plugin list
  keyhaul plugin list --format json";

/// Arguments of `plugin list`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Plugins {
    policy: String,
    plugins: Vec<Entry>,
}

/// What the worker tells.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    /// The policy is read.
    Policy(String),
    /// This plugin is looked at.
    Begins(Entry),
    /// What is known of it.
    Ended(Entry),
}

/// A store by a plugin.
#[derive(Clone, Deserialize, Serialize)]
struct Entry {
    store: String,
    place: String,
    kind: Kind,
    path: String,
    /// The digest of what was loaded; where nothing was, of what lies there.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    loads: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Words>,
}

/// Lists the plugins of the policy. The exit status is 0 where each loads.
pub fn run(global: &Global, arguments: &Arguments) -> Outcome<u8> {
    if worker::is_here() {
        return here(global);
    }
    let mut found = Plugins {
        policy: String::new(),
        plugins: Vec::new(),
    };
    let mut begun: Option<Entry> = None;
    let end = worker::watch(global, "list", Vec::new(), |event| match event {
        Event::Policy(name) => found.policy = name,
        Event::Begins(entry) => begun = Some(entry),
        Event::Ended(entry) => {
            begun = None;
            found.plugins.push(entry);
        }
    })?;
    let broken = match end {
        End::Done if begun.is_none() => None,
        End::Done => {
            let rule = "the plugin ended keyhaul, as no library may";
            Some(Error::new(ErrorKind::Internal, rule))
        }
        End::Failed(status) => return Err(Failure::silent(status)),
        End::Crashed(how) => {
            let rule = format!("the plugin crashed keyhaul: {how}");
            Some(Error::new(ErrorKind::Internal, rule))
        }
        End::Killed => {
            let rule = "the plugin has not answered in time, and was ended";
            Some(Error::new(ErrorKind::Timeout, rule))
        }
    };
    if let Some(error) = broken {
        let error = error.with_advice("plugins that come after it were not looked at");
        match &mut begun {
            Some(entry) => {
                entry.error = Some((&error).into());
                found.plugins.push(entry.clone());
            }
            None => return Err(error.into()),
        }
    }
    match arguments.output.format {
        Format::Json => output::json(&found)?,
        Format::Text if found.plugins.is_empty() => {
            output::words(format_args!("{} names no plugin", found.policy));
        }
        Format::Text => print(&found)?,
    }
    let errors = found
        .plugins
        .iter()
        .filter_map(|entry| entry.error.as_ref());
    let kinds: Vec<ErrorKind> = errors.map(|words| words.error().kind()).collect();
    Ok(match kinds.is_empty() {
        true => 0,
        false => status_of(None, kinds),
    })
}

/// The worker: opens each store.
fn here(global: &Global) -> Outcome<u8> {
    let until = Instant::now() + global.deadline;
    let policy = Policy::load(&session::location(global)?)?;
    policy.check(&session::registry())?;
    let teller = Teller::new()?;
    teller.tell(&Event::Policy(policy.name.clone()))?;
    let runtime = session::runtime()?;
    let factory = PluginFactory::default();
    for (name, store) in &policy.stores {
        let config = &store.config;
        let Some(mut entry) = Entry::new(name, config) else {
            continue;
        };
        teller.tell(&Event::Begins(entry.clone()))?;
        let looked = runtime.block_on(async {
            match timeout_at(until.into(), entry.look(&factory, config, until)).await {
                Ok(looked) => looked,
                Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer in time")),
            }
        });
        entry.loads = looked.is_ok();
        entry.error = looked.err().map(|error| Words::from(&error));
        teller.tell(&Event::Ended(entry))?;
    }
    runtime.shutdown_background();
    Ok(0)
}

impl Entry {
    /// The store, where it is a plugin's.
    fn new(name: &str, config: &StoreConfig) -> Option<Self> {
        let kinds = [Kind::Library, Kind::Program];
        let mut kinds = kinds.into_iter();
        let kind = kinds.find(|kind| kind.scheme() == config.url.scheme())?;
        let path = percent::decoded(config.url.path()).unwrap_or_default();
        let digest = Digest::of(path.as_ref()).ok();
        Some(Self {
            store: name.to_owned(),
            place: config.place.clone(),
            kind,
            sha256: digest.map(|digest| digest.to_string()),
            path,
            pinned: kind == Kind::Library && config.options.has("sha256"),
            name: None,
            version: None,
            loads: false,
            capabilities: None,
            error: None,
        })
    }

    async fn look(
        &mut self,
        factory: &PluginFactory,
        config: &StoreConfig,
        until: Instant,
    ) -> Result<()> {
        let store: Arc<dyn SecretStore> = match self.kind {
            Kind::Library => {
                let loaded = factory.load(config)?;
                self.sha256 = Some(loaded.digest.to_string());
                self.name = Some(loaded.name);
                self.version = Some(loaded.version);
                factory.open(config)?
            }
            Kind::Program => {
                let store = ProcessFactory.store(config)?;
                let said = store
                    .said(&Request::default().deadline(Some(until)))
                    .await?;
                self.name = Some(said.name);
                self.version = Some(said.version);
                Arc::new(store)
            }
        };
        self.capabilities = Some(store.capabilities().await?.can.names());
        Ok(())
    }
}

fn print(found: &Plugins) -> Result<()> {
    let style = Style::of_stdout();
    let mut blocks = Vec::new();
    for entry in &found.plugins {
        let mut fields = Fields::default();
        fields.push("store", &entry.store);
        fields.push("at", &entry.place);
        fields.push(entry.kind.name(), &entry.path);
        fields.push_some(
            "SHA-256",
            entry.sha256.as_ref().map(|digest| {
                let pinned = if entry.pinned { " (pinned)" } else { "" };
                format!("{digest}{pinned}")
            }),
        );
        fields.push_some("name", entry.name.as_ref());
        fields.push_some("version", entry.version.as_ref());
        fields.push_some("can", entry.capabilities.as_ref().map(|can| can.join(" ")));
        let loads = match &entry.error {
            None => style.good("yes"),
            Some(words) => {
                let error = output::in_words(&words.error(), style, 6);
                format!("{}\n      {error}", style.error("no"))
            }
        };
        fields.push("loads", loads);
        blocks.push(fields.to_string());
    }
    output::line(blocks.join("\n\n"))
}
