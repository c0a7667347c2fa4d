//! Plugins: which there are, what they are, and whether they keep the contract.

mod entry;
mod given;
mod inspect;
mod kind;
mod list;
mod test;
mod words;
mod worker;

use clap::{Args, Subcommand};

use crate::failure::Outcome;
use crate::global::Global;

const EXAMPLES: &str = "\
Examples:
  keyhaul plugin list
  keyhaul plugin inspect /usr/lib/keyhaul/libkeyhaul_odd.so    its digest, to pin it; its options
  keyhaul plugin test ./odd-plugin --arg /tmp/odd --option slots=7";

pub use worker::is_here as is_worker;

/// Arguments of `plugin`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Say what a plugin is and takes, and by which rules it is loaded or refused. Needs no policy
    Inspect(inspect::Arguments),
    /// List the plugins that the policy names, and whether they load
    List(list::Arguments),
    /// Hold a plugin to the contract of all stores, trial by trial. Needs no policy
    ///
    /// The trials write, read and delete below paths of their own, which begin with `trial-` and a
    /// random number. Give the plugin a store where that harms nobody.
    Test(test::Arguments),
}

/// Looks at plugins.
pub fn run(global: &Global, arguments: Arguments) -> Outcome<u8> {
    match arguments.task {
        Task::Inspect(arguments) => inspect::run(global, &arguments),
        Task::List(arguments) => list::run(global, &arguments),
        Task::Test(arguments) => test::run(global, &arguments),
    }
}
