//! What the wire needs to know: from the policy, else the environment, else a default.

use std::path::PathBuf;
use std::time::Duration;

use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result};

use super::address::Address;
use super::proxy::Proxies;
use crate::environment::{Environment, Variable};

/// How long an answer may take where nothing else is said, as in Vault's own client.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than anybody waits, and short enough for clocks to count to.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Where Vault's own client looks where nothing is said.
const ADDRESS: &str = "https://127.0.0.1:8200";

/// The options of the policy that are about the wire, for the backend's list.
pub(crate) const OPTIONS: [OptionSpec; 11] = [
    option(
        "ca-cert",
        OptionKind::Text,
        "VAULT_CACERT, else the system's",
        "A PEM file with the certificate of the authority that signed the server's.",
    ),
    option(
        "ca-cert-bytes",
        OptionKind::Text,
        "VAULT_CACERT_BYTES",
        "The same as text instead of a file.",
    ),
    option(
        "ca-path",
        OptionKind::Text,
        "VAULT_CAPATH",
        "A folder of such files.",
    ),
    option(
        "client-cert",
        OptionKind::Text,
        "VAULT_CLIENT_CERT",
        "A PEM file with this client's certificate, shown on every connection.",
    ),
    option(
        "client-key",
        OptionKind::Text,
        "VAULT_CLIENT_KEY",
        "A PEM file with its key, which only its owner can read.",
    ),
    option(
        "client-timeout",
        OptionKind::Duration,
        "VAULT_CLIENT_TIMEOUT, else 60s",
        "How long one answer may take.",
    ),
    option(
        "namespace",
        OptionKind::Text,
        "VAULT_NAMESPACE",
        "The namespace of all requests.",
    ),
    option(
        "proxy",
        OptionKind::Text,
        "VAULT_PROXY_ADDR, else VAULT_HTTP_PROXY, HTTPS_PROXY, HTTP_PROXY",
        "The proxy to go through: http://HOST:PORT, or `none`.",
    ),
    option(
        "skip-verify",
        OptionKind::Boolean,
        "VAULT_SKIP_VERIFY, else false",
        "Believe any certificate. Whoever is on the way reads and changes everything.",
    ),
    option(
        "tls-server-name",
        OptionKind::Text,
        "VAULT_TLS_SERVER_NAME, else the address's",
        "The name that the server's certificate is held against, and that is asked for.",
    ),
    option(
        "trusted-addresses",
        OptionKind::Texts,
        "none",
        "Addresses that a server may redirect to, as a standby does to its leader. They get the token.",
    ),
];

const fn option(
    name: &'static str,
    kind: OptionKind,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        default,
        help,
    }
}

/// Everything the wire needs. Paths are read with the first request.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where the server is.
    pub(crate) address: Address,
    /// The namespace of all requests, without slashes at its ends.
    pub(crate) namespace: Option<String>,
    /// Certificates.
    pub(crate) tls: Tls,
    /// How long one answer may take.
    pub(crate) timeout: Duration,
    /// `VAULT_MAX_RETRIES`: how often the wire itself repeats a request that reads, after a lost
    /// connection or a 5xx. 0 where it is unset: the layers repeat then, with their backoff.
    pub(crate) max_retries: u32,
    /// Through what to go.
    pub(crate) proxies: Proxies,
    /// Where redirects may lead, besides the address itself.
    pub(crate) trusted: Vec<Address>,
}

/// Whom to believe, and who we are.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Files of authorities.
    pub(crate) ca_cert: Option<PathBuf>,
    /// Authorities as text.
    pub(crate) ca_bytes: Option<String>,
    /// A folder of files of authorities.
    pub(crate) ca_path: Option<PathBuf>,
    /// Our certificate and key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// The name to ask for and to hold the certificate against.
    pub(crate) server_name: Option<String>,
    /// Whether certificates are verified at all.
    pub(crate) verify: bool,
}

