//! From the policy's words to settings. No I/O.

use std::borrow::Cow;

use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_core::{Encoding, Error, ErrorKind, Field, Result, SecretPath, StoreConfig};

use crate::auth;
use crate::environment::Environment;
use crate::http::{self, Address, Settings};
use crate::kv::KvVersion;

/// The address comes from `BAO_ADDR` or `VAULT_ADDR`.
pub(crate) const ENVIRONMENT: &str = "vault";
pub(crate) const HTTP: &str = "vault+http";
pub(crate) const HTTPS: &str = "vault+https";
pub(crate) const UNIX: &str = "vault+unix";

/// The field of a KV secret that is meant where none is named.
const VALUE: &str = "value";
/// The field of a leased secret that is meant where none is named.
const PASSWORD: &str = "password";

const OWN: [OptionSpec; 7] = [
    OptionSpec {
        name: "auth",
        kind: OptionKind::Table(auth::AUTH),
        default: "the token in BAO_TOKEN, else VAULT_TOKEN, else a kept login, else ~/.vault-token",
        help: "How to log in: a table whose `method` says which way, with the options of that way.",
    },
    OptionSpec {
        name: "delete",
        kind: OptionKind::Text,
        default: "all",
        help: "What deleting does to a KV version 2 secret: `all` removes every version for good, `soft` marks them deleted, so that an operator can bring them back.",
    },
    OptionSpec {
        name: "encoding",
        kind: OptionKind::Text,
        default: "text, and base64 with a marker beside it for what is no text",
        help: "How the store's `field` is encoded in every secret: `base64` or `hex`. For values that others write so.",
    },
    OptionSpec {
        name: "engine",
        kind: OptionKind::Text,
        default: "kv",
        help: "What is mounted there: `kv`, or `leased` for credentials made at each reading, as of `database`.",
    },
    OptionSpec {
        name: "field",
        kind: OptionKind::Text,
        default: "value; password where leased",
        help: "The field that is meant where neither reference nor route names one; `*` for the whole map.",
    },
    OptionSpec {
        name: "kv-version",
        kind: OptionKind::Text,
        default: "asked of the server, once",
        help: "Which KV engine is mounted there: `1` or `2`.",
    },
    OptionSpec {
        name: "mount",
        kind: OptionKind::Text,
        default: "the path of the url",
        help: "Where the engine is mounted, for vault+unix, whose url names the socket.",
    },
];

const COUNT: usize = OWN.len() + http::OPTIONS.len();

/// Every option, in alphabetical order.
pub(crate) const OPTIONS: [OptionSpec; COUNT] = {
    let mut all = [OWN[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = match at < OWN.len() {
            true => OWN[at],
            false => http::OPTIONS[at - OWN.len()],
        };
        at += 1;
    }
    all
};

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// A key-value engine.
    Kv,
    /// Anything that answers a GET with a secret on a lease.
    Leased,
}

/// What a store is made of.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where the engine is mounted, without slashes at its ends.
    pub(crate) mount: String,
    pub(crate) engine: Engine,
    /// The KV version, where it is declared.
    pub(crate) kv_version: Option<KvVersion>,
    /// The field that is meant where none is named.
    pub(crate) field: Field,
    /// The encoding of `field`, where it is declared.
    pub(crate) encoding: Option<Encoding>,
    /// Whether deleting leaves what an operator can bring back.
    pub(crate) soft_delete: bool,
    /// The address in the store's url, where it holds one.
    address: Option<Address>,
    /// The namespace, where it is declared.
    pub(crate) namespace: Option<String>,
    /// The server for people: its address, or where that comes from.
    pub(crate) server: String,
}

