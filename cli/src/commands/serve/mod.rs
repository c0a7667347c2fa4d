//! The key service as a process: configuration, signals, and the one runtime with many threads.

mod dev;
mod store;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keyhaul_core::{Error, ErrorKind, Result, SecretStore, policy};
use keyhaul_remote::server::{Server, Settings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Output;
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::Format;
use crate::process::{Moment, notify};
use crate::{output, session};
use store::Served;

/// The configuration of a service, where none is named.
const CONFIG: &str = "/etc/keyhaul/service.toml";
/// How long the stores may take to say that they are there.
const PROBE: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  keyhaul serve --config /etc/keyhaul/service.toml
  keyhaul serve --dev                                   to try it out: prints what to type next";

/// Arguments of `serve`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Make a service to try things out, with certificates, a store and a policy for each role
    #[arg(long)]
    dev: bool,

    /// With --dev: where all of it is kept [default: keyhaul/dev below $XDG_STATE_HOME]
    #[arg(long, value_name = "DIR", requires = "dev")]
    folder: Option<PathBuf>,

    /// With --dev: where to listen
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "dev",
        default_value = "127.0.0.1:8443"
    )]
    listen: SocketAddr,

    #[command(flatten)]
    output: Output,
}

/// What a program that has started a service wants to know.
#[derive(Serialize)]
struct Ready<'a> {
    addresses: &'a [SocketAddr],
    config: &'a str,
}

/// Serves until it is told to end. `--config` names the service's configuration here.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let format = arguments.output.format;
    if !arguments.dev {
        let config = global.config.as_deref().unwrap_or(Path::new(CONFIG));
        policy::check_trust("the configuration", config).map_err(|error| {
            error.with_advice(
                "name one by --config; to try a service out without one: keyhaul serve --dev",
            )
        })?;
        return serve(config, format, |_| Ok(()));
    }
    if global.config.is_some() {
        let rule = "--dev makes its own configuration, and takes no --config";
        return Err(Error::new(ErrorKind::InvalidConfig, rule).into());
    }
    let folder = match arguments.folder {
        Some(folder) => folder,
        None => session::base_folder("XDG_STATE_HOME", ".local/state")?.join("keyhaul/dev"),
    };
    let site = dev::Site::prepare(&folder, arguments.listen)?;
    serve(&site.config(), format, |server| {
        site.lead_to(server.addresses())?;
        if format == Format::Text {
            site.announce(server.addresses())?;
        }
        Ok(())
    })
}

/// Serves by a configuration; `ready` is called once it listens.
fn serve(config: &Path, format: Format, ready: impl FnOnce(&Server) -> Outcome) -> Outcome {
    raise_descriptors();
    // Before the runtime's threads, which inherit it: no signal is lost, and none ends us midway.
    let mut signals = signals()?;
    let settings = Settings::load(config)?;
    let store = Arc::new(Served::by(&settings)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("the async runtime", error))?;
    let served = runtime.block_on(async {
        let server = Server::open(settings, store.clone()).await?;
        for address in server.addresses() {
            output::words(format_args!("listening on {address}"));
        }
        tokio::spawn(probe(store.clone()));
        ready(&server)?;
        if format == Format::Json {
            output::json(&Ready {
                addresses: server.addresses(),
                config: &config.display().to_string(),
            })?;
        }
        notify(Moment::Ready);
        let told = until_told(&server, &store, config, &mut signals);
        let served = server.serve(told).await;
        if store.is_loading() {
            // All is written by now. To take the service apart takes a lock that a library may hold for
            // ever while it is loaded.
            std::mem::forget(server);
        }
        Ok(served?)
    });
    // What a store still blocks in is not waited for.
    runtime.shutdown_background();
    served
}

/// Says early what would else be found out by the first node that asks.
async fn probe(store: Arc<Served>) {
    let said = match tokio::time::timeout(PROBE, store.probe()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    output::warning(
        &format!("a store of the policy does not answer yet: {said}"),
        Some("the service goes on, and asks it again for every request"),
    );
}

/// Ends when the process is told to end; reloads when it is told to reload.
async fn until_told(
    server: &Server,
    store: &Served,
    config: &Path,
    signals: &mut UnboundedReceiver<Signal>,
) {
    loop {
        match signals.recv().await {
            Some(Signal::SIGHUP) => {
                notify(Moment::Reloading);
                reload(server, store, config).await;
                notify(Moment::Ready);
            }
            Some(signal) => {
                output::words(format_args!("ending, by {}", signal.as_str()));
                break;
            }
            // Nobody could tell us any more: to end is what a service manager can mend.
            None => break,
        }
    }
    notify(Moment::Stopping);
}

/// What is wrong is said, and everything stays as it was.
async fn reload(server: &Server, store: &Served, config: &Path) {
    let reloaded = async {
        policy::check_trust("the configuration", config)?;
        let settings = Settings::load(config)?;
        // First what can be wrong, then what changes.
        let policy = store.changed(&settings)?;
        bounded(server.reload(settings)).await?;
        let with = if policy.is_some() { ", policy" } else { "" };
        if let Some(take_over) = policy {
            take_over();
        }
        Ok::<_, Failure>(with)
    };
    match reloaded.await {
        Ok(with) => output::words(format_args!(
            "reloaded: configuration, certificates, audit file{with}"
        )),
        Err(failure) => {
            output::failures(failure.errors());
            output::words("nothing was reloaded; the service goes on as before");
        }
    }
}

async fn bounded(work: impl Future<Output = Result<()>>) -> Result<()> {
    match tokio::time::timeout(PROBE, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "reloading took too long")),
    }
}

/// The signals that a service is told things by: blocked from now on, and taken by a thread that
/// does nothing else.
fn signals() -> Result<UnboundedReceiver<Signal>> {
    let set = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    set.thread_block()
        .map_err(|error| Error::io("the signals", error.into()))?;
    let (told, signals) = unbounded_channel();
    let thread = std::thread::Builder::new().name("signals".into());
    let take = move || {
        // Until the service has ended, and with it the process.
        while let Ok(signal) = set.wait() {
            if told.send(signal).is_err() {
                return;
            }
        }
    };
    thread
        .spawn(take)
        .map_err(|error| Error::io("the thread of signals", error))?;
    Ok(signals)
}

/// A descriptor for each connection: the usual soft limit is for programs that use select.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "the limit of open files stays at {soft}");
    }
}
