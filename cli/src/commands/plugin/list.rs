//! The plugins that a policy names.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Args;
use keyhaul_core::{Error, ErrorKind, Policy, Result, StoreConfig};
use keyhaul_plugin_host::PluginFactory;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::worker::{self, End, Teller};
use crate::commands::{Output, no_such};
use crate::failure::{Outcome, status_of};
use crate::global::Global;
use crate::output::{self, Fields, Format, Style};
use crate::session;

const EXAMPLES: &str = "\
Examples:
  keyhaul plugin list
  keyhaul plugin list corp --format json";

/// How many plugins are looked at at once. One that hangs takes all the time there is.
const AT_ONCE: usize = 8;

/// Arguments of `plugin list`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only these stores [default: every store that is a plugin's]
    #[arg(value_name = "STORE")]
    stores: Vec<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Plugins {
    policy: String,
    plugins: Vec<Entry>,
}

/// What a worker tells.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    /// The plugin is there, and is loaded or started next.
    Begins(Entry),
    /// What is known of it.
    Ended(Entry),
}

/// Lists the plugins of the policy. The exit status is 0 where each loads.
pub fn run(global: &Global, arguments: &Arguments) -> Outcome<u8> {
    let policy = Policy::load(&session::location(global)?)?;
    policy.check(&session::registry())?;
    let named = named(&policy, &arguments.stores)?;
    if worker::is_here() {
        return here(global, named);
    }
    let found = Plugins {
        plugins: looked_at(global, &named),
        policy: policy.name,
    };
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

/// The plugins that are asked for, by their stores' names.
fn named<'a>(policy: &'a Policy, wanted: &[String]) -> Result<Vec<(Entry, &'a StoreConfig)>> {
    let configs = policy.stores.values().map(|store| &store.config);
    let mut plugins: Vec<_> = configs
        .filter_map(|config| Some((Entry::new(config)?, config)))
        .collect();
    let is_one = |wanted: &String| plugins.iter().any(|(entry, _)| entry.store == *wanted);
    if let Some(other) = wanted.iter().find(|wanted| !is_one(wanted)) {
        let names: Vec<&str> = plugins.iter().map(|(entry, _)| &*entry.store).collect();
        let advice = match names.is_empty() {
            true => "it names no plugin".to_owned(),
            false => format!("its plugins are: {}", names.join(", ")),
        };
        let rule = no_such(policy, other, "and no plugin");
        return Err(Error::new(ErrorKind::InvalidConfig, rule).with_advice(advice));
    }
    if !wanted.is_empty() {
        plugins.retain(|(entry, _)| wanted.contains(&entry.store));
    }
    Ok(plugins)
}

/// What there is to know of each. What one does to the process that looks at it, the others are not
/// there to see.
fn looked_at(global: &Global, named: &[(Entry, &StoreConfig)]) -> Vec<Entry> {
    let until = Instant::now() + global.deadline;
    // What a plugin locks while one store of it is open, another store is not to find locked.
    let mut files: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for (entry, _) in named {
        files.entry(&entry.path).or_default().push(entry);
    }
    let lanes = AT_ONCE.min(files.len());
    let files = Mutex::new(files.into_values());
    let next = || files.lock().unwrap_or_else(PoisonError::into_inner).next();
    let lane = || {
        let mut looked = Vec::new();
        while let Some(entries) = next() {
            let each = entries.into_iter();
            looked.extend(each.map(|entry| looked_at_one(global, until, entry)));
        }
        looked
    };
    let mut entries = thread::scope(|scope| {
        // Where the system has no room for another thread, fewer are looked at at once.
        let start = |_| thread::Builder::new().spawn_scoped(scope, lane).ok();
        let others: Vec<_> = (1..lanes).map_while(start).collect();
        let mut looked = lane();
        for other in others {
            looked.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        looked
    });
    entries.sort_by(|one, other| one.store.cmp(&other.store));
    entries
}

/// What the process tells that looks at this one, and how that process ended.
fn looked_at_one(global: &Global, until: Instant, entry: &Entry) -> Entry {
    if until <= Instant::now() {
        let rule = "it was not looked at: the others took all the time";
        let error = Error::new(ErrorKind::Timeout, rule);
        let error = error.with_advice("give it longer by --deadline, or name its store");
        return entry.clone().broken(&error);
    }
    let (mut known, mut ended) = (entry.clone(), false);
    let words = vec!["--".into(), entry.store.clone().into()];
    let end = worker::watch_until(global, until, "list", words, |event| match event {
        Event::Begins(entry) => known = entry,
        Event::Ended(entry) => (known, ended) = (entry, true),
    });
    let internal = |rule: String| Error::new(ErrorKind::Internal, rule);
    let error = match (end, ended) {
        (Ok(End::Done | End::Killed), true) => return known,
        (Err(error), _) => error,
        (Ok(End::Done), false) => internal("the plugin ended keyhaul, as none may".to_owned()),
        (Ok(End::Failed(status)), _) => internal(format!(
            "keyhaul's process that looks at the plugin ended with status {status}"
        )),
        (Ok(End::Crashed(how)), false) => internal(entry.kind.ended(&how)),
        (Ok(End::Crashed(how)), true) => {
            internal(format!("{}, at its end", entry.kind.ended(&how)))
        }
        (Ok(End::Killed), false) => {
            let rule = "the plugin has not answered in time, and was ended";
            Error::new(ErrorKind::Timeout, rule)
        }
    };
    known.broken(&error)
}

/// The worker.
fn here(global: &Global, named: Vec<(Entry, &StoreConfig)>) -> Outcome<u8> {
    let until = Instant::now() + global.deadline;
    let teller = Teller::new()?;
    let runtime = session::runtime()?;
    let factory = PluginFactory::default();
    for (entry, config) in named {
        let entry = entry.with_digest();
        teller.tell(&Event::Begins(entry.clone()))?;
        let looked = runtime.block_on(entry.looked_at(&factory, config, until));
        teller.tell(&Event::Ended(looked))?;
    }
    runtime.shutdown_background();
    Ok(0)
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
            entry.sha256.as_ref().map(|digest| match &entry.pin {
                None => digest.clone(),
                Some(pin) if pin == digest => format!("{digest} (pinned)"),
                Some(pin) => format!("{digest}, and {pin} is pinned"),
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
