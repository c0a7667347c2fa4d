//! What a plugin is, without a policy.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use keyhaul_core::registry::OptionKind;
use keyhaul_core::{
    Capabilities, Error, ErrorKind, Result, SecretStore, StoreConfig, StoreFactory as _,
};
use keyhaul_plugin_host::{Digest, PluginFactory};
use keyhaul_plugin_process::ProcessFactory;
use serde::{Deserialize, Serialize};

use super::given::Given;
use super::kind::Kind;
use super::words::Words;
use super::worker::{self, End, Teller};
use crate::commands::Output;
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::{self, Fields, Format, Style};
use crate::session;

const EXAMPLES: &str = "\
Examples:
  keyhaul plugin inspect /usr/lib/keyhaul/libkeyhaul_odd.so
  keyhaul plugin inspect ./odd-plugin --arg /var/lib/odd --format json";

/// Arguments of `plugin inspect`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    output: Output,
}

/// What there is to know of a plugin.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Findings {
    path: String,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(flatten)]
    said: Option<Said>,
    rules: Vec<Looked>,
    /// By the first rule that it does not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_value: Option<usize>,
    /// Why nobody knows its capabilities, where a store cannot be opened with what it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_opened: Option<Words>,
    /// What it did to the process that looked at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    broke: Option<Words>,
}

/// What a worker tells.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    /// The plugin is there, and is loaded or started next.
    Begins(Findings),
    /// What is known of it.
    Ended(Findings),
}

/// What a plugin says of itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Said {
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    interface: String,
    /// The functions that a library has: what has none it cannot do, whatever it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    functions: Option<Vec<String>>,
    options: Vec<Takes>,
}

/// An option that a plugin takes.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Takes {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// A rule, and what came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Looked {
    rule: String,
    outcome: Came,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Came {
    Passed,
    Refused,
    /// A rule before it refuses the plugin.
    NotReached,
}

/// Looks at a plugin. The exit status is 0, or that of the rule that refuses it, or of what it says to
/// the options that it was given.
pub fn run(global: &Global, arguments: &Arguments) -> Outcome<u8> {
    let given = &arguments.given;
    if worker::is_here() {
        let until = Instant::now() + global.deadline;
        let teller = Teller::new()?;
        let path = given.path()?;
        let begun = Findings::new(&path, given.kind()?).with_digest(&path);
        teller.tell(&Event::Begins(begun.clone()))?;
        teller.tell(&Event::Ended(look(given, begun, until)?))?;
        return Ok(0);
    }
    given.config()?;
    let path = given.path()?;
    let (mut found, mut ended) = (Findings::new(&path, given.kind()?), false);
    let words = given.to_words()?;
    let end = worker::watch(global, "inspect", words, |event| match event {
        Event::Begins(findings) => found = findings,
        Event::Ended(findings) => (found, ended) = (findings, true),
    })?;
    let broke = |rule: String, kind: ErrorKind| Error::new(kind, rule).with_place(path.display());
    let broken = match (end, ended) {
        (End::Done | End::Killed, true) => None,
        (End::Failed(status), _) => return Err(Failure::silent(status)),
        (End::Crashed(how), _) => {
            let when = if ended {
                "at its end"
            } else {
                "when it was loaded, or a store of it opened"
            };
            let rule = format!("{}, {when}", found.kind.ended(&how));
            Some(broke(rule, ErrorKind::Internal))
        }
        (End::Killed, false) => {
            let rule = "the plugin has not answered in time, and was ended";
            Some(broke(rule.to_owned(), ErrorKind::Timeout))
        }
        (End::Done, false) => {
            let rule = "the plugin ended keyhaul, as none may";
            Some(broke(rule.to_owned(), ErrorKind::Internal))
        }
    };
    found.broke = broken.as_ref().map(Words::from);
    match arguments.output.format {
        Format::Json => output::json(&found)?,
        Format::Text if broken.is_none() => print(&found)?,
        Format::Text => {}
    }
    let refused = found.refused.as_ref();
    // Without any it is no wonder that a store cannot be opened; with some, they are wrong.
    let has_options = given.has_options()?;
    let not_opened = found.not_opened.as_ref().filter(|_| has_options);
    let error = refused.or(not_opened).map(Words::error);
    match broken.or(error) {
        Some(error) => Err(error.into()),
        None => Ok(0),
    }
}

fn look(given: &Given, begun: Findings, until: Instant) -> Outcome<Findings> {
    let (path, config) = (given.path()?, given.config()?);
    let runtime = session::runtime()?;
    let found = runtime.block_on(async {
        match begun.kind {
            Kind::Library => library(begun, &path, &config, until).await,
            Kind::Program => program(begun, &path, given.arguments(), &config, until).await,
        }
    });
    runtime.shutdown_background();
    Ok(found)
}

async fn library(
    mut findings: Findings,
    path: &Path,
    config: &StoreConfig,
    until: Instant,
) -> Findings {
    let factory = PluginFactory::default();
    let inspection = factory.examine(path, None);
    let rules = keyhaul_plugin_host::Rule::ALL;
    findings.rules = looked(rules.map(|rule| (rule.words(), inspection.passed.contains(&rule))));
    let loaded = match inspection.outcome {
        Ok(loaded) => loaded,
        Err(error) => {
            findings.refused = Some((&error).into());
            return findings;
        }
    };
    // What was loaded, whatever lies there by now.
    findings.sha256 = Some(loaded.digest.to_string());
    let takes = |option: &keyhaul_plugin_host::Declared| Takes {
        name: option.name.clone(),
        kind: option.kind.name().to_owned(),
        required: None,
        default: Some(option.fallback.clone()).filter(|text| !text.is_empty()),
        help: Some(option.help.clone()).filter(|text| !text.is_empty()),
    };
    findings.said = Some(Said {
        name: loaded.name,
        version: loaded.version,
        summary: Some(loaded.summary).filter(|text| !text.is_empty()),
        interface: format!("{}.{}", loaded.interface.0, loaded.interface.1),
        functions: Some(
            loaded
                .functions
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
        ),
        options: loaded.options.iter().map(takes).collect(),
    });
    findings.open(factory.open(config), until).await;
    findings
}

