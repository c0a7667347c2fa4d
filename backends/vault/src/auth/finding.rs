//! Getting a token: from where one lies, or by logging in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, SecretWriter};

use super::api::{self, Issued};
use super::kept::Place;
use super::method::{Kind, Method, SecretId};
use super::token::{Held, Origin, Token};
use crate::environment::Environment;
use crate::http::Http;

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What an identity has in its hands while it logs in.
pub(super) struct Finder<'a> {
    pub(super) http: &'a Http,
    pub(super) method: &'a Method,
    pub(super) environment: &'a Environment,
    /// The generation of the token to be found.
    pub(super) generation: u64,
}

/// A wrapped secret id, on its way to a login. It is spent before the login is known to succeed,
/// so that what came out of it is kept until then.
#[derive(Default)]
pub(super) struct Wrapped {
    secret_id: Option<SecretBytes>,
    spent: bool,
}

impl Finder<'_> {
    /// The token to use: one that lies ready, else a new login's.
    ///
    /// # Errors
    /// `Unauthenticated` where there is none, with all places that were looked at.
    pub(super) async fn find(&self, wrapped: &mut Wrapped) -> Result<Held> {
        if let Kind::Token { source } = &self.method.kind {
            return match source {
                Some(source) => {
                    let value = read(source)?;
                    Ok(self.unknown(value, Origin::Source(source.clone())))
                }
                None => self.lying(),
            };
        }
        if let Some(held) = self.kept() {
            return Ok(held);
        }
        let asked = Instant::now();
        let issued = self.log_in(wrapped, None).await?;
        let token = Token::new(issued.value, self.generation);
        Ok(Held::known(token, Origin::Login, issued.life, asked))
    }

    /// Logs in. A `password` that a person has just given goes before the policy's.
    pub(super) async fn log_in(
        &self,
        wrapped: &mut Wrapped,
        password: Option<&SecretBytes>,
    ) -> Result<Issued> {
        let (http, method) = (self.http, self.method);
        let at_mount = format!("auth/{}/login", method.mount);
        match &method.kind {
            Kind::AppRole { role_id, secret_id } => {
                let role_id = read(role_id)?;
                let secret = match secret_id {
                    SecretId::None => None,
                    SecretId::Plain(source) => Some(read(source)?),
                    SecretId::Wrapped(source) => Some(self.unwrap(source, wrapped).await?),
                };
                let mut fields = BTreeMap::from([("role_id", api::utf8(&role_id)?)]);
                if let Some(secret) = &secret {
                    fields.insert("secret_id", api::utf8(secret)?);
                }
                let outcome = api::login(http, method, &at_mount, &fields).await;
                if matches!(secret_id, SecretId::Wrapped(_)) {
                    wrapped.settle(&outcome, secret);
                }
                outcome
            }
            Kind::Cert { role } => {
                if http.settings().tls.client.is_none() {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        "the method `cert` needs a client certificate",
                    )
                    .with_advice(
                        "set `client-cert` and `client-key` (VAULT_CLIENT_CERT, VAULT_CLIENT_KEY)",
                    ));
                }
                let name = role.iter().map(|role| ("name", role.as_str()));
                api::login(http, method, &at_mount, &name.collect()).await
            }
            Kind::Jwt { role, jwt } => {
                let jwt = read(jwt)?;
                self.log_in_by_jwt(&at_mount, role.as_deref(), &jwt).await
            }
            Kind::Kubernetes { role, jwt } => {
                let jwt = match jwt {
                    Some(source) => read(source)?,
                    None => service_account(Path::new(SERVICE_ACCOUNT))?,
                };
                self.log_in_by_jwt(&at_mount, Some(role), &jwt).await
            }
            Kind::Token { .. } => Err(Error::new(
                ErrorKind::Internal,
                "a token is no way to log in",
            )),
            Kind::Userpass {
                username,
                password: source,
            } => {
                let own;
                let password = match (password, source) {
                    (Some(password), _) => password,
                    (None, Some(source)) => {
                        own = read(source)?;
                        &own
                    }
                    (None, None) => {
                        return Err(Error::new(
                            ErrorKind::Unauthenticated,
                            format!(
                                "`{username}` is not logged in, and the policy names no `password`"
                            ),
                        )
                        .with_advice("log in: keyhaul login STORE"));
                    }
                };
                let path = format!("{at_mount}/{username}");
                let fields = BTreeMap::from([("password", api::utf8(password)?)]);
                api::login(http, method, &path, &fields).await
            }
        }
    }

    /// Whether a wrapped secret id is still unspent, without spending it.
    ///
    /// # Errors
    /// `Unauthenticated` where it is spent.
    pub(super) async fn inspect(&self, source: &CredentialSource) -> Result<()> {
        api::lookup_wrapping(self.http, self.method, &read(source)?).await
    }

    /// The kept login of this identity.
    pub(super) fn kept(&self) -> Option<Held> {
        let value = Place::new(self.http, self.method).read()?;
        Some(self.unknown(value, Origin::Kept))
    }

    async fn log_in_by_jwt(
        &self,
        path: &str,
        role: Option<&str>,
        jwt: &SecretBytes,
    ) -> Result<Issued> {
        let mut fields = BTreeMap::from([("jwt", api::utf8(jwt)?)]);
        fields.extend(role.map(|role| ("role", role)));
        api::login(self.http, self.method, path, &fields).await
    }

    async fn unwrap(
        &self,
        source: &CredentialSource,
        wrapped: &mut Wrapped,
    ) -> Result<SecretBytes> {
        if let Some(secret) = wrapped.secret_id.take() {
            return Ok(secret);
        }
        if wrapped.spent {
            return Err(api::spent());
        }
        let wrapping = read(source)?;
        api::lookup_wrapping(self.http, self.method, &wrapping).await?;
        let secret = api::unwrap_secret_id(self.http, &wrapping).await?;
        wrapped.spent = true;
        Ok(secret)
    }

    /// A token that somebody left where tokens are looked for.
    fn lying(&self) -> Result<Held> {
        let environment = self.environment;
        if let (Some(name), Some(value)) =
            (environment.source("TOKEN"), environment.secret("TOKEN"))
        {
            return Ok(self.unknown(trimmed(value), Origin::Environment(name)));
        }
        if let Some(held) = self.kept() {
            return Ok(held);
        }
        let home = environment.plain("HOME")?;
        let file = home.map(|home| PathBuf::from(home.text).join(".vault-token"));
        if let Some(path) = file.filter(|path| path.is_absolute() && path.exists()) {
            let value = read(&CredentialSource::File(path.clone()))?;
            return Ok(self.unknown(value, Origin::File(path)));
        }
        Err(Error::new(
            ErrorKind::Unauthenticated,
            "there is no token: not in $BAO_TOKEN or $VAULT_TOKEN, no kept login, no ~/.vault-token",
        )
        .with_advice("log in: keyhaul login STORE; or give the store an `auth` table"))
    }

    fn unknown(&self, value: SecretBytes, origin: Origin) -> Held {
        Held::unknown(Token::new(value, self.generation), origin)
    }
}

