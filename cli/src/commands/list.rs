use std::io::{self, IsTerminal as _};

use clap::Args;
use keyhaul_core::{Error, ErrorKind, Reference, Result, SecretPath, SecretStoreExt as _};
use serde::Serialize;

use super::Output;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul list web01                                    a scope's references
  keyhaul list --store site                             all that a store holds";

/// Arguments of `list`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only this scope, as web01; with --store, only what lies below this path
    #[arg(value_name = "SCOPE")]
    scope: Option<String>,

    /// List a store's own paths, whether a route leads there or not
    #[arg(long, value_name = "NAME")]
    store: Option<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct References {
    references: Vec<Reference>,
}

#[derive(Serialize)]
struct Paths {
    store: String,
    paths: Vec<SecretPath>,
}

/// Lists references, or a store's paths.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let json = arguments.output.format == Format::Json;
    if let Some(store) = arguments.store {
        let prefix = arguments
            .scope
            .map_or(Ok(SecretPath::root()), SecretPath::new)?;
        let paths = session.wait(paths(&session, &store, &prefix))?;
        if json {
            output::json(&Paths { store, paths })?;
        } else {
            print(paths.iter().map(SecretPath::as_str))?;
        }
        return Ok(());
    }
    if let Some(scope) = &arguments.scope {
        // A scope is the first segment of a reference: hold it against that grammar.
        if !Reference::parse(&format!("{scope}/x")).is_ok_and(|r| r.scope() == scope) {
            let rule = format!("{scope:?} is no scope: the first segment of a reference, as web01");
            return Err(Error::new(ErrorKind::InvalidReference, rule).into());
        }
    }
    let scope = arguments.scope.as_deref();
    let references = session.wait(session.resolver.list(scope, &session.request()))?;
    if json {
        output::json(&References { references })?;
    } else {
        print(references.iter().map(Reference::short))?;
    }
    Ok(())
}

async fn paths(session: &Session, store: &str, prefix: &SecretPath) -> Result<Vec<SecretPath>> {
    let store = session.resolver.store(store)?;
    store.list_for(prefix, &session.request()).await
}

fn print<'a>(lines: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
    // A program that reads it needs the names as they are.
    if io::stdout().is_terminal() {
        text = text.lines().map(|line| output::tame(line) + "\n").collect();
    }
    output::bytes(text.as_bytes())
}
