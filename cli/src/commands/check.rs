use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use keyhaul_core::{
    Error, ErrorKind, GetOptions, Policy, Protection, Reference, SecretStore, StoreFactory as _,
    protection,
};
use keyhaul_vault::{Access, Covered, VaultFactory};
use serde::Serialize;
use tokio::task::JoinSet;

use super::Output;
use crate::failure::{Outcome, status_of};
use crate::global::Global;
use crate::output::{self, Format, Style};
use crate::session::{self, Session};
use crate::times::shown;

const EXAMPLES: &str = "\
Examples:
  keyhaul check
  keyhaul check --refs /etc/keyhaul/web01.refs --format json
  keyhaul check --vault-policy | vault policy write keyhaul -";

/// Arguments of `check`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A file with a reference a line; each is resolved, and its value is not shown.
    /// Empty lines and lines that begin with `#` are passed over
    #[arg(long, value_name = "FILE")]
    refs: Option<PathBuf>,

    /// Print the least Vault policy, as HCL, that the routes need, and check nothing else. No store
    /// is asked
    #[arg(long, conflicts_with = "refs", conflicts_with = "format")]
    vault_policy: bool,

    /// With --vault-policy: also what writing, deleting and listing need
    #[arg(long, requires = "vault_policy")]
    write: bool,

    #[command(flatten)]
    output: Output,
}

/// What a check found, in the order it looked.
#[derive(Default, Serialize)]
struct Report {
    policy: Option<String>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    level: Level,
    subject: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(skip)]
    error: Option<ErrorKind>,
    /// The error for people, a line for each thing that is known about it.
    #[serde(skip)]
    lines: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Error,
}

/// Probes everything that a VM's start will need. Its exit status is that of the first failure's kind,
/// or 1 where there are several kinds.
pub fn run(global: &Global, arguments: Arguments) -> Outcome<u8> {
    if arguments.vault_policy {
        return vault_policy(global, arguments.write).map(|()| 0);
    }
    let mut report = Report::default();
    match policy(global) {
        Err(errors) => errors
            .iter()
            .for_each(|error| report.error("policy", error)),
        Ok(policy) => {
            report.policy = Some(policy.name.clone());
            match Session::open(global) {
                Err(failure) => failure
                    .errors()
                    .iter()
                    .for_each(|e| report.error("policy", e)),
                Ok(session) => {
                    report.ok(
                        "policy",
                        format!("{} is sound: {}", policy.name, size(&policy)),
                    );
                    stores(&session, &mut report);
                    if let Some(path) = &arguments.refs {
                        references(&session, path, &mut report);
                    }
                }
            }
        }
    }
    memory(&mut report);
    match arguments.output.format {
        Format::Json => output::json(&report)?,
        Format::Text => print(&report)?,
    }
    let kinds: Vec<ErrorKind> = report.findings.iter().filter_map(|f| f.error).collect();
    Ok(if kinds.is_empty() {
        0
    } else {
        status_of(None, kinds)
    })
}

/// The routes that lead to Vault stores, as the policy their client needs there.
fn vault_policy(global: &Global, write: bool) -> Outcome {
    let policy = policy(global)?;
    policy.check(&session::registry())?;
    let covered = |name: &String| {
        let routes = policy.routes.iter();
        routes
            .filter(|route| route.stores.contains(name))
            .map(|route| Covered::new(route.pattern.to_string(), &route.path))
            .collect::<Vec<_>>()
    };
    let stores: Vec<_> = policy
        .stores
        .values()
        .map(|entry| &entry.config)
        .filter(|config| VaultFactory.schemes().contains(&config.url.scheme()))
        .map(|config| (config.clone(), covered(&config.name)))
        .collect();
    if stores.is_empty() {
        let rule = format!("{} has no Vault store", policy.name);
        return Err(Error::new(ErrorKind::InvalidConfig, rule).into());
    }
    let access = if write { Access::Write } else { Access::Read };
    let text = keyhaul_vault::least_policy(&stores, access)?;
    output::line(text.trim_end())?;
    Ok(())
}

fn policy(global: &Global) -> Result<Policy, Vec<Error>> {
    Policy::load(&session::location(global).map_err(|error| vec![error])?)
}

fn size(policy: &Policy) -> String {
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    format!(
        "{}, {}",
        count(policy.stores.len(), "store"),
        count(policy.routes.len(), "route")
    )
}

fn stores(session: &Session, report: &mut Report) {
    if session.resolver.policy().routes.is_empty() {
        report.warn(
            "routes",
            "there are none: no reference leads anywhere",
            "add a [[routes]] entry",
        );
    }
    for (name, outcome) in probed(session) {
        let subject = format!("store {name}");
        match outcome {
            Ok(can) => report.ok(&subject, can),
            Err(error) => report.error(&subject, &error),
        }
    }
}

/// What each store says, by its name. All are asked at once: one that hangs takes no other's time.
fn probed(session: &Session) -> BTreeMap<String, Result<String, Error>> {
    let until = session.request().deadline;
    let mut outcomes = BTreeMap::new();
    session.wait(async {
        let mut probes = JoinSet::new();
        for name in session.resolver.policy().stores.keys() {
            match session.resolver.store(name) {
                Ok(store) => {
                    let name = name.clone();
                    probes.spawn(async move { (name, probe(store, until).await) });
                }
                Err(error) => {
                    outcomes.insert(name.clone(), Err(error));
                }
            }
        }
        // What panics has said so by the hook, and is missing below.
        while let Some(probed) = probes.join_next().await {
            outcomes.extend(probed);
        }
    });
    for name in session.resolver.policy().stores.keys() {
        let lost = || Err(Error::new(ErrorKind::Internal, "the probe was lost"));
        outcomes.entry(name.clone()).or_insert_with(lost);
    }
    outcomes
}