impl Config {
    /// What `store` declares.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub(crate) fn new(store: &StoreConfig) -> Result<Self> {
        let address = address(store)?;
        let options = &store.options;
        let engine = match options.text("engine") {
            None | Some("kv") => Engine::Kv,
            Some("leased") => Engine::Leased,
            Some(_) => return Err(options.invalid("engine", "`engine` is `kv` or `leased`")),
        };
        if engine == Engine::Kv
            && options.text("field") == Some(Field::ALL)
            && options.has("encoding")
        {
            return Err(options.invalid("encoding", "a whole map has no encoding"));
        }
        if engine == Engine::Leased {
            for name in ["delete", "encoding", "kv-version"] {
                if options.has(name) {
                    let rule = format!("`{name}` has no meaning for a leased engine");
                    return Err(options
                        .invalid(name, rule)
                        .with_advice("leave it out, or engine = \"kv\""));
                }
            }
        }
        let kv_version = options
            .text("kv-version")
            .map(|name| {
                KvVersion::from_name(name)
                    .ok_or_else(|| options.invalid("kv-version", "`kv-version` is \"1\" or \"2\""))
            })
            .transpose()?;
        let encoding = match options.text("encoding") {
            None => None,
            Some("base64") => Some(Encoding::Base64),
            Some("hex") => Some(Encoding::Hex),
            Some(_) => {
                let rule = "`encoding` is `base64` or `hex`";
                return Err(options.invalid("encoding", rule).with_advice(
                    "leave it out for text, and for bytes that keyhaul itself marks; a route's `encoding` decodes what is read through that route",
                ));
            }
        };
        let soft_delete = match options.text("delete") {
            None | Some("all") => false,
            Some("soft") if kv_version == Some(KvVersion::One) => {
                return Err(options.invalid("delete", "KV version 1 deletes for good"));
            }
            Some("soft") => true,
            Some(_) => return Err(options.invalid("delete", "`delete` is `all` or `soft`")),
        };
        let field = match (options.text("field"), engine) {
            (None, Engine::Kv) => Field::new(VALUE)?,
            (None, Engine::Leased) => Field::new(PASSWORD)?,
            (Some(Field::ALL), _) => Field::all(),
            (Some(name), _) => Field::new(name)
                .map_err(|error| options.invalid("field", error.message().to_owned()))?,
        };
        let namespace = options.text("namespace").map(|text| text.trim_matches('/'));
        Ok(Self {
            mount: mount(store)?,
            engine,
            kv_version,
            field,
            encoding,
            soft_delete,
            namespace: namespace.filter(|text| !text.is_empty()).map(str::to_owned),
            server: match &address {
                Some(address) => address.to_string(),
                None => "the server of BAO_ADDR or VAULT_ADDR".to_owned(),
            },
            address,
        })
    }

    /// What the wire needs.
    ///
    /// # Errors
    /// `InvalidConfig` with the option or variable, and the rule.
    pub(crate) fn settings(
        &self,
        store: &StoreConfig,
        environment: &Environment,
    ) -> Result<Settings> {
        Settings::new(self.address.clone(), &store.options, environment)
    }
}

/// The server that the url names, where it does.
fn address(store: &StoreConfig) -> Result<Option<Address>> {
    let url = &store.url;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse(
            store,
            "a Vault store's url has no query or fragment",
        ));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let tcp = |tls, default| match host {
        Some(host) => Address::tcp(tls, host, url.port().unwrap_or(default)).map(Some),
        None => Err(refuse(store, "the url names no host")),
    };
    match url.scheme() {
        HTTPS => tcp(true, 443),
        HTTP => tcp(false, 80),
        UNIX if host.is_none() && url.path().len() > 1 => Address::unix(url.path()).map(Some),
        UNIX => Err(refuse(store, "the url names a socket on this host")),
        ENVIRONMENT if host.is_none() => Ok(None),
        ENVIRONMENT => Err(refuse(
            store,
            "`vault:` takes the address from BAO_ADDR or VAULT_ADDR, and its url names none",
        )),
        other => Err(refuse(store, format!("`{other}` is no Vault store"))),
    }
}

fn mount(store: &StoreConfig) -> Result<String> {
    let of_url = match store.url.scheme() {
        UNIX => "",
        _ => store.url.path().trim_matches('/'),
    };
    let mount = match (of_url, store.options.text("mount")) {
        ("", Some(mount)) => mount.trim_matches('/'),
        (mount, None) => mount,
        _ => {
            let rule = "the url names the mount already";
            return Err(store.options.invalid("mount", rule).with_advice(
                "leave `mount` out; it is for vault+unix, whose url names the socket",
            ));
        }
    };
    if mount.is_empty() {
        return Err(refuse(store, "it is not said where the engine is mounted"));
    }
    if mount.contains('%') {
        return Err(refuse(
            store,
            "a mount with odd letters stands in `mount`, not in the url",
        ));
    }
    match SecretPath::new(mount) {
        Ok(mount) => Ok(mount.as_str().to_owned()),
        Err(error) => Err(refuse(
            store,
            format!("the mount is no path: {}", error.message()),
        )),
    }
}

