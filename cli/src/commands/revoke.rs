use clap::Args;
use keyhaul_remote::protocol::RevokeRequest;

use super::Output;
use super::service::{ServiceName, ask, node, scope};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul revoke web01 host-17";

/// Arguments of `revoke`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The scope, as web01
    #[arg(value_name = "SCOPE", value_parser = scope)]
    scope: String,

    /// The node that may no longer read it
    #[arg(value_name = "NODE", value_parser = node)]
    node: String,

    #[command(flatten)]
    service: ServiceName,

    #[command(flatten)]
    output: Output,
}

/// Takes a grant away, from the node's next request on.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let service = arguments.service.open(&session)?;
    let (scope, node) = (arguments.scope, arguments.node);
    let body = RevokeRequest {
        scope: scope.clone(),
        node: node.clone(),
    };
    let done = ask(
        &session,
        &service,
        service.revoke(&body, &session.request()),
    )?;
    match arguments.output.format {
        Format::Json => output::json(&done)?,
        Format::Text if done.revoked => output::words(format_args!(
            "{node} can no longer read {scope}; epoch {}",
            done.epoch
        )),
        Format::Text => output::words(format_args!("{node} held no grant of {scope}")),
    }
    Ok(())
}
