//! The command line's shape. What each command does is in `commands/`, one file each.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands;

/// Hauls secrets to virtual machines.
///
/// A reference like `web01/root-disk` names a secret; the policy says which store serves it;
/// `keyhaul run -- qemu-system-x86_64 … -object secret,id=root,ref=web01/root-disk …` starts QEMU
/// with it, and nothing but ciphertext in its arguments.
#[derive(Debug, Parser)]
#[command(
    name = "keyhaul",
    version,
    after_help = "Each kind of failure has its own exit status: see `keyhaul help exit-codes`.",
    after_long_help = EXIT_CODES,
    subcommand_required = true,
    arg_required_else_help = true,
    propagate_version = true,
    disable_help_subcommand = true,
)]
pub struct App {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The policy file [default: $KEYHAUL_CONFIG, the user's, /etc/keyhaul/keyhaul.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,

    /// How long to wait for the stores in all, as 500ms, 30s or 2m; a store's own `deadline` in the
    /// policy can be sooner
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration,
        help_heading = "Global options"
    )]
    pub deadline: Duration,

    /// Ask nothing: what would need an answer fails instead
    #[arg(long, global = true, help_heading = "Global options")]
    pub non_interactive: bool,

    /// Say more on standard error; twice for every step
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Probe the policy, its permissions and its stores, and say what to fix
    Check(commands::check::Arguments),
    /// Print a shell's completions
    Completions(commands::completions::Arguments),
    /// Delete secrets with all their versions
    Delete(commands::delete::Arguments),
    /// Say which route, store and path would serve a reference, and why
    Explain(commands::explain::Arguments),
    /// Make a new secret; its value is not shown
    Generate(commands::generate::Arguments),
    /// Write a secret's exact bytes to standard output
    Get(commands::get::Arguments),
    /// Print help for a command, or the table of exit codes
    Help(commands::help::Arguments),
    /// List the references that the policy serves
    List(commands::list::Arguments),
    /// Write the manual pages
    Man(commands::man::Arguments),
    /// Print QEMU objects for references, with a master key left for QEMU to read
    Resolve(commands::resolve::Arguments),
    /// Start QEMU, or one of its tools, with the secrets its command line names
    Run(commands::run::Arguments),
    /// Store a secret from a file, standard input or a hidden prompt
    Set(commands::set::Arguments),
    /// Say what is known of a secret besides its value
    Stat(commands::stat::Arguments),
    /// Look after an encrypted file store: its keys and recipients
    Store(commands::store::Arguments),
}

impl App {
    /// Does what was asked.
    pub fn run(self, inherited: crate::hardening::Inherited) -> crate::failure::Outcome<u8> {
        let global = self.global;
        let done = match self.command {
            Command::Check(arguments) => return commands::check::run(&global, arguments),
            Command::Run(arguments) => return commands::run::run(&global, arguments, inherited),
            Command::Completions(arguments) => commands::completions::run(arguments),
            Command::Delete(arguments) => commands::delete::run(&global, arguments),
            Command::Explain(arguments) => commands::explain::run(&global, arguments),
            Command::Generate(arguments) => commands::generate::run(&global, arguments),
            Command::Get(arguments) => commands::get::run(&global, arguments),
            Command::Help(arguments) => commands::help::run(arguments),
            Command::List(arguments) => commands::list::run(&global, arguments),
            Command::Man(arguments) => commands::man::run(arguments),
            Command::Resolve(arguments) => commands::resolve::run(&global, arguments),
            Command::Set(arguments) => commands::set::run(&global, arguments),
            Command::Stat(arguments) => commands::stat::run(&global, arguments),
            Command::Store(arguments) => commands::store::run(&global, arguments),
        };
        done.map(|()| 0)
    }
}

/// A duration on the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    keyhaul_core::registry::parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration is a whole number with ms, s, m, h or d, as 30s".to_owned())
}

/// The table of exit codes, as `--help` ends and the docs repeat it; a test holds it against
/// [`keyhaul_core::ErrorKind`].
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  several failures of different kinds
   2  the command line itself is wrong
  10  AlreadyExists     the secret is there already
  11  Conflict          somebody else wrote in between
  12  Corrupt           what is stored is damaged or not in the declared encoding
  13  Internal          a defect; please report it
  14  InvalidConfig     the policy or a setting is wrong
  15  InvalidReference  the reference is wrong
  16  NotFound          no such secret
  17  PermissionDenied  the store or the system says no
  18  RateLimited       the store asks for fewer requests
  19  StorageFull       the store has no room
  20  Timeout           no answer in time
  21  TooLarge          over a limit
  22  Unauthenticated   no credential, or one that is expired or wrong
  23  Unavailable       the store cannot be reached or cannot serve now
  24  Unsupported       the store cannot do that at all
 125  `run` itself failed; its words name the kind. Otherwise `run` gives its program's status
 130  a prompt was broken off";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use keyhaul_core::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        App::command().debug_assert();
    }

    #[test]
    fn the_table_of_exit_codes_is_the_error_kinds_own() {
        for kind in ErrorKind::ALL {
            let row = format!("\n  {}  {} ", kind.exit_code(), kind.name());
            assert!(EXIT_CODES.contains(&row), "{row}");
        }
    }

    #[test]
    fn the_table_of_the_docs_is_the_error_kinds_own() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/exit-codes.md");
        let page = std::fs::read_to_string(page).expect("the page");
        // Code, kind, words, HTTP status and ABI status of each row that names a kind.
        let rows: Vec<Vec<&str>> = page
            .lines()
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
            .filter(|cells| cells.get(2).is_some_and(|kind| kind.starts_with('`')))
            .map(|cells| cells[1..6].to_vec())
            .collect();
        let expected: Vec<Vec<String>> = ErrorKind::ALL
            .iter()
            .map(|kind| {
                vec![
                    kind.exit_code().to_string(),
                    format!("`{}`", kind.name()),
                    kind.words().to_owned(),
                    kind.http_status().to_string(),
                    kind.abi_status().to_string(),
                ]
            })
            .collect();
        assert_eq!(rows, expected);
    }
}
