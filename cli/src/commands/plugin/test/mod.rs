//! A plugin, held to the contract: in a process of its own, so that a crash is a finding.

mod report;
mod trials;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::given::Given;
use super::kind::Kind;
use super::words::Words;
use super::worker::{self, End};
use crate::commands::Output;
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::{self, Format};
use report::Report;

const EXAMPLES: &str = "\
Examples:
  keyhaul plugin test ./libodd.so --option slots=7 --option pin=file:/etc/pin
  keyhaul plugin test /usr/lib/keyhaul/odd-plugin --arg /var/lib/odd-trial --layers
  keyhaul plugin test ./odd-plugin --options-file trial.toml --deadline 10m --format json";

/// Arguments of `plugin test`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    given: Given,

    /// Under time limits, retries and the other layers, as `run` and `get` ask a store
    #[arg(long)]
    layers: bool,

    #[command(flatten)]
    output: Output,
}

/// What is told of a test while it runs.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    /// The plugin is loaded or started, and its store is open.
    Opened(Facts),
    /// It is not, and why.
    Refused(Words),
    /// So many trials concern it.
    Chosen(usize),
    /// A trial begins.
    Begins(String),
    /// It has ended.
    Ended(Trial),
    /// The time for all trials is over.
    TimeUp,
}

/// What is known of a plugin whose store is open.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Facts {
    name: String,
    version: String,
    sha256: String,
    capabilities: Vec<String>,
    max_value: usize,
}

/// What came of a trial.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Trial {
    /// What it holds, as a sentence.
    name: String,
    passed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    came: Option<String>,
}

/// Holds a plugin to the contract. The exit status is 0, or the kind of failure.
pub fn run(global: &Global, arguments: &Arguments) -> Outcome<u8> {
    if worker::is_here() {
        trials::run(global, &arguments.given, arguments.layers)?;
        return Ok(0);
    }
    let (kind, path) = (arguments.given.kind()?, arguments.given.path()?);
    // What is wrong with the options is said before anything is warned of.
    arguments.given.config()?;
    output::warning(
        "the trials write, read and delete below paths that begin with trial- and a random number",
        Some("give the plugin a store where that harms nobody; what it cannot delete stays there"),
    );
    let mut words = arguments.given.to_words()?;
    if arguments.layers {
        words.insert(0, "--layers".into());
    }
    let mut report = Report::new(&path, kind, arguments.layers);
    let mut progress = report::Progress::new(arguments.output.format);
    let end = worker::watch(global, "test", words, |event: Event| {
        progress.show(&event);
        report.hear(event);
    });
    progress.clear();
    match end? {
        End::Done if report.is_whole() => {}
        End::Done => report.crashed(match kind {
            Kind::Library => "it ended the process".to_owned(),
            Kind::Program => "exit status 0, before it was done".to_owned(),
        }),
        End::Crashed(how) => report.crashed(how),
        End::Killed => report.hear(Event::TimeUp),
        // It has said why.
        End::Failed(status) if report.is_empty() => return Err(Failure::silent(status)),
        End::Failed(status) => report.crashed(format!("exit status {status}")),
    }
    match arguments.output.format {
        Format::Json => output::json(&report)?,
        Format::Text => report.print()?,
    }
    report.outcome(global.deadline)
}
