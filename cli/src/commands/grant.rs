use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind};
use keyhaul_remote::protocol::GrantRequest;

use super::service::{Common, named, node, scope, until};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;
use crate::times;

const EXAMPLES: &str = "\
Examples:
  keyhaul grant web01 host-17
  keyhaul grant web01 host-17 --expires 2h
  keyhaul grant @site host-17 --names 'tls/*'           some of the scope's names
  keyhaul grant web01 host-17 --expires 4h --if-epoch 7 nobody has changed it meanwhile";

/// Arguments of `grant`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The scope, as web01
    #[arg(value_name = "SCOPE", value_parser = scope)]
    scope: String,

    /// The node that may read it
    #[arg(value_name = "NODE", value_parser = node)]
    node: String,

    /// When it ends by itself: RFC 3339, or a duration from now, as 2h
    #[arg(long, value_name = "WHEN", value_parser = times::moment)]
    expires: Option<SystemTime>,

    /// Only names that match, as in a route's `match` after the scope; may be repeated
    #[arg(long, value_name = "PATTERN")]
    names: Vec<String>,

    /// Only where the node's grant of the scope has this epoch, as `keyhaul grants` shows it; 0: only
    /// where it holds none
    #[arg(long, value_name = "EPOCH")]
    if_epoch: Option<u64>,

    #[command(flatten)]
    common: Common,
}

/// Lets a node read a scope. Other terms replace those before.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let expires = arguments.expires.map(Timestamp::try_from).transpose();
    let expires = expires.map_err(|error| {
        let rule = "--expires is beyond the calendar";
        Error::new(ErrorKind::InvalidConfig, rule).with_source(error)
    })?;
    let body = GrantRequest {
        scope: arguments.scope,
        node: arguments.node,
        names: arguments.names,
        expires,
        if_epoch: arguments.if_epoch,
    };
    let keys = arguments.common.open(global)?;
    let grant = keys.ask(keys.service.grant(&body, &keys.request))?;
    keys.print(&grant, |grant| {
        output::words(format_args!(
            "{} can read {}: {}, {}; epoch {}",
            grant.node,
            grant.scope,
            named(&grant.names),
            until(grant.expires),
            grant.epoch
        ));
        Ok(())
    })
}
