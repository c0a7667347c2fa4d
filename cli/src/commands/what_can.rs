use clap::Args;

use super::Output;
use super::grants::print;
use super::service::{ServiceName, ask, node};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul what-can host-17";

/// Arguments of `what-can`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The node
    #[arg(value_name = "NODE", value_parser = node)]
    node: String,

    #[command(flatten)]
    service: ServiceName,

    #[command(flatten)]
    output: Output,
}

/// Prints the grants that a node holds.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let service = arguments.service.open(&session)?;
    let answer = ask(
        &session,
        &service,
        service.what_can(&arguments.node, &session.request()),
    )?;
    if answer.grants.is_empty() && arguments.output.format == Format::Text {
        let node = &arguments.node;
        output::words(format_args!("{node} holds no grant"));
    }
    print(answer.grants, arguments.output)
}
