use clap::Args;
use keyhaul_core::{DeleteOptions, Error, ErrorKind, Reference, Version};

use super::{reference, version};
use crate::failure::Outcome;
use crate::global::Global;
use crate::session::Session;
use crate::{output, prompt};

/// Arguments of `delete`.
#[derive(Args, Debug)]
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
}

/// Deletes secrets, after asking a person who is there to be asked.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    if !arguments.yes {
        let names: Vec<&str> = arguments.references.iter().map(Reference::short).collect();
        let question = format!("Delete {} with all versions?", names.join(", "));
        let advice = "add --yes to delete without being asked";
        if global.non_interactive {
            let error = Error::new(ErrorKind::InvalidConfig, "a deletion is to be confirmed");
            return Err(error.with_advice(advice).into());
        }
        let answer = prompt::confirmed(&question);
        if !answer.map_err(|failure| failure.with_advice(advice))? {
            output::words("nothing was deleted");
            return Ok(());
        }
    }
    let mut errors = Vec::new();
    for reference in &arguments.references {
        let options = DeleteOptions::default()
            .version(arguments.if_version.clone())
            .force(arguments.force)
            .request(session.request());
        match session.wait(session.resolver.delete(reference, options)) {
            Ok(()) => output::words(format_args!("deleted {}", reference.short())),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.into())
    }
}
