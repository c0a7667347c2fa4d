//! From the policy's words to settings. No I/O.

use std::path::PathBuf;

use age::x25519;
use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

pub(crate) const ENCRYPTED: &str = "file";
pub(crate) const PLAIN: &str = "file+plain";

const DEFAULT_KEEP: usize = 10;
pub(crate) const MAX_KEEP: usize = 100;
/// More is a mistake, and each costs every unwrapping of the store key.
const MAX_RECIPIENTS: usize = 100;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "identity",
        kind: OptionKind::Credential,
        default: "none: `file` needs one",
        help: "The age identity that opens the store key: file:PATH, credential:NAME or fd:N. Never under the store's root.",
    },
    OptionSpec {
        name: "recipients",
        kind: OptionKind::Texts,
        default: "none",
        help: "Recovery recipients (age1…) that the store key is wrapped to besides the identity's own.",
    },
    OptionSpec {
        name: "create",
        kind: OptionKind::Boolean,
        default: "false",
        help: "Make the root, the store key and a missing file:PATH identity with the first write.",
    },
    OptionSpec {
        name: "keep-versions",
        kind: OptionKind::Integer,
        default: "10",
        help: "How many versions of a secret are kept, the current one included: 1 to 100.",
    },
];

/// What a store is made of.
#[derive(Debug)]
pub(crate) enum Settings {
    Encrypted(Encrypted),
    Plain(Plain),
}

/// Settings of an encrypted store.
#[derive(Debug)]
pub(crate) struct Encrypted {
    pub(crate) root: PathBuf,
    pub(crate) identity: CredentialSource,
    pub(crate) recipients: Vec<x25519::Recipient>,
    pub(crate) create: bool,
    pub(crate) keep_versions: usize,
}

/// Settings of a clear-text store.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) root: PathBuf,
    pub(crate) create: bool,
}

impl Settings {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self> {
        let root = root(config)?;
        let create = config.options.boolean("create").unwrap_or(false);
        match config.url.scheme() {
            ENCRYPTED => Encrypted::new(config, root, create).map(Self::Encrypted),
            PLAIN => Plain::new(config, root, create).map(Self::Plain),
            other => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("`{other}` is no file store; known are: {ENCRYPTED}, {PLAIN}"),
            )),
        }
    }
}

impl Encrypted {
    fn new(config: &StoreConfig, root: PathBuf, create: bool) -> Result<Self> {
        let options = &config.options;
        let identity = options.credential("identity")?.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                "an encrypted file store needs `identity`",
            )
            .with_advice("add identity = \"file:/etc/keyhaul/identity\" or identity = \"credential:NAME\" to the store")
        })?;
        if matches!(identity, CredentialSource::Env(_)) {
            let rule = "an identity does not come from the environment, which other processes of the same user can read";
            return Err(options
                .invalid("identity", rule)
                .with_advice("use file:PATH, credential:NAME or fd:N"));
        }
        let keep_versions = match options.integer("keep-versions") {
            None => DEFAULT_KEEP,
            Some(number) => usize::try_from(number)
                .ok()
                .filter(|keep| (1..=MAX_KEEP).contains(keep))
                .ok_or_else(|| {
                    let rule = format!("`keep-versions` is 1 to {MAX_KEEP}");
                    options.invalid("keep-versions", rule)
                })?,
        };
        let recipients = parse_recipients(options.texts("recipients"))
            .map_err(|error| options.placed("recipients", error))?;
        Ok(Self {
            root,
            identity,
            recipients,
            create,
            keep_versions,
        })
    }
}

impl Plain {
    fn new(config: &StoreConfig, root: PathBuf, create: bool) -> Result<Self> {
        let options = &config.options;
        for name in ["identity", "recipients", "keep-versions"] {
            if options.has(name) {
                let rule = format!("`{name}` has no meaning for a clear-text store");
                return Err(options
                    .invalid(name, rule)
                    .with_advice(format!("leave it out, or use the scheme `{ENCRYPTED}`")));
            }
        }
        Ok(Self { root, create })
    }
}

/// Reads recipients.
///
/// # Errors
/// `InvalidConfig` with the number of the wrong one, which is not repeated: it may be an identity.
pub(crate) fn parse_recipients(texts: &[String]) -> Result<Vec<x25519::Recipient>> {
    if texts.len() > MAX_RECIPIENTS {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("a store has at most {MAX_RECIPIENTS} recipients"),
        ));
    }
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            text.parse().map_err(|rule: &str| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    format!("recipient {} is no X25519 age recipient: {rule}", index + 1),
                )
                .with_advice("a recipient is the public half, age1…, as age-keygen -y prints it")
            })
        })
        .collect()
}

fn root(config: &StoreConfig) -> Result<PathBuf> {
    let refuse = |rule: &str| {
        Err(
            Error::new(ErrorKind::InvalidConfig, rule.to_owned()).with_advice(format!(
                "a file store's url is {}:///ABSOLUTE/PATH",
                config.url.scheme()
            )),
        )
    };
    if config.url.query().is_some() || config.url.fragment().is_some() {
        return refuse("a file store's url has no query or fragment");
    }
    match config.url.to_file_path() {
        Ok(path) if path.parent().is_some() => Ok(path),
        Ok(_) => refuse("a file store's root is not `/`"),
        Err(()) => refuse("a file store's url names a folder on this host"),
    }
}
