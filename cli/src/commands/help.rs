use clap::{Args, Command};
use keyhaul_core::{Error, ErrorKind};

use crate::failure::{EXIT_CODES, Outcome};
use crate::output;

/// Arguments of `help`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A command, as `run` or `store rewrap`, or `exit-codes`
    topic: Vec<String>,
}

/// Prints help.
pub fn run(arguments: Arguments, mut app: Command) -> Outcome {
    app.build();
    if arguments.topic == ["exit-codes"] {
        return Ok(output::line(EXIT_CODES)?);
    }
    let mut command = &mut app;
    for word in &arguments.topic {
        command = command.find_subcommand_mut(word).ok_or_else(|| {
            let rule = format!("there is no command {:?}", arguments.topic.join(" "));
            Error::new(ErrorKind::InvalidConfig, rule)
                .with_advice("`keyhaul help` lists the commands")
        })?;
    }
    Ok(output::line(command.render_long_help())?)
}
