//! Through which proxy, if any.

use std::fmt;
use std::net::IpAddr;

use keyhaul_core::{Error, ErrorKind, Result};
use reqwest::{ClientBuilder, Proxy};
use url::{Host, Url};

use super::address::Address;
use crate::environment::{Environment, Variable};

/// The proxies of a store.
pub(crate) struct Proxies {
    /// For every request.
    always: Option<Url>,
    /// For requests over TLS, and in the clear, to hosts that `except` does not name.
    https: Option<Url>,
    http: Option<Url>,
    except: String,
}

impl Proxies {
    /// The policy's proxy, else `VAULT_PROXY_ADDR`, else `VAULT_HTTP_PROXY`; these are for every
    /// request. Else, as everywhere, `HTTPS_PROXY` or `HTTP_PROXY` but for hosts in `NO_PROXY` and
    /// for this host itself.
    ///
    /// # Errors
    /// `InvalidConfig` with the option or variable.
    pub(crate) fn new(policy: Option<&str>, environment: &Environment) -> Result<Self> {
        let mut proxies = Self {
            always: None,
            https: None,
            http: None,
            except: String::new(),
        };
        match policy {
            Some("none") => return Ok(proxies),
            Some(text) => {
                let url = parse(text, "`proxy`")?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        "`proxy` holds a user or password",
                    )
                    .with_advice("set VAULT_PROXY_ADDR, which may hold one"));
                }
                proxies.always = Some(url);
                return Ok(proxies);
            }
            None => {}
        }
        for short in ["PROXY_ADDR", "HTTP_PROXY"] {
            if let Some(variable) = environment.vault(short)? {
                proxies.always = Some(of(&variable)?);
                return Ok(proxies);
            }
        }
        let either = |upper: &str| {
            let lower = environment.plain(&upper.to_ascii_lowercase())?;
            match lower {
                Some(variable) => Ok(Some(variable)),
                None => environment.plain(upper),
            }
        };
        proxies.https = either("HTTPS_PROXY")?.as_ref().map(of).transpose()?;
        proxies.http = either("HTTP_PROXY")?.as_ref().map(of).transpose()?;
        proxies.except = either("NO_PROXY")?.map_or_else(String::new, |variable| variable.text);
        Ok(proxies)
    }

    /// Whether requests to `address` go through a proxy.
    pub(crate) fn apply_to(&self, address: &Address) -> bool {
        self.chosen(address).is_some()
    }

    /// Sets a client up for `address`, and turns off all that the library reads by itself.
    ///
    /// # Errors
    /// `InvalidConfig` where the library does not take the proxy.
    pub(crate) fn set_up(
        &self,
        builder: ClientBuilder,
        address: &Address,
    ) -> Result<ClientBuilder> {
        let builder = builder.no_proxy();
        let Some(url) = self.chosen(address) else {
            return Ok(builder);
        };
        // The library's words about a proxy repeat its url, which may hold a password.
        let proxy = Proxy::all(url.clone())
            .map_err(|_| Error::new(ErrorKind::InvalidConfig, "the proxy's address is refused"))?;
        Ok(builder.proxy(proxy))
    }

    fn chosen(&self, address: &Address) -> Option<&Url> {
        let Address::Tcp(server) = address else {
            return None;
        };
        self.always.as_ref().or_else(|| {
            let url = if address.is_tls() {
                self.https.as_ref()
            } else {
                self.http.as_ref()
            };
            url.filter(|_| !address.is_loopback() && !is_excepted(server, &self.except))
        })
    }
}

/// Whether `NO_PROXY` names a server: `*`, a host and all below it, `.DOMAIN` for what is below it, a
/// number, or a range of them (`10.0.0.0/8`); each but the first and last with `:PORT` if only that is meant.
fn is_excepted(server: &Url, list: &str) -> bool {
    let port = server.port_or_known_default();
    let (name, number) = match server.host() {
        Some(Host::Domain(name)) => (name.to_ascii_lowercase(), None),
        Some(Host::Ipv4(ip)) => (ip.to_string(), Some(IpAddr::V4(ip))),
        Some(Host::Ipv6(ip)) => (ip.to_string(), Some(IpAddr::V6(ip))),
        None => return false,
    };
    list.split(',').map(str::trim).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, length)) = entry.split_once('/') {
            return number.is_some_and(|number| is_within(number, network, length));
        }
        let entry = entry.to_ascii_lowercase();
        // A colon can be an IPv6 number's own.
        let (host, wanted) = match entry.rsplit_once(':') {
            Some((host, digits)) if entry.parse::<IpAddr>().is_err() => (host, digits.parse().ok()),
            _ => (entry.as_str(), None),
        };
        let host = host.trim_matches(['[', ']']);
        let named = match host.strip_prefix('.') {
            _ if host.is_empty() => false,
            Some(_) => name.ends_with(host),
            None => {
                let above = name.strip_suffix(host);
                above.is_some_and(|above| {
                    above.is_empty() || (number.is_none() && above.ends_with('.'))
                })
            }
        };
        named && wanted.is_none_or(|wanted| Some(wanted) == port)
    })
}

fn is_within(number: IpAddr, network: &str, length: &str) -> bool {
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    let (number, network, most) = match (number, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let host = u32::checked_sub(most, length);
    host.is_some_and(|host| {
        number.checked_shr(host).unwrap_or(0) == network.checked_shr(host).unwrap_or(0)
    })
}

fn of(variable: &Variable) -> Result<Url> {
    parse(&variable.text, &format!("${}", variable.name))
}

fn parse(text: &str, what: &str) -> Result<Url> {
    // As everywhere, `HOST:PORT` alone is meant to be in the clear.
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    Url::parse(&full)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("{what} is no proxy's address"),
            )
            .with_advice("a proxy is http://HOST:PORT or https://HOST:PORT")
        })
}

impl fmt::Debug for Proxies {
    /// Whether there are any: an address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("always", &self.always.is_some())
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_no_proxy_names_are_gone_to_directly() {
        let excepted =
            |server: &str, list: &str| is_excepted(&Url::parse(server).expect("url"), list);
        for (server, list) in [
            ("https://vault.example.com:8200", "*"),
            ("https://vault.example.com:8200", "a, example.com"),
            ("https://vault.example.com:8200", ".example.com"),
            ("https://vault.example.com:8200", "VAULT.example.com:8200"),
            ("https://10.1.2.3:8200", "10.1.2.3"),
            ("https://10.1.2.3:8200", "192.168.0.0/16,10.0.0.0/8"),
            ("https://10.1.2.3:8200", "0.0.0.0/0"),
            ("https://[fd00::1]:8200", "fd00::1"),
            ("https://[fd00::1]:8200", "[fd00::1]:8200"),
            ("https://[fd00::1]:8200", "fd00::/8"),
        ] {
            assert!(excepted(server, list), "{server} in {list}");
        }
        for (server, list) in [
            ("https://vault.example.com:8200", ""),
            ("https://vault.example.com:8200", ",,"),
            ("https://vault.example.com:8200", "vault.example.com:443"),
            ("https://vault.example.com:8200", "ample.com"),
            ("https://example.com", ".example.com"),
            ("https://vault.example.com:8200", "10.0.0.0/8"),
            ("https://110.1.2.3:8200", "10.1.2.3"),
            ("https://11.1.2.3:8200", "10.0.0.0/8"),
            ("https://10.1.2.3:8200", "10.0.0.0/99"),
            ("https://[fd00::1]:8200", "10.0.0.0/8,fe80::/10"),
        ] {
            assert!(!excepted(server, list), "{server} not in {list}");
        }
    }
}
