use clap::{Args, Subcommand};
use keyhaul_core::Result;
use keyhaul_remote::protocol::{Fetch, Node, QuarantineAnswer};
use serde::Serialize;

use super::service::{Asked, Common, at, named, node, until};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Rows};

const EXAMPLES: &str = "\
Examples:
  keyhaul node quarantine host-17                       prints what has to be rotated
  keyhaul node release host-17
  keyhaul node list";

/// Arguments of `node`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Print the nodes that ever held a grant or fetched something
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Take every grant from a node, give it none until it is released, and print every secret
    /// that it has ever fetched
    Quarantine {
        /// The node
        #[arg(value_name = "NODE", value_parser = node)]
        node: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let a node be granted again
    Release {
        /// The node
        #[arg(value_name = "NODE", value_parser = node)]
        node: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

/// Looks after the nodes of a key service.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    match arguments.task {
        Task::List { common } => {
            let keys = common.open(global)?;
            let nodes = keys.all(async |page| {
                let answer = keys.service.nodes(page, &keys.request).await?;
                Ok((answer.nodes, answer.next))
            })?;
            keys.print(&Nodes { nodes }, |Nodes { nodes }| {
                if nodes.is_empty() {
                    output::words("no node");
                }
                output::bytes(rows(nodes).to_string().as_bytes())
            })
        }
        Task::Quarantine { node, common } => {
            let keys = common.open(global)?;
            let mut done = keys.ask(keys.service.quarantine(&node, &keys.request))?;
            done.fetched
                .sort_by(|one, other| one.secret.cmp(&other.secret));
            keys.print(&done, |done| quarantined(&keys, done))
        }
        Task::Release { node, common } => {
            let keys = common.open(global)?;
            let node = keys.ask(keys.service.release(&node, &keys.request))?;
            keys.print(&node, |node| {
                output::words(format_args!(
                    "{} can be granted again; it holds {}",
                    node.node,
                    grants(node.grants)
                ));
                Ok(())
            })
        }
    }
}

/// What was done on standard error; what has to be rotated, and nothing else, on standard output.
fn quarantined(keys: &Asked<'_>, done: &QuarantineAnswer) -> Result<()> {
    let node = &done.node;
    if !done.known {
        output::warning(
            &format!("the service had never heard of {node}"),
            Some(&format!(
                "see whether that is its name: {}",
                keys.typed("node list")
            )),
        );
    }
    for grant in &done.revoked {
        output::words(format_args!(
            "{node} can no longer read {} ({}, {})",
            grant.scope,
            named(&grant.names),
            until(grant.expires)
        ));
    }
    for ticket in &done.tickets {
        // What it held is gone: the migration cannot end there any more.
        let (end, other) = match ticket.from == *node {
            true => ("commit", &ticket.to),
            false => ("abort", &ticket.from),
        };
        output::words(format_args!(
            "migration {} of {} from {} to {} is {}, and can end at {other} alone; once the guest \
             does not run on {node}:\n  {}",
            ticket.id,
            ticket.scope,
            ticket.from,
            ticket.to,
            ticket.state.name(),
            keys.typed(&format!("migrate {end} {}", ticket.id))
        ));
    }
    output::words(format_args!(
        "{node} is quarantined: it reads nothing, and is granted nothing until it is released"
    ));
    output::words(match done.fetched.len() {
        0 => "it has never fetched a secret".to_owned(),
        1 => "it has fetched one secret, to be rotated:".to_owned(),
        many => format!("it has fetched {many} secrets, to be rotated:"),
    });
    output::bytes(rotation(&done.fetched).to_string().as_bytes())
}

fn rows(nodes: &[Node]) -> Rows {
    let mut rows = Rows::default();
    for node in nodes {
        rows.push([
            node.node.clone(),
            grants(node.grants),
            match node.last_fetch {
                Some(time) => format!("last fetch {}", at(time)),
                None => "no fetch".to_owned(),
            },
            node.quarantined
                .map_or(String::new(), |since| format!("quarantined {}", at(since))),
        ]);
    }
    rows
}

fn rotation(fetched: &[Fetch]) -> Rows {
    let mut rows = Rows::default();
    for fetch in fetched {
        rows.push([
            fetch.secret.clone(),
            match &fetch.version {
                Some(version) => format!("version {version}"),
                None => "-".to_owned(),
            },
            format!("first {}", at(fetch.first)),
            format!("last {}", at(fetch.last)),
            match fetch.count {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            },
        ]);
    }
    rows
}

fn grants(number: u64) -> String {
    format!("{number} grant{}", if number == 1 { "" } else { "s" })
}
