//! From the policy's words to settings. No I/O.

use std::fmt;
use std::path::PathBuf;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};
use url::{Host, Url};

pub(super) const SCHEME: &str = "keyhaul+https";
/// Where a key service listens unless somebody says otherwise.
const PORT: u16 = 8443;
/// More is a mistake: each is a server of the same service.
const MAX_ADDRESSES: usize = 32;
/// What an address looks like, for advice.
const FORM: &str = "an address is HOST or HOST:PORT, as in keys2.example.com:8443";

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "ca-cert",
        kind: OptionKind::Text,
        default: "none: it is needed",
        help: "A file with the certificate, in PEM, of the authority that signed the servers' certificates. No other is believed.",
    },
    OptionSpec {
        name: "client-cert",
        kind: OptionKind::Text,
        default: "none: it is needed",
        help: "A file with this host's own certificate, in PEM, with the chain to its authority where there is one. Read again when it changes.",
    },
    OptionSpec {
        name: "client-key",
        kind: OptionKind::Credential,
        default: "none: it is needed",
        help: "The key of `client-cert`, in PEM: file:PATH, credential:NAME or fd:N.",
    },
    OptionSpec {
        name: "addresses",
        kind: OptionKind::Texts,
        default: "none",
        help: "Further servers of the same service, HOST or HOST:PORT. One of all is chosen at random; the others are asked when it cannot be reached.",
    },
];

/// What a client is made of.
#[derive(Debug)]
pub(super) struct Settings {
    /// The servers, that of the url first.
    pub(super) addresses: Vec<Address>,
    /// Whom to believe.
    pub(super) authority: PathBuf,
    /// Who we are.
    pub(super) certificate: PathBuf,
    /// The key to it.
    pub(super) key: CredentialSource,
}

impl Settings {
    pub(super) fn new(config: &StoreConfig) -> Result<Self> {
        let options = &config.options;
        let key = options.credential("client-key")?;
        let key = key.ok_or_else(|| missing("client-key"))?;
        if matches!(key, CredentialSource::Env(_)) {
            let rule = "a private key does not come from the environment, which other processes of the same user can read";
            return Err(options
                .invalid("client-key", rule)
                .with_advice("use file:PATH, credential:NAME or fd:N"));
        }
        let path = |name| match options.text(name) {
            None => Err(missing(name)),
            Some("") => Err(options.invalid(name, format!("`{name}` is the path of a file"))),
            Some(path) => Ok(PathBuf::from(path)),
        };
        Ok(Self {
            addresses: addresses(config)?,
            authority: path("ca-cert")?,
            certificate: path("client-cert")?,
            key,
        })
    }
}

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// A name, or a number, an IPv6 one without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `https://HOST:PORT`.
    url: Url,
}