impl Settings {
    /// The settings of a store: what the policy's `options` say, else the `environment`, else the
    /// default. `address` is the one in the store's url, where it holds one. No I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option or variable, and the rule.
    pub(crate) fn new(
        address: Option<Address>,
        options: &Options,
        environment: &Environment,
    ) -> Result<Self> {
        let from = From {
            options,
            environment,
        };
        let address = match address {
            Some(address) => address,
            None => match environment.vault("ADDR")? {
                Some(variable) => Address::parse(&variable.text, &format!("${}", variable.name))?,
                None => Address::parse(ADDRESS, "the default")?,
            },
        };
        let namespace = from
            .text("namespace", "NAMESPACE")?
            .map(|text| text.trim_matches('/').to_owned())
            .filter(|namespace| !namespace.is_empty());
        let max_retries = match environment.vault("MAX_RETRIES")? {
            Some(variable) => variable.integer()?,
            None => 0,
        };
        let trusted = options
            .texts("trusted-addresses")
            .iter()
            .map(|text| Address::parse(text, "`trusted-addresses`"))
            .collect::<Result<_>>()
            .map_err(|error| options.placed("trusted-addresses", error))?;
        let proxies = Proxies::new(options.text("proxy"), environment)
            .map_err(|error| options.placed("proxy", error))?;
        let settings = Self {
            tls: from.tls()?,
            timeout: from.timeout()?,
            address,
            namespace,
            max_retries,
            proxies,
            trusted,
        };
        Ok(settings)
    }
}

/// Where settings come from.
struct From<'a> {
    options: &'a Options,
    environment: &'a Environment,
}

impl From<'_> {
    fn tls(&self) -> Result<Tls> {
        // What the policy says of authorities replaces all that the environment says of them.
        let own = ["ca-cert", "ca-cert-bytes", "ca-path"];
        let own = own.iter().any(|name| self.options.has(name));
        let authority = |option: &str, short: &str| {
            if own {
                return Ok(self.options.text(option).map(str::to_owned));
            }
            let variable = self.environment.vault(short)?;
            Ok::<_, Error>(variable.map(|variable| variable.text))
        };
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        for name in ["ca-cert", "ca-path", "client-cert", "client-key"] {
            self.check_path(name)?;
        }
        let client = match (
            self.text("client-cert", "CLIENT_CERT")?,
            self.text("client-key", "CLIENT_KEY")?,
        ) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "`client-cert` (VAULT_CLIENT_CERT) and `client-key` (VAULT_CLIENT_KEY) belong together",
                )
                .with_advice("name both, or neither"));
            }
        };
        let skip = match self.options.boolean("skip-verify") {
            Some(skip) => skip,
            None => match self.environment.vault("SKIP_VERIFY")? {
                Some(variable) => variable.boolean()?,
                None => false,
            },
        };
        Ok(Tls {
            ca_cert: filled(authority("ca-cert", "CACERT")?).map(PathBuf::from),
            ca_bytes: filled(authority("ca-cert-bytes", "CACERT_BYTES")?),
            ca_path: filled(authority("ca-path", "CAPATH")?).map(PathBuf::from),
            client,
            server_name: self.text("tls-server-name", "TLS_SERVER_NAME")?,
            verify: !skip,
        })
    }

    /// A policy's paths do not depend on where the program was started.
    fn check_path(&self, option: &str) -> Result<()> {
        match self.options.text(option) {
            Some(path) if !path.is_empty() && !path.starts_with('/') => {
                let rule = format!("`{option}` is an absolute path");
                Err(self.options.invalid(option, rule))
            }
            _ => Ok(()),
        }
    }

    fn timeout(&self) -> Result<Duration> {
        let timeout = match self.options.duration("client-timeout")? {
            Some(timeout) => timeout,
            None => match self.environment.vault("CLIENT_TIMEOUT")? {
                Some(variable) => variable.duration()?,
                None => TIMEOUT,
            },
        };
        if timeout.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "`client-timeout` (VAULT_CLIENT_TIMEOUT) is more than 0",
            ));
        }
        Ok(timeout.min(LONGEST))
    }

    fn text(&self, option: &str, short: &str) -> Result<Option<String>> {
        match self.options.text(option) {
            Some(text) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
            None => {
                let variable = self.environment.vault(short)?;
                Ok(variable.map(|Variable { text, .. }| text))
            }
        }
    }
}
