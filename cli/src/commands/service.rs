//! What the commands of a key service share: which service, how it is asked, and how its answers
//! are printed.

use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Reference, Request, Result, StoreConfig};
use keyhaul_remote::client::Service;
use keyhaul_remote::protocol::{Grant, Paging, check_node_name};
use serde::Serialize;

use super::{Output, no_such};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format, Rows, shell_quoted};
use crate::session::Session;
use crate::times::shown;

/// What every command takes that asks a key service.
#[derive(Args, Debug)]
pub struct Common {
    /// The key service, by its store's name in the policy [default: the only one there]
    #[arg(long, value_name = "STORE")]
    service: Option<String>,

    #[command(flatten)]
    output: Output,
}

/// A key service that is asked.
pub struct Asked<'a> {
    pub service: Service,
    pub request: Request,
    pub format: Format,
    session: Session,
    global: &'a Global,
    name: Option<String>,
}

impl Common {
    /// The service that is meant. Asks nobody yet.
    pub fn open(self, global: &Global) -> Outcome<Asked<'_>> {
        let session = Session::open(global)?;
        let service = Service::open(self.config(&session)?)?;
        Ok(Asked {
            service,
            request: session.request(),
            format: self.output.format,
            session,
            global,
            name: self.service,
        })
    }

    fn config<'a>(&self, session: &'a Session) -> Result<&'a StoreConfig> {
        let policy = session.resolver.policy();
        let services = services(session);
        let names: Vec<&str> = services.iter().map(|config| config.name.as_str()).collect();
        let refuse = |rule: String, advice: String| {
            Err(Error::new(ErrorKind::InvalidConfig, rule).with_advice(advice))
        };
        match (&self.service, services.as_slice()) {
            (_, []) => refuse(
                format!("{} has no key service", policy.name),
                "add a store with a url keyhaul+https://…, or name another policy by --config"
                    .to_owned(),
            ),
            (None, [only]) => Ok(only),
            (None, _) => refuse(
                format!("{} has several key services", policy.name),
                format!("name one by --service: {}", names.join(", ")),
            ),
            (Some(wanted), _) => {
                if let Some(config) = services.iter().find(|config| config.name == *wanted) {
                    return Ok(config);
                }
                let rule = no_such(policy, wanted, "and no key service");
                refuse(rule, format!("its key services are: {}", names.join(", ")))
            }
        }
    }
}

impl Asked<'_> {
    /// Asks to the end, but not past the deadline; a failure says which service.
    pub fn ask<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let name = &self.service.descriptor().name;
        self.session.within(work).map_err(|error| {
            let error = error.with_store(name);
            match error.kind() {
                ErrorKind::Timeout => error.with_advice(format!(
                    "give it longer by --deadline; whether the service answers at all: {}",
                    typed(self.global, None, "check")
                )),
                _ => error,
            }
        })
    }

    /// All entries of an answer in pages: those of each page, and where the next begins.
    pub fn all<T>(
        &self,
        page: impl AsyncFnMut(&Paging) -> Result<(Vec<T>, Option<String>)>,
    ) -> Result<Vec<T>> {
        self.ask(pages(page))
    }

    /// Prints an answer: as JSON, or as `text` has it.
    pub fn print<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> Result<()>) -> Outcome {
        match self.format {
            Format::Json => output::json(answer)?,
            Format::Text => text(answer)?,
        }
        Ok(())
    }

    /// A command as it is typed to ask the same service.
    pub fn typed(&self, words: &str) -> String {
        typed(self.global, self.name.as_deref(), words)
    }
}

/// The key services of the policy.
pub fn services(session: &Session) -> Vec<&StoreConfig> {
    let registry = crate::session::registry();
    let is_service = |config: &&StoreConfig| {
        let factory = registry.factory(config);
        factory.is_ok_and(|factory| factory.is_key_service())
    };
    let stores = session.resolver.policy().stores.values();
    stores
        .map(|entry| &entry.config)
        .filter(is_service)
        .collect()
}

/// A command as it is typed under the same policy; `service` where there is a choice.
pub fn typed(global: &Global, service: Option<&str>, words: &str) -> String {
    let mut line = "keyhaul".to_owned();
    if let Some(config) = &global.config {
        line += &format!(" --config {}", shell_quoted(config.as_os_str()).display());
    }
    line += &format!(" {words}");
    if let Some(service) = service {
        line += &format!(" --service {}", shell_quoted(service.as_ref()).display());
    }
    line
}

async fn pages<T>(
    mut page: impl AsyncFnMut(&Paging) -> Result<(Vec<T>, Option<String>)>,
) -> Result<Vec<T>> {
    let mut paging = Paging::default();
    let mut all = Vec::new();
    loop {
        let (entries, next) = page(&paging).await?;
        all.extend(entries);
        match next {
            Some(next) if paging.after.as_ref() == Some(&next) => {
                let rule = "the service's pages have no end";
                return Err(Error::new(ErrorKind::Corrupt, rule));
            }
            Some(next) => paging.after = Some(next),
            None => return Ok(all),
        }
    }
}

/// A scope on the command line.
pub fn scope(text: &str) -> Result<String, String> {
    match Reference::parse(&format!("{text}/x")) {
        Ok(reference) if reference.scope() == text => Ok(text.to_owned()),
        _ => Err("a scope is the first segment of a reference, as web01".to_owned()),
    }
}

/// A node's name on the command line.
pub fn node(text: &str) -> Result<String, String> {
    match check_node_name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.message().to_owned()),
    }
}

/// Grants, one a line.
pub fn rows(grants: &[Grant]) -> Rows {
    let mut rows = Rows::default();
    for grant in grants {
        rows.push([
            grant.scope.clone(),
            grant.node.clone(),
            named(&grant.names),
            until(grant.expires),
            format!("epoch {}", grant.epoch),
            match &grant.migration {
                Some(id) => format!("by {}, migration {id}", grant.by),
                None => format!("by {}", grant.by),
            },
        ]);
    }
    rows
}

/// The names that a grant covers.
pub fn named(names: &[String]) -> String {
    if names.is_empty() {
        "all names".to_owned()
    } else {
        names.join(" ")
    }
}

/// How long something holds.
pub fn until(end: Option<Timestamp>) -> String {
    match end {
        Some(end) => format!("until {}", at(end)),
        None => "without end".to_owned(),
    }
}

/// A moment, to the second.
pub fn at(time: Timestamp) -> String {
    shown(SystemTime::from(time))
}