impl Address {
    /// Reads `HOST` or `HOST:PORT`.
    fn parse(text: &str) -> Option<Self> {
        // A special scheme, so that numbers are numbers and names are checked.
        let url = Url::parse(&format!("https://{text}")).ok()?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !bare || !anonymous || text.contains(['/', '\\', '@', '?', '#']) {
            return None;
        }
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(number) => number.to_string(),
            Host::Ipv6(number) => number.to_string(),
        };
        // 443, which a url leaves out, is a port like others when somebody writes it.
        let written = text
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'));
        let port = match written {
            Some((_, port)) => port.parse().ok().filter(|port| *port != 0)?,
            None => PORT,
        };
        let mut url = url;
        url.set_port(Some(port)).ok()?;
        Some(Self { host, port, url })
    }

    /// The url of a path of the protocol there.
    pub(super) fn join(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url.set_query(query);
        url
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn addresses(config: &StoreConfig) -> Result<Vec<Address>> {
    let options = &config.options;
    let further = options.texts("addresses");
    if further.len() >= MAX_ADDRESSES {
        let rule = format!("a key service has at most {MAX_ADDRESSES} addresses");
        return Err(options.invalid("addresses", rule));
    }
    let mut addresses = vec![of_url(&config.url)?];
    for text in further {
        let address = Address::parse(text).ok_or_else(|| {
            options
                .invalid("addresses", "one of `addresses` is none")
                .with_advice(FORM)
        })?;
        if addresses.contains(&address) {
            let rule = format!("{address} is there twice, the store's url included");
            return Err(options.invalid("addresses", rule));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn of_url(url: &Url) -> Result<Address> {
    let refuse = |rule: &'static str| {
        Err(Error::new(ErrorKind::InvalidConfig, rule).with_advice(format!(
            "a key service's url is {SCHEME}://HOST or {SCHEME}://HOST:PORT; {PORT} where there is no port"
        )))
    };
    if url.scheme() != SCHEME {
        return refuse("this scheme is no key service's");
    }
    if !matches!(url.path(), "" | "/") {
        return refuse("a key service's url has no path: references are sent as they are");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("a key service's url has no query or fragment");
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return refuse("a key service's url names a host");
    };
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    match Address::parse(&text) {
        Some(address) => Ok(address),
        None => refuse("a key service's url names a host that is none"),
    }
}

fn missing(option: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("a key service needs `{option}`"),
    )
    .with_advice("give ca-cert = \"PATH\", client-cert = \"PATH\" and client-key = \"file:PATH\": both ends show certificates")
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::{Options, Value};

    use super::*;

    fn config(url: &str, addresses: &[&str]) -> StoreConfig {
        let list = addresses.iter().map(|text| (*text).to_owned()).collect();
        let values = [
            ("ca-cert", "/etc/keyhaul/ca.pem".into()),
            ("client-cert", "/etc/keyhaul/node.pem".into()),
            ("client-key", "file:/etc/keyhaul/node.key".into()),
            ("addresses", Value::Texts(list)),
        ];
        let place = "keyhaul.toml:3:1";
        StoreConfig::new("site", url, Options::at(place, values), place).expect("a url")
    }

    #[test]
    fn servers_are_read_and_printed() {
        let further = [
            "keys2.example.com",
            "10.0.0.3:443",
            "[fd00::3]:9000",
            "[::1]",
        ];
        let settings = Settings::new(&config("keyhaul+https://keys.example.com", &further));
        let addresses = settings.expect("settings").addresses;
        let printed: Vec<_> = addresses.iter().map(Address::to_string).collect();
        let expected = [
            "keys.example.com:8443",
            "keys2.example.com:8443",
            "10.0.0.3:443",
            "[fd00::3]:9000",
            "[::1]:8443",
        ];
        assert_eq!(printed, expected);
        let url = addresses[3].join("/v1/secrets", Some("prefix=web01"));
        assert_eq!(
            url.as_str(),
            "https://[fd00::3]:9000/v1/secrets?prefix=web01"
        );
        assert_eq!(addresses[3].host, "fd00::3");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form() {
        for url in [
            "keyhaul+https://keys/secret",
            "keyhaul+https://keys?x=1",
            "keyhaul+https://keys#x",
            "keyhaul+https:keys",
            "vault+https://keys",
        ] {
            let error = Settings::new(&config(url, &[])).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.advice().is_some_and(|advice| advice.contains(SCHEME)));
        }
        for text in [
            "",
            "keys:0",
            "keys:port",
            "keys:70000",
            "https://keys",
            "user@keys",
            "keys/x",
            "keys 2",
        ] {
            let error = Settings::new(&config("keyhaul+https://keys", &[text])).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            assert_eq!(error.advice(), Some(FORM), "{text}");
        }
        let twice = Settings::new(&config("keyhaul+https://keys", &["keys:8443"]));
        assert!(twice.expect_err("twice").message().contains("twice"));
    }

    #[test]
    fn each_of_the_three_files_is_needed_and_a_key_is_not_in_the_environment() {
        for name in ["ca-cert", "client-cert", "client-key"] {
            let mut config = config("keyhaul+https://keys", &[]);
            config.options.0.remove(name);
            let error = Settings::new(&config).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(name), "{error}");
        }
        let mut config = config("keyhaul+https://keys", &[]);
        let key = config.options.0.get_mut("client-key").expect("there");
        key.value = Value::Text("env:KEY".into());
        let error = Settings::new(&config).expect_err("the environment");
        assert!(error.message().contains("environment"), "{error}");
    }
}
