//! The worker: opens the plugin's store, and tries it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_conformance::{Handles, Progress, watched};
use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::{Request, Result, SecretStore, StoreConfig, StoreFactory as _};
use keyhaul_plugin_host::{Digest, PluginFactory};
use keyhaul_plugin_process::ProcessFactory;
use tokio::time::timeout_at;

use super::super::given::Given;
use super::super::kind::Kind;
use super::super::worker::Teller;
use super::{Event, Facts, Trial};
use crate::failure::Outcome;
use crate::global::Global;
use crate::session;

/// How long one trial may take: so much that a slow server passes, and so little that a plugin which
/// hangs leaves time for the others.
const LIMIT: Duration = Duration::from_secs(20);

/// Tries the plugin until it is done or the time is over.
pub fn run(global: &Global, given: &Given, layers: bool) -> Outcome {
    let until = Instant::now() + global.deadline;
    let (kind, config) = (given.kind()?, given.config()?);
    let teller = Teller::new()?;
    let runtime = session::runtime()?;
    let done = runtime.block_on(async {
        let tried = tried(&teller, kind, &config, until, layers);
        timeout_at(until.into(), tried).await
    });
    // A program that hangs ends here: its session is the runtime's.
    runtime.shutdown_background();
    match done {
        Ok(told) => told?,
        Err(_) => teller.tell(&Event::TimeUp)?,
    }
    Ok(())
}

async fn tried(
    teller: &Teller,
    kind: Kind,
    config: &StoreConfig,
    until: Instant,
    layers: bool,
) -> Result<()> {
    let (store, facts) = match opened(kind, config, until).await {
        Ok(opened) => opened,
        Err(error) => return teller.tell(&Event::Refused((&error).into())),
    };
    teller.tell(&Event::Opened(facts))?;
    let store = if layers {
        standard(store, &LayerSettings::default(), None)
    } else {
        store
    };
    let mut told = Ok(());
    watched(Handles::same(store), LIMIT, |progress| {
        let event = match progress {
            Progress::Chosen(count) => Event::Chosen(count),
            Progress::Begins(name) => Event::Begins(name.to_owned()),
            Progress::Ended(trial) => Event::Ended(Trial {
                name: trial.name.to_owned(),
                passed: trial.failure.is_none(),
                expected: trial
                    .failure
                    .as_ref()
                    .map(|failure| failure.expected.clone()),
                came: trial.failure.as_ref().map(|failure| failure.came.clone()),
            }),
            _ => return,
        };
        if told.is_ok() {
            told = teller.tell(&event);
        }
    })
    .await;
    told
}

/// The plugin's store, open, and what is known of it.
async fn opened(
    kind: Kind,
    config: &StoreConfig,
    until: Instant,
) -> Result<(Arc<dyn SecretStore>, Facts)> {
    let path = keyhaul_core::percent::decoded(config.url.path()).unwrap_or_default();
    let (store, name, version, sha256): (Arc<dyn SecretStore>, _, _, _) = match kind {
        Kind::Library => {
            let factory = PluginFactory::default();
            let store = factory.open(config)?;
            store.capabilities().await?;
            let loaded = factory.loaded().into_iter().next();
            let of = |text: fn(&keyhaul_plugin_host::Loaded) -> String| {
                loaded.as_ref().map(text).unwrap_or_default()
            };
            let name = of(|loaded| loaded.name.clone());
            let version = of(|loaded| loaded.version.clone());
            (store, name, version, of(|loaded| loaded.digest.to_string()))
        }
        Kind::Program => {
            let store = ProcessFactory.store(config)?;
            let said = store
                .said(&Request::default().deadline(Some(until)))
                .await?;
            let digest = Digest::of(path.as_ref()).map(|digest| digest.to_string());
            let digest = digest.unwrap_or_default();
            (Arc::new(store), said.name, said.version, digest)
        }
    };
    let capabilities = store.capabilities().await?;
    let facts = Facts {
        name,
        version,
        sha256,
        capabilities: capabilities.can.names(),
        max_value: capabilities.max_value,
    };
    Ok((store, facts))
}