impl Wrapped {
    /// Whether nothing can come of it any more.
    pub(super) fn is_spent(&self) -> bool {
        self.spent && self.secret_id.is_none()
    }

    /// Keeps the secret id for the next try where the server did not judge it.
    fn settle(&mut self, outcome: &Result<Issued>, secret: Option<SecretBytes>) {
        let unjudged = outcome
            .as_ref()
            .is_err_and(|error| error.kind().is_transient());
        self.secret_id = secret.filter(|_| unjudged);
    }
}

/// A credential without the newline that editors and `echo` leave.
fn read(source: &CredentialSource) -> Result<SecretBytes> {
    let value = trimmed(source.read()?);
    if value.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("the credential {source} is empty"),
        ));
    }
    Ok(value)
}

fn trimmed(value: SecretBytes) -> SecretBytes {
    match value.expose().strip_suffix(b"\n") {
        Some(rest) => SecretBytes::copy_from(rest.strip_suffix(b"\r").unwrap_or(rest)),
        None => value,
    }
}

/// A pod's own token. Kubernetes owns the file and its mode, which often lets the whole pod read it.
fn service_account(path: &Path) -> Result<SecretBytes> {
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("no service account's token at {}", path.display()),
        )
        .with_source(error)
        .with_advice("outside a pod, name a token: `jwt` in `auth`")
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut writer = SecretWriter::with_limit(CredentialSource::MAX);
    writer.read_all(&mut file)?;
    Ok(trimmed(writer.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_accounts_token_is_read_whatever_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "jwt\n").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("mode");
        assert_eq!(service_account(&path).expect("read").expose(), b"jwt");
        std::fs::remove_file(&path).expect("removed");
        let error = service_account(&path).expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}
