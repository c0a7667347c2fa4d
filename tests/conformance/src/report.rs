//! Running the trials and telling what came of them.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use keyhaul_core::{Capabilities, Capability};

use crate::Handles;
use crate::ground::Ground;
use crate::handles::{MANAGES, READS};
use crate::outcome::{Expect as _, Failure, Outcome};
use crate::trials::{self, Trial};

/// No trial asks a store for more than a few hundred small requests.
const LIMIT: Duration = Duration::from_secs(120);

/// The trial without which there are no others.
const CAPABILITIES: &str = "every handle tells its capabilities";

/// What happens while a store is held to the contract.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// So many trials concern the store.
    Chosen(usize),
    /// The trial that this sentence holds begins.
    Begins(&'static str),
    /// It has ended.
    Ended(&'a TrialReport),
}

/// Holds a store to the contract and returns how many trials it went through.
///
/// `open` gives a [`Handles`], or the one store that is all three. It is called once.
///
/// # Panics
/// When a trial fails, with a report of every one that did.
pub async fn run<H: Into<Handles>>(open: impl AsyncFn() -> H) -> usize {
    let report = report(open().await).await;
    assert!(report.is_ok(), "{report}");
    report.trials.len()
}

/// Holds a store to the contract and tells what came of it.
pub async fn report(handles: impl Into<Handles>) -> Report {
    watched(handles, LIMIT, |_| ()).await
}

/// As [`report`], for those who want to see how it goes, and no trial longer than `limit`.
pub async fn watched(
    handles: impl Into<Handles>,
    limit: Duration,
    mut watch: impl FnMut(Progress<'_>),
) -> Report {
    let handles = handles.into();
    let mut report = Report::default();
    let capabilities = match capabilities(&handles).await {
        Ok(capabilities) => capabilities,
        Err(failure) => {
            watch(Progress::Chosen(1));
            watch(Progress::Ended(report.add(CAPABILITIES, Err(failure))));
            return report;
        }
    };
    let chosen: Vec<&Trial> = trials::all()
        .filter(|trial| trial.concerns(capabilities.can))
        .collect();
    watch(Progress::Chosen(chosen.len()));
    for trial in chosen {
        watch(Progress::Begins(trial.name));
        let ground = Ground::new(handles.clone(), capabilities);
        let outcome = attempt(trial, ground, limit).await;
        watch(Progress::Ended(report.add(trial.name, outcome)));
    }
    report
}

/// What came of the trials.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Every trial the store went through, in order.
    pub trials: Vec<TrialReport>,
}

/// What came of one trial.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrialReport {
    /// What the trial holds, as a sentence.
    pub name: &'static str,
    /// Why it failed, where it did.
    pub failure: Option<Failure>,
}

impl Report {
    /// Whether every trial passed, and there was one.
    pub fn is_ok(&self) -> bool {
        !self.trials.is_empty() && self.failed().next().is_none()
    }

    /// The trials that failed.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, &Failure)> {
        self.trials
            .iter()
            .filter_map(|trial| Some((trial.name, trial.failure.as_ref()?)))
    }

    fn add(&mut self, name: &'static str, outcome: Outcome) -> &TrialReport {
        self.trials.push(TrialReport {
            name,
            failure: outcome.err(),
        });
        let last = self.trials.len() - 1;
        &self.trials[last]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed().count();
        write!(f, "{} trials, {failed} failed", self.trials.len())?;
        for (name, failure) in self.failed() {
            write!(
                f,
                "\n\n  {name}\n    expected: {}\n    came:     {}",
                failure.expected, failure.came
            )?;
        }
        Ok(())
    }
}

/// What the handles can do together, each asked about its own role.
async fn capabilities(handles: &Handles) -> Outcome<Capabilities> {
    let mut can = Capability::empty();
    let mut max_value = 0;
    for (role, store) in handles.named() {
        let told = store
            .capabilities()
            .await
            .succeeds(&format!("capabilities of the {role}"))?;
        can |= told.can
            & match role {
                "reader" => READS,
                "manager" => MANAGES,
                _ => (READS | MANAGES).complement(),
            };
        if role == "writer" {
            max_value = told.max_value;
        }
    }
    Ok(Capabilities::new(can, max_value))
}

/// A trial, its cleaning up and its looking for leaks, within a time limit; a panic is a failure.
async fn attempt(trial: &Trial, ground: Ground, limit: Duration) -> Outcome {
    let held = within(limit, (trial.run)(ground.clone())).await;
    let cleaned = within(limit, ground.clean_up()).await;
    held.and(cleaned).and(ground.leaks())
}

async fn within(limit: Duration, work: impl Future<Output = Outcome>) -> Outcome {
    let caught = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(limit, caught).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::new("an answer", "a panic, which is printed above")),
        Err(_) => Err(Failure::new(
            "an answer",
            format!("none within {} s", limit.as_secs()),
        )),
    }
}
