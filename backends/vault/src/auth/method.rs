//! How to log in, as the policy says.

use std::fmt;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::Options;
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

/// The methods by their names, each with the keys that it takes beside `method` and `mount`.
const METHODS: &[(&str, &[&str])] = &[
    ("approle", &["role-id", "secret-id", "wrapped-secret-id"]),
    ("cert", &["role"]),
    ("jwt", &["role", "jwt"]),
    ("kubernetes", &["role", "jwt"]),
    ("token", &["token"]),
    ("userpass", &["username", "password"]),
];

/// How to log in, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// Below `auth/`, without slashes at its ends.
    pub(crate) mount: String,
    /// By what.
    pub(crate) kind: Kind,
}

/// By what a login proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A role's id, and a secret that belongs to it.
    AppRole {
        role_id: CredentialSource,
        secret_id: SecretId,
    },
    /// The client certificate of the connection.
    Cert { role: Option<String> },
    /// A JSON web token of somebody whom the server trusts.
    Jwt {
        role: Option<String>,
        jwt: CredentialSource,
    },
    /// The service account of a pod; its token is where Kubernetes puts it, if nothing is said.
    Kubernetes {
        role: String,
        jwt: Option<CredentialSource>,
    },
    /// A token that somebody else made.
    Token { source: Option<CredentialSource> },
    /// A name and a password.
    Userpass {
        username: String,
        password: Option<CredentialSource>,
    },
}

/// The second half of an AppRole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretId {
    /// None: the role is bound by something else, as the client's network.
    None,
    /// As it is.
    Plain(CredentialSource),
    /// Wrapped: the source holds a token that gives it once.
    Wrapped(CredentialSource),
}

impl Method {
    /// A token from wherever one is found, as without an `auth` table.
    pub(crate) fn found() -> Self {
        Self {
            mount: "token".to_owned(),
            kind: Kind::Token { source: None },
        }
    }

    /// Whether it logs in with what can be used once.
    pub(super) fn is_wrapped(&self) -> bool {
        matches!(
            self.kind,
            Kind::AppRole {
                secret_id: SecretId::Wrapped(_),
                ..
            }
        )
    }

    /// The method of a store: what its `auth` table says, else a token from wherever one is found.
    ///
    /// # Errors
    /// As [`from_options`](Self::from_options).
    pub(crate) fn of(store: &StoreConfig) -> Result<Self> {
        match store.options.table("auth") {
            Some(options) => Self::from_options(options),
            None => Ok(Self::found()),
        }
    }

    /// Reads an `auth` table. No I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the key that is missing, or that the method does not take.
    pub(crate) fn from_options(options: &Options) -> Result<Self> {
        let names = names();
        let name = options.text("method").ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "`auth` needs a `method`")
                .with_advice(format!("methods are {names}"))
        })?;
        let keys = METHODS
            .iter()
            .find_map(|(known, keys)| (*known == name).then_some(*keys))
            .ok_or_else(|| {
                let rule = format!("unknown method `{name}`; known are: {names}");
                options.invalid("method", rule)
            })?;
        for key in options.0.keys() {
            if !["method", "mount"].contains(&key.as_str()) && !keys.contains(&key.as_str()) {
                let rule = format!(
                    "`{key}` has no meaning for the method `{name}`, which takes: {}",
                    keys.join(", ")
                );
                return Err(options.invalid(key, rule));
            }
        }
        let mount = match options.text("mount") {
            None => name.to_owned(),
            Some(text) => mount(text).map_err(|error| options.placed("mount", error))?,
        };
        let kind = Table { options, name }.kind()?;
        Ok(Self { mount, kind })
    }

    /// The method's name.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::AppRole { .. } => "approle",
            Kind::Cert { .. } => "cert",
            Kind::Jwt { .. } => "jwt",
            Kind::Kubernetes { .. } => "kubernetes",
            Kind::Token { .. } => "token",
            Kind::Userpass { .. } => "userpass",
        }
    }

    /// Who logs in, as far as the policy tells, and free of secrets: two stores with the same
    /// words share a kept login.
    pub(crate) fn who(&self) -> String {
        match &self.kind {
            Kind::AppRole { role_id, .. } => role_id.to_string(),
            Kind::Cert { role } | Kind::Jwt { role, .. } => role.clone().unwrap_or_default(),
            Kind::Kubernetes { role, .. } => role.clone(),
            Kind::Token { .. } => String::new(),
            Kind::Userpass { username, .. } => username.clone(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Token { .. } => f.write_str("token"),
            _ => write!(f, "{} at auth/{}", self.name(), self.mount),
        }
    }
}

