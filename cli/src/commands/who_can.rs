use clap::Args;
use keyhaul_core::Reference;

use super::grants::print;
use super::reference;
use super::service::Common;
use crate::failure::Outcome;
use crate::global::Global;

const EXAMPLES: &str = "\
Examples:
  keyhaul who-can web01/root-disk";

/// Arguments of `who-can`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = reference)]
    reference: Reference,

    #[command(flatten)]
    common: Common,
}

/// Prints the grants by which nodes can read a secret.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let keys = arguments.common.open(global)?;
    let secret = arguments.reference.subject();
    let answer = keys.ask(keys.service.who_can(secret, &keys.request))?;
    print(&keys, answer.grants, &format!("no node can read {secret}"))
}
