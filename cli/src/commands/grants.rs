use clap::Args;
use keyhaul_remote::protocol::Grant;
use serde::Serialize;

use super::service::{Asked, Common, node, rows, scope};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  keyhaul grants
  keyhaul grants --node host-17 --format json";

/// Arguments of `grants`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only those of this scope
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    scope: Option<String>,

    /// Only those of this node
    #[arg(long, value_name = "NODE", value_parser = node)]
    node: Option<String>,

    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Grants {
    grants: Vec<Grant>,
}

/// Prints who may read what.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let keys = arguments.common.open(global)?;
    let (scope, node) = (arguments.scope.as_deref(), arguments.node.as_deref());
    let grants = keys.all(async |page| {
        let answer = keys.service.grants(scope, node, page, &keys.request);
        let answer = answer.await?;
        Ok((answer.grants, answer.next))
    })?;
    print(&keys, grants, "no grant")
}

/// Prints grants, one a line; `none` for a person where there is none.
pub fn print(keys: &Asked<'_>, grants: Vec<Grant>, none: &str) -> Outcome {
    keys.print(&Grants { grants }, |Grants { grants }| {
        if grants.is_empty() {
            output::words(none);
        }
        output::bytes(rows(grants).to_string().as_bytes())
    })
}
