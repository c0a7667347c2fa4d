//! The options that every command takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

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

/// A duration on the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    keyhaul_core::registry::parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration is a whole number with ms, s, m, h or d, as 30s".to_owned())
}