fn names() -> String {
    let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// An `auth` table of a known method.
struct Table<'a> {
    options: &'a Options,
    name: &'a str,
}

impl Table<'_> {
    fn kind(&self) -> Result<Kind> {
        Ok(match self.name {
            "approle" => Kind::AppRole {
                role_id: self.needed(self.options.credential("role-id")?, "role-id")?,
                secret_id: self.secret_id()?,
            },
            "cert" => Kind::Cert {
                role: self.text("role")?,
            },
            "jwt" => Kind::Jwt {
                role: self.text("role")?,
                jwt: self.needed(self.options.credential("jwt")?, "jwt")?,
            },
            "kubernetes" => Kind::Kubernetes {
                role: self.needed(self.text("role")?, "role")?,
                jwt: self.options.credential("jwt")?,
            },
            "userpass" => Kind::Userpass {
                username: self.needed(self.text("username")?, "username")?,
                password: self.options.credential("password")?,
            },
            _ => Kind::Token {
                source: self.options.credential("token")?,
            },
        })
    }

    fn secret_id(&self) -> Result<SecretId> {
        let plain = self.options.credential("secret-id")?;
        let wrapped = self.options.credential("wrapped-secret-id")?;
        match (plain, wrapped) {
            (None, None) => Ok(SecretId::None),
            (Some(source), None) => Ok(SecretId::Plain(source)),
            (None, Some(source)) => Ok(SecretId::Wrapped(source)),
            (Some(_), Some(_)) => Err(self.options.invalid(
                "wrapped-secret-id",
                "`secret-id` and `wrapped-secret-id` exclude each other",
            )),
        }
    }

    /// A text that is not empty.
    fn text(&self, key: &str) -> Result<Option<String>> {
        match self.options.text(key) {
            Some("") => Err(self.options.invalid(key, format!("`{key}` is empty"))),
            text => Ok(text.map(str::to_owned)),
        }
    }

    fn needed<T>(&self, found: Option<T>, key: &str) -> Result<T> {
        found.ok_or_else(|| {
            let rule = format!("the method `{}` needs `{key}`", self.name);
            self.options.invalid("method", rule)
        })
    }
}

/// A mount, as people write it: `approle`, `auth/approle/`.
fn mount(text: &str) -> Result<String> {
    let trimmed = text.trim_matches('/');
    let mount = trimmed.strip_prefix("auth/").unwrap_or(trimmed);
    if mount.is_empty() || mount.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "`mount` is a path below auth/, as approle or site/approle",
        ));
    }
    Ok(mount.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[(&str, &str)]) -> Result<Method> {
        Method::from_options(&Options::at("keyhaul.toml:3:1", keys.iter().copied()))
    }

    #[test]
    fn each_method_has_its_name_for_a_mount_where_nothing_is_said() {
        for (keys, mount) in [
            (
                &[("method", "approle"), ("role-id", "env:R")][..],
                "approle",
            ),
            (&[("method", "cert")], "cert"),
            (&[("method", "jwt"), ("jwt", "env:J")], "jwt"),
            (&[("method", "kubernetes"), ("role", "r")], "kubernetes"),
            (&[("method", "token")], "token"),
            (&[("method", "userpass"), ("username", "u")], "userpass"),
            (
                &[("method", "cert"), ("mount", "/auth/site/cert/")],
                "site/cert",
            ),
        ] {
            assert_eq!(table(keys).expect("valid").mount, mount);
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_named_with_its_place() {
        for (keys, words) in [
            (&[][..], "`auth` needs a `method`"),
            (&[("method", "ldap")], "unknown method `ldap`"),
            (&[("method", "approle")], "needs `role-id`"),
            (&[("method", "jwt"), ("role", "r")], "needs `jwt`"),
            (&[("method", "kubernetes")], "needs `role`"),
            (&[("method", "userpass")], "needs `username`"),
            (
                &[("method", "userpass"), ("username", "")],
                "`username` is empty",
            ),
            (
                &[("method", "cert"), ("token", "env:T")],
                "`token` has no meaning for the method `cert`",
            ),
            (
                &[("method", "cert"), ("mount", "a/../b")],
                "`mount` is a path",
            ),
            (
                &[
                    ("method", "approle"),
                    ("role-id", "env:R"),
                    ("secret-id", "env:S"),
                    ("wrapped-secret-id", "env:W"),
                ],
                "exclude each other",
            ),
        ] {
            let error = table(keys).expect_err(words);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(words), "{error}");
            if !keys.is_empty() {
                assert!(error.to_string().contains("keyhaul.toml:3:1"), "{error}");
            }
        }
    }
}
