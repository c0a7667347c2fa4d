//! What came of a plugin's trials, for people and for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result};
use serde::Serialize;

use super::super::kind::Kind;
use super::super::words::Words;
use super::{Event, Facts, Trial};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format, Style};

/// What came of a plugin's trials.
#[derive(Serialize)]
pub struct Report {
    path: String,
    kind: Kind,
    layers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<Facts>,
    /// Why there is no store to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Words>,
    passed: usize,
    failed: usize,
    not_run: usize,
    /// How keyhaul's own process ended before it was done, if it did: by the plugin's doing where that
    /// is a library, which is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    crashed: Option<String>,
    time_is_up: bool,
    /// The trial that was under way then.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_off: Option<String>,
    trials: Vec<Trial>,
    #[serde(skip)]
    chosen: usize,
    #[serde(skip)]
    running: Option<String>,
}

impl Report {
    pub fn new(path: &Path, kind: Kind, layers: bool) -> Self {
        Self {
            path: path.display().to_string(),
            kind,
            layers,
            plugin: None,
            refused: None,
            passed: 0,
            failed: 0,
            not_run: 0,
            crashed: None,
            time_is_up: false,
            broken_off: None,
            trials: Vec::new(),
            chosen: 0,
            running: None,
        }
    }

    /// Whether nothing has been heard.
    pub fn is_empty(&self) -> bool {
        self.plugin.is_none() && self.refused.is_none() && !self.time_is_up
    }

    /// Whether the worker told all there is to tell.
    pub fn is_whole(&self) -> bool {
        let tried = self.chosen > 0 && self.trials.len() == self.chosen;
        tried || self.refused.is_some() || self.time_is_up
    }

    /// Takes in what the worker tells.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Opened(facts) => self.plugin = Some(facts),
            Event::Refused(words) => self.refused = Some(words),
            Event::Chosen(count) => self.chosen = count,
            Event::Begins(name) => self.running = Some(name),
            Event::Ended(trial) => {
                self.running = None;
                self.trials.push(trial);
            }
            Event::TimeUp => {
                self.time_is_up = true;
                self.break_off("the time for all trials was over first");
            }
        }
        self.count();
    }

    /// The worker ended before it was done.
    pub fn crashed(&mut self, how: String) {
        let when = match &self.running {
            Some(_) => "here",
            None if self.plugin.is_none() => "when it was opened",
            None => "between the trials, or at the end",
        };
        let came = format!("{}, {when}", self.kind.ended(&how));
        self.break_off(&came);
        self.crashed = Some(how);
        self.count();
    }

    /// The trial that was under way has failed.
    fn break_off(&mut self, came: &str) {
        if let Some(name) = self.running.take() {
            self.broken_off = Some(name.clone());
            self.trials.push(Trial {
                name,
                passed: false,
                expected: Some("an answer".to_owned()),
                came: Some(came.to_owned()),
            });
        }
    }

    fn count(&mut self) {
        self.passed = self.trials.iter().filter(|trial| trial.passed).count();
        self.failed = self.trials.len() - self.passed;
        self.not_run = self.chosen.saturating_sub(self.trials.len());
    }

    /// Prints it, trial by trial.
    pub fn print(&self) -> Result<()> {
        let style = Style::of_stdout();
        let mut text = format!("{} {}", self.kind.name(), self.path);
        if let Some(facts) = &self.plugin {
            text += &format!("\nis {} {}", facts.name, facts.version);
            text += &format!("\nhas SHA-256 {}", facts.sha256);
            text += &format!("\ncan {}", facts.capabilities.join(" "));
            text += &format!("\nkeeps values of at most {} bytes\n", facts.max_value);
        }
        for trial in &self.trials {
            let word = if trial.passed {
                style.good("passed")
            } else {
                style.error("FAILED")
            };
            text += &format!("\n{word}  {}", trial.name);
            for (label, words) in [("expected", &trial.expected), ("came", &trial.came)] {
                if let Some(words) = words {
                    text += &format!("\n          {} {words}", style.label(&format!("{label}:")));
                }
            }
        }
        if self.plugin.is_some() {
            let (passed, failed) = (self.passed, self.failed);
            text += &format!("\n\n{passed} passed, {failed} failed");
            if self.not_run > 0 {
                text += &format!(", {} not run", self.not_run);
            }
        }
        output::line(text)
    }

    /// How the command ends.
    pub fn outcome(&self, deadline: Duration) -> Outcome<u8> {
        if let Some(words) = &self.refused {
            return Err(words.error().into());
        }
        let mut errors = Vec::new();
        if let Some(how) = &self.crashed {
            let crash = self.kind.ended(how);
            let rule = match &self.broken_off {
                Some(trial) => format!("{crash}, in the trial {trial:?}"),
                None => crash,
            };
            let error = Error::new(ErrorKind::Internal, rule);
            errors.push(error.with_advice(match self.kind {
                Kind::Library => {
                    "a debugger tells where: gdb -ex 'set follow-fork-mode child' -ex run --args keyhaul plugin test …"
                }
                Kind::Program => {
                    "see whether the plugin or somebody else sends signals; if not, the failure is keyhaul's: report it"
                }
            }));
        }
        if self.time_is_up {
            let rule = format!("not all was done within {} ms", deadline.as_millis());
            let error = Error::new(ErrorKind::Timeout, rule);
            errors.push(
                error.with_advice("give it longer by --deadline, or see where the plugin hangs"),
            );
        }
        let broke = self.failed > usize::from(self.broken_off.is_some());
        if !errors.is_empty() {
            if broke {
                errors.push(self.broken());
            }
            return Err(Failure::from(errors));
        }
        if broke {
            return Err(self.broken().into());
        }
        Ok(0)
    }

    fn broken(&self) -> Error {
        let failed = self.failed;
        let rule = match failed {
            1 => "the plugin fails a trial".to_owned(),
            _ => format!("the plugin fails {failed} trials"),
        };
        Error::new(ErrorKind::Internal, rule)
            .with_advice("each is a sentence of the contract: docs/backend.md has its reasons")
    }
}

/// Where the test stands, for a person at a terminal.
pub struct Progress {
    shown: bool,
    chosen: usize,
    begun: usize,
}

impl Progress {
    pub fn new(format: Format) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            shown: format == Format::Text && io::stderr().is_terminal() && !dumb,
            chosen: 0,
            begun: 0,
        }
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Chosen(count) => self.chosen = *count,
            Event::Begins(name) => {
                self.begun += 1;
                self.write(&format!("[{}/{}] {name}", self.begun, self.chosen));
            }
            _ => {}
        }
    }

    /// Leaves the line empty.
    pub fn clear(&self) {
        self.write("");
    }

    fn write(&self, line: &str) {
        if self.shown {
            // Nothing is lost where a terminal does not take it.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
        }
    }
}
