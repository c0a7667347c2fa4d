use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use keyhaul_core::{DeleteOptions, Error, ErrorKind, Reference, Remains, Version};
use serde::Serialize;

use super::service::{services, typed};
use super::{Output, reference, version};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::Format;
use crate::session::Session;
use crate::times::shown;
use crate::{output, prompt};

const EXAMPLES: &str = "\
Examples:
  keyhaul delete web01/root-disk
  keyhaul delete --yes --force web01/root-disk          although a node holds a grant of web01";

/// Arguments of `delete`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secrets, as web01/root-disk
    #[arg(value_name = "REF", required = true, value_parser = reference)]
    references: Vec<Reference>,

    /// Only where this is the current version
    #[arg(long, value_name = "VERSION", value_parser = version)]
    if_version: Option<Version>,

    /// Even where a node holds a grant of the scope, as a key service knows
    #[arg(long)]
    force: bool,

    /// Ask no question
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    output: Output,
}

/// What became of the secrets.
#[derive(Default, Serialize)]
struct Deletions {
    deleted: Vec<Deleted>,
}

/// A secret that is deleted.
#[derive(Serialize)]
struct Deleted {
    reference: String,
    /// Until when it can be brought back: null where it cannot, and left out where its store says
    /// nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    restorable_until: Option<Option<Timestamp>>,
}

/// Deletes secrets, after asking a person who is there to be asked.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let mut done = Deletions::default();
    let mut errors = Vec::new();
    if arguments.yes || confirmed(global, &arguments.references)? {
        for reference in &arguments.references {
            let remains = Remains::default();
            let options = DeleteOptions::default()
                .version(arguments.if_version.clone())
                .force(arguments.force)
                .remains(remains.clone())
                .request(session.request());
            if let Err(error) = session.wait(session.resolver.delete(reference, options)) {
                errors.push(error);
                continue;
            }
            let until = remains.told();
            if arguments.output.format == Format::Text {
                let short = reference.short();
                let rest = rest(until, || restore(global, &session, reference));
                output::words(format_args!("deleted {short}{rest}"));
            }
            done.deleted.push(Deleted {
                reference: reference.short().to_owned(),
                restorable_until: until
                    .map(|until| until.and_then(|time| Timestamp::try_from(time).ok())),
            });
        }
    } else if arguments.output.format == Format::Text {
        output::words("nothing was deleted");
    }
    if arguments.output.format == Format::Json {
        output::json(&done)?;
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.into())
    }
}

/// Whether a person says yes.
fn confirmed(global: &Global, references: &[Reference]) -> Outcome<bool> {
    let advice = "add --yes to delete without being asked";
    if global.non_interactive {
        let error = Error::new(ErrorKind::InvalidConfig, "a deletion is to be confirmed");
        return Err(error.with_advice(advice).into());
    }
    let names: Vec<&str> = references.iter().map(Reference::short).collect();
    let question = format!("Delete {} with all versions?", names.join(", "));
    prompt::confirmed(&question).map_err(|failure| failure.with_advice(advice))
}

/// What is left of a deleted secret, in words.
fn rest(until: Option<Option<SystemTime>>, restore: impl FnOnce() -> String) -> String {
    match until {
        None => String::new(),
        Some(None) => "; nothing of it is left to restore".to_owned(),
        Some(Some(until)) => format!("; until {}: {}", shown(until), restore()),
    }
}

/// The command that brings it back, from the service that has it.
fn restore(global: &Global, session: &Session, reference: &Reference) -> String {
    let target = session.resolver.target(reference).ok();
    let store = target.and_then(|target| target.stores.into_iter().next());
    let service = store.filter(|_| services(session).len() > 1);
    let words = format!("restore {}", reference.subject());
    typed(global, service.as_deref(), &words)
}
