use clap::Args;

use super::grants::print;
use super::service::{Common, node};
use crate::failure::Outcome;
use crate::global::Global;

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
    common: Common,
}

/// Prints the grants that a node holds.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let keys = arguments.common.open(global)?;
    let node = &arguments.node;
    let answer = keys.ask(keys.service.what_can(node, &keys.request))?;
    print(&keys, answer.grants, &format!("{node} holds no grant"))
}
