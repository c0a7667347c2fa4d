use clap::Args;
use keyhaul_remote::protocol::RevokeRequest;

use super::service::{Common, node, scope};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  keyhaul revoke web01 host-17
  keyhaul revoke web01 host-17 --if-epoch 7             not a grant that was given since";

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

    /// Only where the grant has this epoch, as `keyhaul grants` shows it
    #[arg(long, value_name = "EPOCH", value_parser = clap::value_parser!(u64).range(1..))]
    if_epoch: Option<u64>,

    #[command(flatten)]
    common: Common,
}

/// Takes a grant away, from the node's next request on.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let body = RevokeRequest {
        scope: arguments.scope,
        node: arguments.node,
        if_epoch: arguments.if_epoch,
    };
    let keys = arguments.common.open(global)?;
    let done = keys.ask(keys.service.revoke(&body, &keys.request))?;
    keys.print(&done, |done| {
        let RevokeRequest { scope, node, .. } = &body;
        if done.revoked {
            output::words(format_args!(
                "{node} can no longer read {scope}; epoch {}",
                done.epoch
            ));
        } else {
            output::words(format_args!("{node} held no grant of {scope}"));
        }
        Ok(())
    })
}
