use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_remote::protocol::{BeginRequest, EndRequest, Ticket, TicketState};
use serde::Serialize;

use super::service::{Asked, Common, at, node, scope};
use crate::failure::Outcome;
use crate::global::{self, Global};
use crate::output::{self, Rows};

const EXAMPLES: &str = "\
Examples:
  keyhaul migrate begin web01 --from host-17 --to host-18
  keyhaul migrate commit 1f2e3d4c5b6a7988               it runs on host-18
  keyhaul migrate abort 1f2e3d4c5b6a7988                it stays on host-17
  keyhaul migrate commit web01 --from host-17 --to host-18
  keyhaul migrate list --state undecided";

/// Arguments of `migrate`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// End a migration at its source: the target can read no longer
    Abort {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        common: Common,
    },
    /// Let the target of a migration read too, for a limited time
    Begin {
        /// The scope that moves, as web01
        #[arg(value_name = "SCOPE", value_parser = scope)]
        scope: String,

        /// The node it runs on
        #[arg(long, value_name = "NODE", value_parser = node)]
        from: String,

        /// The node it moves to
        #[arg(long, value_name = "NODE", value_parser = node)]
        to: String,

        /// How long it may take [default: as the service says]
        #[arg(long = "for", value_name = "TIME", value_parser = global::duration)]
        lasting: Option<Duration>,

        #[command(flatten)]
        common: Common,
    },
    /// End a migration at its target: the source can read no longer
    Commit {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        common: Common,
    },
    /// Print migrations, the latest first
    List {
        /// Only those of this scope
        #[arg(long, value_name = "SCOPE", value_parser = scope)]
        scope: Option<String>,

        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<State>,

        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// The migration, by the id that `migrate begin` printed; or, with --from and --to, the scope,
    /// for its latest migration
    #[arg(value_name = "TICKET|SCOPE")]
    which: String,

    /// The node it comes from
    #[arg(long, value_name = "NODE", value_parser = node, requires = "to")]
    from: Option<String>,

    /// The node it goes to
    #[arg(long, value_name = "NODE", value_parser = node, requires = "from")]
    to: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// It ended at the source
    Aborted,
    /// It ended at the target
    Committed,
    /// Its time ended before the target had fetched anything
    Expired,
    /// Both nodes can read
    Open,
    /// Its time ended after the target had fetched: somebody has to decide
    Undecided,
}

#[derive(Serialize)]
struct Tickets {
    migrations: Vec<Ticket>,
}

/// Moves the right to read a scope from one node to another.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    match arguments.task {
        Task::Begin {
            scope,
            from,
            to,
            lasting,
            common,
        } => {
            let keys = common.open(global)?;
            let body = BeginRequest {
                scope,
                from,
                to,
                // Not shorter than was asked for.
                seconds: lasting.map(|time| time.as_millis().div_ceil(1000) as u64),
            };
            print(&keys, keys.service.begin(&body, &keys.request))
        }
        Task::Commit { which, common } => {
            let body = which.request()?;
            let keys = common.open(global)?;
            print(&keys, keys.service.commit(&body, &keys.request))
        }
        Task::Abort { which, common } => {
            let body = which.request()?;
            let keys = common.open(global)?;
            print(&keys, keys.service.abort(&body, &keys.request))
        }
        Task::List {
            scope,
            state,
            common,
        } => {
            let keys = common.open(global)?;
            let (scope, state) = (scope.as_deref(), state.map(TicketState::from));
            let migrations = keys.all(async |page| {
                let answer = keys.service.tickets(scope, state, page, &keys.request);
                let answer = answer.await?;
                Ok((answer.tickets, answer.next))
            })?;
            keys.print(&Tickets { migrations }, |Tickets { migrations }| {
                if migrations.is_empty() {
                    output::words("no migration");
                }
                output::bytes(rows(migrations).to_string().as_bytes())
            })
        }
    }
}

fn print(keys: &Asked<'_>, answer: impl Future<Output = Result<Ticket>>) -> Outcome {
    let ticket = keys.ask(answer)?;
    keys.print(&ticket, |ticket| {
        let id = &ticket.id;
        let (state, what) = (ticket.state.name(), standing(ticket));
        output::words(format_args!("migration {id} is {state}: {what}"));
        if matches!(ticket.state, TicketState::Open | TicketState::Undecided) {
            output::words(endings(keys, ticket));
        }
        Ok(())
    })
}

/// Who can read what moves.
fn standing(ticket: &Ticket) -> String {
    let Ticket {
        scope, from, to, ..
    } = ticket;
    match ticket.state {
        TicketState::Open => {
            let until = at(ticket.expires);
            format!("{from} and {to} can read {scope} until {until}")
        }
        TicketState::Undecided => format!("{from} and {to} can read {scope} until one is chosen"),
        TicketState::Committed => format!("{to} alone can read {scope}"),
        TicketState::Aborted | TicketState::Expired => format!("{from} alone can read {scope}"),
        TicketState::Unknown => {
            "a newer service has a word for it that this version lacks".to_owned()
        }
    }
}

/// How a migration is ended, and by what is decided which way.
fn endings(keys: &Asked<'_>, ticket: &Ticket) -> String {
    let Ticket { id, from, to, .. } = ticket;
    let commit = keys.typed(&format!("migrate commit {id}"));
    let abort = keys.typed(&format!("migrate abort {id}"));
    format!("  where it runs on {to}:  {commit}\n  where it stays on {from}:  {abort}")
}

fn rows(tickets: &[Ticket]) -> Rows {
    let mut rows = Rows::default();
    for ticket in tickets {
        rows.push([
            ticket.id.clone(),
            ticket.scope.clone(),
            format!("{} -> {}", ticket.from, ticket.to),
            ticket.state.name().to_owned(),
            if ticket.fetched {
                "fetched"
            } else {
                "not fetched"
            }
            .to_owned(),
            format!("begun {}", at(ticket.created)),
            format!("until {}", at(ticket.expires)),
            format!("by {}", ticket.by),
        ]);
    }
    rows
}

impl Which {
    /// The migration that is meant: by its id, or by its scope and both its nodes. A scope alone
    /// could be another migration than the one that is meant.
    fn request(self) -> Result<EndRequest> {
        let Self { which, from, to } = self;
        if from.is_some() {
            let scope = Some(scope(&which).map_err(refused)?);
            return Ok(EndRequest {
                id: None,
                scope,
                from,
                to,
            });
        }
        if which.len() != 16 || !which.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let rule = format!("`{which}` is no migration's id, which is 16 hexadecimal digits");
            return Err(refused(rule)
                .with_advice("a scope takes --from and --to; `keyhaul migrate list` shows ids"));
        }
        Ok(EndRequest {
            id: Some(which),
            scope: None,
            from: None,
            to: None,
        })
    }
}

fn refused(rule: String) -> Error {
    Error::new(ErrorKind::InvalidReference, rule)
}

impl From<State> for TicketState {
    fn from(state: State) -> Self {
        match state {
            State::Aborted => Self::Aborted,
            State::Committed => Self::Committed,
            State::Expired => Self::Expired,
            State::Open => Self::Open,
            State::Undecided => Self::Undecided,
        }
    }
}
