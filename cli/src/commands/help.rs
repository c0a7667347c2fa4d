use clap::{Args, CommandFactory as _};
use keyhaul_core::{Error, ErrorKind};

use crate::app::{App, EXIT_CODES};
use crate::failure::Outcome;
use crate::output;

/// Arguments of `help`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A command, or `exit-codes`
    topic: Option<String>,
}

/// Prints help.
pub fn run(arguments: Arguments) -> Outcome {
    let mut app = App::command();
    app.build();
    let command = match arguments.topic.as_deref() {
        Some("exit-codes") => return Ok(output::line(EXIT_CODES)?),
        None => &mut app,
        Some(topic) => app.find_subcommand_mut(topic).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("there is no command {topic:?}"),
            )
            .with_advice("`keyhaul help` lists the commands")
        })?,
    };
    Ok(output::line(command.render_long_help())?)
}
