use clap::{Args, Subcommand};
use keyhaul_remote::protocol::{Fetch, Node};
use serde::Serialize;

use super::Output;
use super::service::{ServiceName, all, ask, at, node};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format, Rows};
use crate::session::Session;

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

#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    service: ServiceName,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

/// Looks after the nodes of a key service.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let request = session.request();
    match arguments.task {
        Task::List { common } => {
            let service = common.service.open(&session)?;
            let nodes = ask(
                &session,
                &service,
                all(async |page| {
                    let answer = service.nodes(page, &request).await?;
                    Ok((answer.nodes, answer.next))
                }),
            )?;
            match common.output.format {
                Format::Json => output::json(&Nodes { nodes })?,
                Format::Text => output::bytes(rows(&nodes).to_string().as_bytes())?,
            }
        }
        Task::Quarantine { node, common } => {
            let service = common.service.open(&session)?;
            let done = ask(&session, &service, service.quarantine(&node, &request))?;
            if common.output.format == Format::Json {
                return Ok(output::json(&done)?);
            }
            for grant in &done.revoked {
                output::words(format_args!("{node} can no longer read {}", grant.scope));
            }
            if !done.known {
                output::words(format_args!(
                    "the service had never heard of {node}: is that its name?"
                ));
            }
            for ticket in &done.tickets {
                output::words(format_args!(
                    "the migration {} of {} from {} to {} is {}: commit or abort it",
                    ticket.id,
                    ticket.scope,
                    ticket.from,
                    ticket.to,
                    ticket.state.name()
                ));
            }
            output::words(format_args!(
                "{node} is quarantined; {}",
                match done.fetched.len() {
                    0 => "it has never fetched a secret".to_owned(),
                    1 => "it has fetched one secret, to be rotated:".to_owned(),
                    many => format!("it has fetched {many} secrets, to be rotated:"),
                }
            ));
            output::bytes(rotation(&done.fetched).to_string().as_bytes())?;
        }
        Task::Release { node, common } => {
            let service = common.service.open(&session)?;
            let node = ask(&session, &service, service.release(&node, &request))?;
            match common.output.format {
                Format::Json => output::json(&node)?,
                Format::Text => output::words(format_args!(
                    "{} can be granted again; it holds {}",
                    node.node,
                    grants(node.grants)
                )),
            }
        }
    }
    Ok(())
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
