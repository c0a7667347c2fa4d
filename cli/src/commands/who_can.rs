use clap::Args;
use keyhaul_core::Reference;

use super::grants::print;
use super::service::{ServiceName, ask};
use super::{Output, reference};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

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
    service: ServiceName,

    #[command(flatten)]
    output: Output,
}

/// Prints the grants by which nodes can read a secret.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let service = arguments.service.open(&session)?;
    let secret = arguments.reference.subject();
    let answer = ask(
        &session,
        &service,
        service.who_can(secret, &session.request()),
    )?;
    if answer.grants.is_empty() && arguments.output.format == Format::Text {
        output::words(format_args!("no node can read {secret}"));
    }
    print(answer.grants, arguments.output)
}
