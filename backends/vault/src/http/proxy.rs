//! Through which proxy, if any.

use std::fmt;

use keyhaul_core::{Error, ErrorKind, Result};
use reqwest::{ClientBuilder, NoProxy, Proxy};
use url::Url;

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

    /// Whether requests to `address` could go through a proxy.
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
        let except = self
            .always
            .is_none()
            .then(|| NoProxy::from_string(&self.except));
        Ok(builder.proxy(proxy.no_proxy(except.flatten())))
    }

    fn chosen(&self, address: &Address) -> Option<&Url> {
        if matches!(address, Address::Unix(_)) {
            return None;
        }
        self.always.as_ref().or_else(|| {
            let url = if address.is_tls() {
                self.https.as_ref()
            } else {
                self.http.as_ref()
            };
            url.filter(|_| !address.is_loopback())
        })
    }
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
