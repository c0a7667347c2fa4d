use std::fmt::Write as _;

use clap::{Args, Command};
use keyhaul_core::policy::store_keys;
use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_core::{Error, ErrorKind};

use crate::failure::{EXIT_CODES, Outcome};
use crate::{output, session};

/// Arguments of `help`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A command, as `run` or `store rewrap`; `backends` for the options of stores in the policy, or
    /// `exit-codes`
    topic: Vec<String>,
}

/// Prints help.
pub fn run(arguments: Arguments, mut app: Command) -> Outcome {
    app.build();
    if arguments.topic == ["exit-codes"] {
        return Ok(output::line(EXIT_CODES)?);
    }
    if arguments.topic == ["backends"] {
        return Ok(output::line(backends().trim_end())?);
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

/// What each backend is and takes, as it says itself.
fn backends() -> String {
    let mut keys: Vec<&str> = store_keys().collect();
    keys.sort_unstable();
    let mut text = format!("Every store takes: {}\n", keys.join(", "));
    for factory in session::registry().factories() {
        let (schemes, summary) = (factory.schemes().join(", "), factory.summary());
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "\n{schemes}\n  {summary}");
        options(&mut text, factory.options(), 4);
    }
    text
}

fn options(text: &mut String, specs: &[OptionSpec], indent: usize) {
    for spec in specs {
        let OptionSpec { name, default, .. } = spec;
        let kind = spec.kind.words();
        let _ = writeln!(text, "{:indent$}{name}: {kind} [default: {default}]", "");
        let _ = writeln!(text, "{:indent$}    {}", "", spec.help);
        if let OptionKind::Table(inner) = spec.kind {
            options(text, inner, indent + 4);
        }
    }
}
