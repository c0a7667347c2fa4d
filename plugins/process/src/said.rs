//! What a program says of itself, for people who look at plugins.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keyhaul_core::{Capabilities, Result};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use crate::config::{STALL, Settings};
use crate::error::{lost, too_late};
use crate::session::Session;
use crate::wire::{Hello, VERSION};
use crate::{confined, law, trust};

/// What a program said in its hello.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Said {
    /// The version of the protocol.
    pub protocol: u64,
    /// What the plugin calls itself.
    pub name: String,
    /// Its version, in its own words.
    pub version: String,
    /// What a store of it can do, with what the host makes up for.
    pub capabilities: Capabilities,
    /// What it takes in the policy.
    pub options: Vec<SaidOption>,
}

/// An option that a program takes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SaidOption {
    /// Its key.
    pub name: String,
    /// `text`, `credential` and so on, in the program's word.
    pub kind: String,
    /// Whether there is no store without it.
    pub required: bool,
    /// What it is for; may be empty.
    pub help: String,
}

/// What is asked of a program, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// Nobody else can change it.
    Trusted,
    /// It can be executed.
    Starts,
    /// It says hello in this version of the protocol.
    Hello,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: [Self; 3] = [Self::Trusted, Self::Starts, Self::Hello];

    /// The rule as a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Trusted => {
                "it is a regular file; it and every folder and link on the way to it is root's or ours, and nobody else can write there"
            }
            Self::Starts => "it can be executed",
            Self::Hello => "it says hello, in version 1 of the protocol",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What came of holding a program to the rules.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The rules that it passed, from the first on. The next one is what it was refused by.
    pub passed: Vec<Rule>,
    /// What it says of itself, or why it is refused.
    pub outcome: Result<Said>,
}

/// Starts the program at `path` without a policy, by the same rules, and ends it after its hello, or
/// `until` then without one.
pub async fn inspect(path: &Path, arguments: &[String], until: Instant) -> Inspection {
    let mut passed = Vec::new();
    let outcome = hear(path, arguments, until, &mut passed).await;
    Inspection { passed, outcome }
}

async fn hear(
    path: &Path,
    arguments: &[String],
    until: Instant,
    passed: &mut Vec<Rule>,
) -> Result<Said> {
    let settings = Settings {
        store: "inspection".to_owned(),
        place: "the command line".to_owned(),
        program: path.to_owned(),
        arguments: arguments.to_vec(),
        options: None,
        stall: STALL.min(until.saturating_duration_since(Instant::now())),
        fence: None,
    };
    let looked = settings.program.clone();
    let program = by(until, move || trust::trusted(&looked)).await?;
    passed.push(Rule::Trusted);
    let words = settings.arguments.clone();
    // Where nobody waits for it any more, it is killed as soon as it runs.
    let started = by(until, move || confined::start(&program, &words, None)).await?;
    passed.push(Rule::Starts);
    let session = Session::begin(Arc::new(settings), started).await?;
    let said = Said::from(session.talk.hello()?);
    passed.push(Rule::Hello);
    session.close();
    Ok(said)
}

/// What `work` comes to, where it is done by then.
async fn by<T: Send + 'static>(
    until: Instant,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = timeout_at(until.into(), spawn_blocking(work)).await;
    done.map_err(|_| too_late())?.map_err(lost)?
}

impl From<&Hello> for Said {
    fn from(hello: &Hello) -> Self {
        let option = |option: &crate::wire::Declared| SaidOption {
            name: option.name.clone(),
            kind: option.kind.clone(),
            required: option.required,
            help: option.help.clone(),
        };
        Self {
            protocol: VERSION,
            name: hello.name.clone(),
            version: hello.version.clone(),
            capabilities: law::capabilities(hello.capabilities),
            options: hello.options.iter().map(option).collect(),
        }
    }
}
