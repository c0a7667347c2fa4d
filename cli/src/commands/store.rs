use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Policy, Result, StoreConfig};
use serde::Serialize;

use super::Output;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session;

const EXAMPLES: &str = "\
Examples:
  keyhaul store identity recovery.txt                   on another machine; prints age1…
  keyhaul store rewrap                                  after a change of the policy's recipients
  keyhaul store rewrap --identity file:/run/recovery.txt    the host's identity is lost";

/// Arguments of `store`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make a recovery identity in a new file, and print its recipient for the policy
    Identity {
        /// The file to make; keep it away from the host
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a store, and its identity where that is a file that does not exist
    Init {
        #[command(flatten)]
        which: Which,
    },
    /// Print to whom the store's key is wrapped
    Recipients {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        output: Output,
    },
    /// Wrap the store's key anew: to the host's identity and the recipients of the policy
    Rewrap {
        #[command(flatten)]
        which: Which,

        /// The identity that opens the key now, as file:/mnt/recovery [default: the host's own]
        #[arg(long, value_name = "SOURCE")]
        identity: Option<String>,

        /// A recovery recipient, age1…, instead of the policy's; may be repeated
        #[arg(long = "recipient", value_name = "RECIPIENT")]
        recipients: Vec<String>,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// The store's name in the policy [default: the only file store there]
    #[arg(value_name = "STORE")]
    store: Option<String>,
}

#[derive(Serialize)]
struct Recipients {
    store: String,
    recipients: Vec<String>,
}

/// Looks after a file store.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let policy = |which: &Which| -> Outcome<StoreConfig> {
        let policy = Policy::load(&session::location(global)?)?;
        policy.check(&session::registry())?;
        Ok(config(&policy, which.store.as_deref())?)
    };
    match arguments.task {
        Task::Identity { file } => {
            output::line(keyhaul_file::generate_identity(&file)?)?;
            output::words(format_args!(
                "made {}; put the line above into the store's `recipients`, then: keyhaul store rewrap",
                file.display()
            ));
        }
        Task::Init { which } => {
            let config = policy(&which)?;
            let done = keyhaul_file::initialise(&config)?;
            let state = if done.store_made {
                "made"
            } else {
                "was there already"
            };
            output::words(format_args!("store {}: {state}", config.name));
            if done.identity_made {
                let identity = config.options.text("identity").unwrap_or_default();
                output::words(format_args!(
                    "identity {identity}: made; without it or a recovery identity the store cannot be opened"
                ));
            }
            if done.recipients.len() == 1 {
                output::warning(
                    "only this host's identity opens the store: were it lost, so would be every secret",
                    Some("keyhaul store identity FILE makes a recovery identity"),
                );
            }
        }
        Task::Recipients { which, output } => {
            let config = policy(&which)?;
            let recipients = keyhaul_file::recipients(&config)?;
            match output.format {
                Format::Json => output::json(&Recipients {
                    store: config.name,
                    recipients,
                })?,
                Format::Text => recipients.iter().try_for_each(output::line)?,
            }
        }
        Task::Rewrap {
            which,
            identity,
            recipients,
        } => {
            // Not by clap, which repeats what it refuses: that can be the identity itself.
            let identity = identity
                .as_deref()
                .map(CredentialSource::parse)
                .transpose()
                .map_err(|error| error.with_place("--identity"))?;
            let config = policy(&which)?;
            let chosen = (!recipients.is_empty()).then_some(recipients.as_slice());
            let done = keyhaul_file::rewrap(&config, identity.as_ref(), chosen)?;
            if done.identity_made {
                let identity = config.options.text("identity").unwrap_or_default();
                output::words(format_args!("identity {identity}: made anew"));
            }
            for recipient in &done.recipients {
                output::words(format_args!("can open the store: {recipient}"));
            }
            for recipient in &done.removed {
                output::words(format_args!("can no longer open it: {recipient}"));
            }
            if !done.removed.is_empty() {
                output::words(
                    "whoever kept an older copy of the store's key file can still open it: change what matters",
                );
            }
        }
    }
    Ok(())
}

/// The file store of a name, or the only one there is.
fn config(policy: &Policy, name: Option<&str>) -> Result<StoreConfig> {
    let files: Vec<&StoreConfig> = policy
        .stores
        .values()
        .map(|entry| &entry.config)
        .filter(|config| config.url.scheme().starts_with("file"))
        .collect();
    let names = || {
        files
            .iter()
            .map(|config| config.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let refuse = |rule: String| {
        Err(Error::new(ErrorKind::InvalidConfig, rule)
            .with_advice("name one of the policy's file stores, or another policy by --config"))
    };
    match (name, files.as_slice()) {
        (None, [only]) => Ok((*only).clone()),
        (None, []) => refuse(format!("{} has no file store", policy.name)),
        (None, _) => refuse(format!(
            "which store? The policy's file stores are: {}",
            names()
        )),
        (Some(name), _) => match files.iter().find(|config| config.name == name) {
            Some(config) => Ok((*config).clone()),
            None => refuse(format!(
                "{} has no file store {name:?}; it has: {}",
                policy.name,
                names()
            )),
        },
    }
}
