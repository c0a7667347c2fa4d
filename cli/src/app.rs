//! The command line's shape. What each command does is in `commands/`, one file each.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands;
use crate::deferred::Deferred;
use crate::failure::EXIT_CODES;
use crate::global::Global;
use crate::groups::grouped;

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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show and verify a key service's audit
    Audit(Deferred<commands::audit::Arguments>),
    /// Probe the policy, its permissions and its stores, and say what to fix
    Check(Deferred<commands::check::Arguments>),
    /// Print a shell's completions
    Completions(Deferred<commands::completions::Arguments>),
    /// Copy secrets from one store of the policy to another
    Copy(Deferred<commands::copy::Arguments>),
    /// Delete secrets with all their versions
    Delete(Deferred<commands::delete::Arguments>),
    /// Say which route, store and path would serve a reference, and why
    Explain(Deferred<commands::explain::Arguments>),
    /// Make a new secret; its value is not shown
    Generate(Deferred<commands::generate::Arguments>),
    /// Write a secret's exact bytes to standard output
    Get(Deferred<commands::get::Arguments>),
    /// Let a node of a key service read a scope
    Grant(Deferred<commands::grant::Arguments>),
    /// Print who may read what, as a key service has it
    Grants(Deferred<commands::grants::Arguments>),
    /// Print help for a command, the backends' options, or the table of exit codes
    Help(Deferred<commands::help::Arguments>),
    /// List the references that the policy serves
    List(Deferred<commands::list::Arguments>),
    /// Log in to a Vault store, and keep the login in the kernel's keyring while it lasts
    Login(Deferred<commands::login::Arguments>),
    /// Revoke a kept login, and forget it
    Logout(Deferred<commands::logout::Arguments>),
    /// Write the manual pages
    Man(Deferred<commands::man::Arguments>),
    /// Move the right to read a scope from one node to another
    Migrate(Deferred<commands::migrate::Arguments>),
    /// Look after a key service's nodes: quarantine, release, list
    Node(Deferred<commands::node::Arguments>),
    /// Make and renew certificates for a small site without an authority of its own
    Pki(Deferred<commands::pki::Arguments>),
    /// Look at plugins, and hold them to the contract of all stores
    Plugin(Deferred<commands::plugin::Arguments>),
    /// Print QEMU objects for references, with a master key left for QEMU to read
    Resolve(Deferred<commands::resolve::Arguments>),
    /// Bring back what was deleted from a key service, within its window
    Restore(Deferred<commands::restore::Arguments>),
    /// Take a grant from a node of a key service
    Revoke(Deferred<commands::revoke::Arguments>),
    /// Start QEMU, or one of its tools, with the secrets its command line names
    Run(Deferred<commands::run::Arguments>),
    /// Serve secrets to nodes that read only what they are granted
    ///
    /// Here, `--config` names the service's configuration [default: /etc/keyhaul/service.toml], and not
    /// a policy. SIGHUP has it read anew, SIGTERM lets what runs finish.
    Serve(Deferred<commands::serve::Arguments>),
    /// Store a secret from a file, standard input or a hidden prompt
    Set(Deferred<commands::set::Arguments>),
    /// Say what is known of a secret besides its value
    Stat(Deferred<commands::stat::Arguments>),
    /// Look after an encrypted file store: its keys and recipients
    Store(Deferred<commands::store::Arguments>),
    /// Print what a node of a key service can read
    WhatCan(Deferred<commands::what_can::Arguments>),
    /// Print which nodes of a key service can read a secret
    WhoCan(Deferred<commands::who_can::Arguments>),
}

/// The whole command line.
pub fn command() -> clap::Command {
    grouped(App::command())
}

impl App {
    /// Does what was asked.
    pub fn run(self, inherited: crate::hardening::Inherited) -> crate::failure::Outcome<u8> {
        let global = self.global;
        let done = match self.command {
            Command::Check(Deferred(arguments)) => return commands::check::run(&global, arguments),
            Command::Plugin(Deferred(arguments)) => {
                return commands::plugin::run(&global, arguments);
            }
            Command::Run(Deferred(arguments)) => {
                return commands::run::run(&global, arguments, inherited);
            }
            Command::Audit(Deferred(arguments)) => commands::audit::run(&global, arguments),
            Command::Completions(Deferred(arguments)) => {
                commands::completions::run(arguments, command())
            }
            Command::Copy(Deferred(arguments)) => commands::copy::run(&global, arguments),
            Command::Delete(Deferred(arguments)) => commands::delete::run(&global, arguments),
            Command::Explain(Deferred(arguments)) => commands::explain::run(&global, arguments),
            Command::Generate(Deferred(arguments)) => commands::generate::run(&global, arguments),
            Command::Get(Deferred(arguments)) => commands::get::run(&global, arguments),
            Command::Grant(Deferred(arguments)) => commands::grant::run(&global, arguments),
            Command::Grants(Deferred(arguments)) => commands::grants::run(&global, arguments),
            Command::Help(Deferred(arguments)) => commands::help::run(arguments, command()),
            Command::List(Deferred(arguments)) => commands::list::run(&global, arguments),
            Command::Login(Deferred(arguments)) => commands::login::run(&global, arguments),
            Command::Logout(Deferred(arguments)) => commands::logout::run(&global, arguments),
            Command::Man(Deferred(arguments)) => commands::man::run(arguments, command()),
            Command::Migrate(Deferred(arguments)) => commands::migrate::run(&global, arguments),
            Command::Node(Deferred(arguments)) => commands::node::run(&global, arguments),
            Command::Pki(Deferred(arguments)) => commands::pki::run(arguments),
            Command::Resolve(Deferred(arguments)) => commands::resolve::run(&global, arguments),
            Command::Restore(Deferred(arguments)) => commands::restore::run(&global, arguments),
            Command::Revoke(Deferred(arguments)) => commands::revoke::run(&global, arguments),
            Command::Serve(Deferred(arguments)) => commands::serve::run(&global, arguments),
            Command::Set(Deferred(arguments)) => commands::set::run(&global, arguments),
            Command::Stat(Deferred(arguments)) => commands::stat::run(&global, arguments),
            Command::Store(Deferred(arguments)) => commands::store::run(&global, arguments),
            Command::WhatCan(Deferred(arguments)) => commands::what_can::run(&global, arguments),
            Command::WhoCan(Deferred(arguments)) => commands::who_can::run(&global, arguments),
        };
        done.map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use keyhaul_core::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_table_of_exit_codes_is_the_error_kinds_own() {
        for kind in ErrorKind::ALL {
            let row = format!("\n  {}  {} ", kind.exit_code(), kind.name());
            assert!(EXIT_CODES.contains(&row), "{row}");
        }
    }

    /// By name, since that is what a writer of a plugin sees.
    #[test]
    fn the_kinds_statuses_are_those_of_the_plugins_header() {
        let header = include_str!("../../plugins/abi/include/keyhaul_plugin.h");
        for kind in ErrorKind::ALL {
            let letter = |(at, letter): (usize, char)| {
                let gap = at > 0 && letter.is_ascii_uppercase();
                format!(
                    "{}{}",
                    if gap { "_" } else { "" },
                    letter.to_ascii_uppercase()
                )
            };
            let name: String = kind.name().char_indices().map(letter).collect();
            let line = format!("\n#define KEYHAUL_{name} {}\n", kind.abi_status());
            assert!(header.contains(&line), "{line}");
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