fn refuse(store: &StoreConfig, rule: impl Into<Cow<'static, str>>) -> Error {
    let form = match store.url.scheme() {
        UNIX => "vault+unix:///PATH/TO/SOCKET, with mount = \"secret\"",
        ENVIRONMENT => "vault:MOUNT, as in vault:secret",
        _ => "vault+https://HOST:PORT/MOUNT, as in vault+https://vault.example.com:8200/secret",
    };
    Error::new(ErrorKind::InvalidConfig, rule)
        .with_advice(format!("a Vault store's url is {form}"))
        .with_place(&store.place)
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::Options;

    use super::*;

    fn store(url: &str, options: &[(&str, &str)]) -> StoreConfig {
        let options = Options::at("keyhaul.toml:7:3", options.iter().copied());
        StoreConfig::new("site", url, options, "keyhaul.toml:5:1").expect("a store")
    }

    #[test]
    fn each_scheme_says_where_the_server_and_the_mount_are() {
        for (url, options, server, mount) in [
            (
                "vault+https://v.example.com:8200/secret",
                &[][..],
                "https://v.example.com:8200",
                "secret",
            ),
            (
                "vault+https://v.example.com/kv/prod/",
                &[],
                "https://v.example.com",
                "kv/prod",
            ),
            (
                "vault+http://127.0.0.1:8200/secret",
                &[],
                "http://127.0.0.1:8200",
                "secret",
            ),
            (
                "vault+http://[::1]:8200/secret",
                &[],
                "http://[::1]:8200",
                "secret",
            ),
            (
                "vault+unix:///run/bao.sock",
                &[("mount", "secret")],
                "unix:///run/bao.sock",
                "secret",
            ),
            (
                "vault:kv/prod",
                &[],
                "the server of BAO_ADDR or VAULT_ADDR",
                "kv/prod",
            ),
            (
                "vault:///secret",
                &[],
                "the server of BAO_ADDR or VAULT_ADDR",
                "secret",
            ),
            (
                "vault+http://[::1]:8200",
                &[("mount", "odd letters")],
                "http://[::1]:8200",
                "odd letters",
            ),
        ] {
            let config = Config::new(&store(url, options)).expect(url);
            assert_eq!(
                (config.server.as_str(), config.mount.as_str()),
                (server, mount)
            );
            assert_eq!(config.field.as_str(), "value");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        let url = "vault+https://vault/secret";
        let leased = ("engine", "leased");
        for (url, options, place) in [
            ("vault+https://vault", &[][..], "5:1"),
            ("vault+https:/secret", &[], "5:1"),
            ("vault+https://vault/secret?x=y", &[], "5:1"),
            ("vault+https://vault/a%2Fb", &[], "5:1"),
            ("vault+https://vault/a//b", &[], "5:1"),
            ("vault+unix:///run/bao.sock", &[], "5:1"),
            (
                "vault+unix://host/run/bao.sock",
                &[("mount", "secret")],
                "5:1",
            ),
            ("vault://host/secret", &[], "5:1"),
            ("vault:", &[], "5:1"),
            (url, &[("mount", "kv")], "7:3"),
            (url, &[("engine", "transit")], "7:3"),
            (url, &[("kv-version", "3")], "7:3"),
            (url, &[("encoding", "raw")], "7:3"),
            (url, &[("field", "a b")], "7:3"),
            (url, &[("field", "*"), ("encoding", "hex")], "7:3"),
            (url, &[("delete", "never")], "7:3"),
            (url, &[("delete", "soft"), ("kv-version", "1")], "7:3"),
            (url, &[leased, ("kv-version", "1")], "7:3"),
            (url, &[leased, ("encoding", "hex")], "7:3"),
            (url, &[leased, ("delete", "soft")], "7:3"),
        ] {
            let error = Config::new(&store(url, options)).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let came = error.context().place.as_deref();
            assert_eq!(
                came,
                Some(format!("keyhaul.toml:{place}").as_str()),
                "{url} {error}"
            );
        }
    }

    #[test]
    fn every_option_is_listed_once() {
        let mut names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
