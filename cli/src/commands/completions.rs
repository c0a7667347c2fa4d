use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Outcome;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  keyhaul completions bash > /etc/bash_completion.d/keyhaul";

/// Arguments of `completions`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints a shell's completions.
pub fn run(arguments: Arguments, mut app: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut app, "keyhaul", &mut script);
    Ok(output::bytes(&script)?)
}
