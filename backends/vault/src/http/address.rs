//! Where a server is: over TLS, in the clear, or behind a socket of this host.

use std::fmt;
use std::path::{Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result};
use url::{Host, Url};

/// The address of a server, free of credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// `https://HOST:PORT` or `http://HOST:PORT`, with a prefix of the path where a proxy wants one.
    Tcp(Url),
    /// A Unix socket, over which plain HTTP is spoken.
    Unix(PathBuf),
}

impl Address {
    /// Reads `https://HOST[:PORT]`, `http://HOST[:PORT]` or `unix:///PATH`. `what` names the setting.
    ///
    /// # Errors
    /// `InvalidConfig` with the rule. The text is not repeated: it may hold a credential.
    pub(crate) fn parse(text: &str, what: &str) -> Result<Self> {
        let refuse = |rule: &str| {
            Error::new(ErrorKind::InvalidConfig, format!("{what} {rule}")).with_advice(
                "an address is https://HOST:PORT, http://HOST:PORT or unix:///PATH/TO/SOCKET",
            )
        };
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::unix(path).map_err(|_| refuse("names a socket by its absolute path"));
        }
        let mut url = Url::parse(text).map_err(|_| refuse("is no address"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(refuse("is no address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("holds a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("has a query or fragment"));
        }
        // People write the API's prefix although it is always added.
        let prefix = url.path().trim_end_matches('/');
        let prefix = prefix.strip_suffix("/v1").unwrap_or(prefix).to_owned();
        url.set_path(&prefix);
        Ok(Self::Tcp(url))
    }

    /// The address of a store's url: `host` and `port` over TLS or in the clear.
    ///
    /// # Errors
    /// `InvalidConfig` where they are none.
    pub(crate) fn tcp(tls: bool, host: &str, port: u16) -> Result<Self> {
        let scheme = if tls { "https" } else { "http" };
        Self::parse(&format!("{scheme}://{host}:{port}"), "the store's url")
    }

    /// The address of a socket on this host.
    ///
    /// # Errors
    /// `InvalidConfig` where the path is not absolute.
    pub(crate) fn unix(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_absolute() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a socket is named by its absolute path",
            ));
        }
        Ok(Self::Unix(path.to_owned()))
    }

    /// Whether it is reached over the network, be it this host's own.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Whether TLS is spoken there.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp(url) if url.scheme() == "https")
    }

    /// Whether it is this very host by its number or name.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(url) => match url.host() {
                Some(Host::Domain(name)) => name == "localhost",
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.is_loopback(),
                None => false,
            },
        }
    }

    /// The host's name or number, where it is not a socket.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp(url) => url.host_str(),
            Self::Unix(_) => None,
        }
    }

    /// Whether `url` leads to the same server.
    pub(crate) fn holds(&self, url: &Url) -> bool {
        match self {
            Self::Tcp(own) => own.origin() == url.origin(),
            Self::Unix(_) => false,
        }
    }

    /// The url of a request, for a path already encoded that begins with a slash.
    ///
    /// # Errors
    /// `Internal` where they make none.
    pub(crate) fn join(&self, path: &str) -> Result<Url> {
        let base = match self {
            Self::Tcp(url) => url.as_str().trim_end_matches('/'),
            // The host is the header's: the socket decides where it goes.
            Self::Unix(_) => "http://localhost",
        };
        Url::parse(&format!("{base}{path}"))
            .map_err(|error| Error::new(ErrorKind::Internal, "a request's url").with_source(error))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            (
                "https://vault.example.com:8200",
                "https://vault.example.com:8200",
            ),
            ("https://vault.example.com/", "https://vault.example.com"),
            ("http://[::1]:8200/v1/", "http://[::1]:8200"),
            ("https://proxy/vault/", "https://proxy/vault"),
            ("unix:///run/vault.sock", "unix:///run/vault.sock"),
        ] {
            let address = Address::parse(text, "$VAULT_ADDR").expect(text);
            assert_eq!(address.to_string(), printed);
        }
        let prefixed = Address::parse("https://proxy/vault/", "it").expect("read");
        let url = prefixed.join("/v1/sys/health").expect("joined");
        assert_eq!(url.as_str(), "https://proxy/vault/v1/sys/health");
    }

    #[test]
    fn what_is_no_address_is_refused_by_the_settings_name_and_not_repeated() {
        for text in [
            "hunter2",
            "hunter2:8200",
            "https://hunter2@vault",
            "https://vault/?token=hunter2",
            "ftp://hunter2/",
            "unix://hunter2",
        ] {
            let error = Address::parse(text, "$VAULT_ADDR").expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().starts_with("$VAULT_ADDR"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_server_is_the_same_by_scheme_host_and_port() {
        let address = Address::parse("https://vault:8200", "it").expect("read");
        let same = |text: &str| address.holds(&Url::parse(text).expect("url"));
        assert!(same("https://VAULT:8200/v1/secret"));
        assert!(!same("http://vault:8200/"));
        assert!(!same("https://vault:8201/"));
        assert!(!same("https://vault.evil:8200/"));
    }
}