async fn probe(store: Arc<dyn SecretStore>, until: Option<Instant>) -> Result<String, Error> {
    let asked = async {
        store.probe().await?;
        let can = store.capabilities().await?.can.names().join(" ");
        Ok(format!(
            "{} answers; it can: {can}",
            store.descriptor().location
        ))
    };
    let Some(until) = until else {
        return asked.await;
    };
    match tokio::time::timeout_at(until.into(), asked).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let rule = "the deadline passed before the store's answer came";
            let error = Error::new(ErrorKind::Timeout, rule).with_store(&store.descriptor().name);
            Err(error.with_advice("give it longer by --deadline"))
        }
    }
}

fn references(session: &Session, path: &PathBuf, report: &mut Report) {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let error = Error::new(
                ErrorKind::InvalidConfig,
                format!("{} cannot be read", path.display()),
            )
            .with_source(error);
            return report.error("references", &error);
        }
    };
    let lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let subject = format!("{}:{number} {line}", path.display());
        let reference = match Reference::parse(line) {
            Ok(reference) => reference,
            Err(error) => {
                report.error(&subject, &error);
                continue;
            }
        };
        match spends(session, &reference) {
            Err(error) => {
                report.error(&subject, &error);
                continue;
            }
            Ok(Some(store)) => {
                report.warn(
                    &subject,
                    &format!("not read: that would spend the wrapped secret id of store {store}"),
                    "keyhaul login spends it, and keeps the login for the commands after it",
                );
                continue;
            }
            Ok(None) => {}
        }
        let options = GetOptions::default().request(session.request());
        match session.wait(session.resolver.get(&reference, options)) {
            Err(error) => report.error(&subject, &error),
            Ok(secret) => {
                report.ok(&subject, "resolves".to_owned());
                if reference.version().is_some() {
                    report.warn(
                        &subject,
                        "pins a version, which does not survive a move between stores",
                        "leave ?version= out, unless this VM must stay on it",
                    );
                }
                if let Some(expires) = secret.metadata.expires {
                    let message = format!(
                        "expires at {}: the store stops serving it then",
                        shown(expires)
                    );
                    report.warn(
                        &subject,
                        &message,
                        "store it again without --expires, or with a later one",
                    );
                }
            }
        }
    }
}

/// The store that reading a reference would cost a login that can be made only once, if any.
fn spends(session: &Session, reference: &Reference) -> Result<Option<String>, Error> {
    let policy = session.resolver.policy();
    // A reference that leads nowhere is told as what is read.
    let Ok(target) = policy.target(reference) else {
        return Ok(None);
    };
    for name in target.stores {
        if let Some(entry) = policy.stores.get(&name)
            && VaultFactory.schemes().contains(&entry.config.url.scheme())
            && keyhaul_vault::next_request_spends(&entry.config)?
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn memory(report: &mut Report) {
    // Something must have been allocated for the limits to show.
    drop(keyhaul_core::SecretBytes::init_with(32, |_| {}));
    match protection() {
        Protection::Full => report.ok(
            "memory",
            "secrets are locked in memory and kept out of dumps".to_owned(),
        ),
        Protection::Partial => report.warn(
            "memory",
            "secrets may be swapped out: the system did not lock their memory",
            "raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= in a unit)",
        ),
    }
}

impl Report {
    fn ok(&mut self, subject: &str, message: String) {
        self.push(Level::Ok, subject, message, None);
    }

    fn warn(&mut self, subject: &str, message: &str, advice: &str) {
        self.push(
            Level::Warning,
            subject,
            message.to_owned(),
            Some(advice.to_owned()),
        );
    }

    fn error(&mut self, subject: &str, error: &Error) {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        let advice = error.advice().map(str::to_owned);
        let finding = self.push(Level::Error, subject, message, advice);
        finding.kind = Some(error.kind().name());
        finding.error = Some(error.kind());
        finding.lines = Some(output::in_words(error, Style::of_stdout(), 8));
    }

    fn push(
        &mut self,
        level: Level,
        subject: &str,
        message: String,
        advice: Option<String>,
    ) -> &mut Finding {
        self.findings.push(Finding {
            level,
            subject: subject.to_owned(),
            message,
            kind: None,
            advice,
            error: None,
            lines: None,
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
}

fn print(report: &Report) -> keyhaul_core::Result<()> {
    let style = Style::of_stdout();
    for finding in &report.findings {
        let word = match finding.level {
            Level::Ok => style.good("ok     "),
            Level::Warning => style.warning("warning"),
            Level::Error => style.error("error  "),
        };
        if let Some(lines) = &finding.lines {
            output::line(format_args!("{word} {}: {lines}", finding.subject))?;
            continue;
        }
        output::line(format_args!(
            "{word} {}: {}",
            finding.subject, finding.message
        ))?;
        if let Some(advice) = &finding.advice {
            output::line(format_args!("        {} {advice}", style.label("next:")))?;
        }
    }
    Ok(())
}
