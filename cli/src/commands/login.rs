use std::path::PathBuf;

use clap::Args;
use keyhaul_core::{Error, ErrorKind, SecretBytes, StoreConfig, StoreFactory as _};
use keyhaul_vault::{Question, VaultFactory};
use serde::Serialize;

use super::{Output, no_such};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;
use crate::times::shown;
use crate::{input, prompt};

/// The longest password or token that is read.
const MAX_ANSWER: usize = 64 * 1024;

const EXAMPLES: &str = "\
Examples:
  keyhaul login site                          asks for what the store's method needs
  keyhaul login site --from /root/token       a token or password from a file
  keyhaul logout site";

/// Arguments of `login`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    store: StoreName,

    /// The file that holds the token or password; `-` is standard input. One newline at its end is
    /// dropped [default: a hidden prompt at a terminal, else standard input]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

/// Which store, where there can be a choice.
#[derive(Args, Debug)]
pub struct StoreName {
    /// The store's name in the policy [default: the one Vault store that there is]
    #[arg(value_name = "STORE")]
    store: Option<String>,
}

#[derive(Serialize)]
struct LoggedIn<'a> {
    store: &'a str,
    policies: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    accessor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    renewable: bool,
}

/// Logs in, and keeps the login for the commands that follow.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let config = arguments.store.of(&session)?;
    let name = config.name.as_str();
    let what = match keyhaul_vault::question(config)? {
        Question::Password(user) => Some(format!("Password of {user} at {name}")),
        Question::Token => Some(format!("Token for {name}")),
        _ => None,
    };
    let answer = match what {
        Some(what) => Some(answer(global, &arguments, &what)?),
        None if arguments.from.is_some() => {
            let rule = format!("store `{name}` names all that its login needs in the policy");
            let error = Error::new(ErrorKind::InvalidConfig, rule);
            return Err(error.with_advice("leave --from out").into());
        }
        None => None,
    };
    let login = session.within(keyhaul_vault::login(config, answer))?;
    match arguments.output.format {
        Format::Json => output::json(&LoggedIn {
            store: name,
            policies: &login.policies,
            accessor: login.accessor.as_deref(),
            expires: login.expires.map(shown),
            renewable: login.renewable,
        })?,
        Format::Text => {
            let until = match login.expires {
                Some(expires) if login.renewable => {
                    format!("until {}, longer while it is used", shown(expires))
                }
                Some(expires) => format!("until {}", shown(expires)),
                None => "for good: the token does not expire".to_owned(),
            };
            output::words(format_args!(
                "logged in to {name} with the policies {}, {until}",
                login.policies.join(", ")
            ));
        }
    }
    Ok(())
}

fn answer(global: &Global, arguments: &Arguments, what: &str) -> Outcome<SecretBytes> {
    let ask = || prompt::known_secret(what);
    let (answer, _) = input::secret(global, arguments.from.as_deref(), MAX_ANSWER, ask)?;
    let bytes = answer.expose();
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        let error = Error::new(ErrorKind::InvalidConfig, "nothing was entered");
        return Err(error.into());
    }
    Ok(SecretBytes::copy_from(line))
}

impl StoreName {
    /// The store that is meant, which must be one that knows logins.
    pub fn of<'a>(&self, session: &'a Session) -> Outcome<&'a StoreConfig> {
        let policy = session.resolver.policy();
        let knows_logins =
            |config: &&StoreConfig| VaultFactory.schemes().contains(&config.url.scheme());
        let vaults: Vec<&StoreConfig> = policy
            .stores
            .values()
            .map(|entry| &entry.config)
            .filter(knows_logins)
            .collect();
        let names: Vec<&str> = vaults.iter().map(|config| config.name.as_str()).collect();
        let refuse = |rule: String, advice: String| {
            let error = Error::new(ErrorKind::InvalidConfig, rule);
            Err(error.with_advice(advice).into())
        };
        match (&self.store, vaults.as_slice()) {
            (_, []) => refuse(
                format!("{} has no Vault store: no other knows logins", policy.name),
                "keyhaul check shows its stores".to_owned(),
            ),
            (None, [only]) => Ok(only),
            (None, _) => refuse(
                format!("{} has several Vault stores", policy.name),
                format!("name one of: {}", names.join(", ")),
            ),
            (Some(wanted), _) => {
                if let Some(config) = vaults.iter().find(|config| config.name == *wanted) {
                    return Ok(config);
                }
                let rule = no_such(policy, wanted, "which knows no logins");
                refuse(rule, format!("those with logins are: {}", names.join(", ")))
            }
        }
    }
}