async fn program(
    mut findings: Findings,
    path: &Path,
    arguments: &[String],
    config: &StoreConfig,
    until: Instant,
) -> Findings {
    let inspection = keyhaul_plugin_process::inspect(path, arguments, until).await;
    let rules = keyhaul_plugin_process::Rule::ALL;
    findings.rules = looked(rules.map(|rule| (rule.words(), inspection.passed.contains(&rule))));
    let said = match inspection.outcome {
        Ok(said) => said,
        Err(error) => {
            findings.refused = Some((&error).into());
            return findings;
        }
    };
    let takes = |option: &keyhaul_plugin_process::SaidOption| Takes {
        name: option.name.clone(),
        kind: option.kind.clone(),
        required: Some(option.required),
        default: None,
        help: Some(option.help.clone()).filter(|text| !text.is_empty()),
    };
    findings.said = Some(Said {
        name: said.name,
        version: said.version,
        summary: None,
        interface: said.protocol.to_string(),
        functions: None,
        options: said.options.iter().map(takes).collect(),
    });
    let store = ProcessFactory.store(config);
    let store = store.map(|store| Arc::new(store) as Arc<dyn SecretStore>);
    findings.open(store, until).await;
    findings
}

impl Findings {
    fn new(path: &Path, kind: Kind) -> Self {
        Self {
            path: path.display().to_string(),
            kind,
            sha256: None,
            said: None,
            rules: Vec::new(),
            refused: None,
            capabilities: None,
            max_value: None,
            not_opened: None,
            broke: None,
        }
    }

    /// The same with the digest of what lies there.
    fn with_digest(mut self, path: &Path) -> Self {
        let digest = Digest::of(path).ok();
        self.sha256 = digest.map(|digest| digest.to_string());
        self
    }

    /// What a store can do, where one can be opened.
    async fn open(&mut self, store: Result<Arc<dyn SecretStore>>, until: Instant) {
        let told: Result<Capabilities> = match store {
            Err(error) => Err(error),
            Ok(store) => match tokio::time::timeout_at(until.into(), store.capabilities()).await {
                Ok(told) => told,
                Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer in time")),
            },
        };
        match told {
            Ok(told) => {
                self.capabilities = Some(told.can.names());
                self.max_value = Some(told.max_value);
            }
            Err(error) => self.not_opened = Some((&error).into()),
        }
    }
}

/// Each rule with what came of it: the first that is not passed is the one that refuses.
fn looked<const N: usize>(rules: [(&'static str, bool); N]) -> Vec<Looked> {
    let mut refused = false;
    let each = rules.into_iter().map(|(rule, passed)| {
        let outcome = match (passed, refused) {
            (true, _) => Came::Passed,
            (false, true) => Came::NotReached,
            (false, false) => Came::Refused,
        };
        refused |= !passed;
        Looked {
            rule: rule.to_owned(),
            outcome,
        }
    });
    each.collect()
}

fn print(findings: &Findings) -> Result<()> {
    let style = Style::of_stdout();
    let mut fields = Fields::default();
    fields.push(findings.kind.name(), &findings.path);
    let said = findings.said.as_ref();
    fields.push_some("name", said.map(|said| &said.name));
    fields.push_some("version", said.map(|said| &said.version));
    fields.push_some("summary", said.and_then(|said| said.summary.as_ref()));
    let interface = match findings.kind {
        Kind::Library => "interface",
        Kind::Program => "protocol",
    };
    fields.push_some(interface, said.map(|said| &said.interface));
    let functions = said.and_then(|said| said.functions.as_ref());
    fields.push_some("functions", functions.map(|names| names.join(" ")));
    fields.push_some(
        "can",
        findings.capabilities.as_ref().map(|can| can.join(" ")),
    );
    fields.push_some(
        "longest value",
        findings.max_value.map(|bytes| format!("{bytes} bytes")),
    );
    if let Some(words) = &findings.not_opened {
        let error = output::in_words(&words.error(), style, 6);
        fields.push(
            "can",
            format!("not known, since no store can be opened\n      {error}"),
        );
    }
    let mut text = fields.to_string();
    match &findings.sha256 {
        // Nobody is told to pin what was refused.
        Some(digest) if findings.kind == Kind::Library && findings.refused.is_none() => {
            text += &format!("\n\nto pin it, in its store in the policy:\nsha256 = \"{digest}\"");
        }
        Some(digest) => text += &format!("\nSHA-256: {digest}"),
        None => {}
    }
    if let Some(said) = said {
        text += "\n\noptions:";
        if said.options.is_empty() {
            text += " none";
        }
        for option in &said.options {
            let kind = OptionKind::named(&option.kind).map_or(&*option.kind, |kind| kind.words());
            text += &format!("\n  {}: {kind}", option.name);
            if let Some(default) = &option.default {
                text += &format!(" [default: {default}]");
            }
            if option.required == Some(true) {
                text += ", required";
            }
            if let Some(help) = &option.help {
                text += &format!("\n      {help}");
            }
        }
    }
    text += "\n\nrules:";
    for looked in &findings.rules {
        let word = match looked.outcome {
            Came::Passed => style.good("passed     "),
            Came::Refused => style.error("REFUSED    "),
            Came::NotReached => "not reached".to_owned(),
        };
        text += &format!("\n  {word}  {}", looked.rule);
    }
    output::line(text)
}
