use clap::Args;
use keyhaul_remote::protocol::Grant;
use serde::Serialize;

use super::Output;
use super::service::{ServiceName, all, ask, node, rows, scope};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

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
    service: ServiceName,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
pub struct Grants {
    pub grants: Vec<Grant>,
}

/// Prints who may read what.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let service = arguments.service.open(&session)?;
    let request = session.request();
    let (scope, node) = (arguments.scope.as_deref(), arguments.node.as_deref());
    let grants = ask(
        &session,
        &service,
        all(async |page| {
            let answer = service.grants(scope, node, page, &request).await?;
            Ok((answer.grants, answer.next))
        }),
    )?;
    print(grants, arguments.output)
}

/// Prints grants, one a line.
pub fn print(grants: Vec<Grant>, output: Output) -> Outcome {
    match output.format {
        Format::Json => output::json(&Grants { grants })?,
        Format::Text => output::bytes(rows(&grants).to_string().as_bytes())?,
    }
    Ok(())
}
