//! Who the store is at the server: until there is more, the token of the environment.

use std::sync::Arc;
use std::time::Instant;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::{OptionKind, OptionSpec, Options};
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};

use crate::environment::Environment;
use crate::http::Http;

/// The options of the table `auth`.
pub(crate) const AUTH: &[OptionSpec] = &[OptionSpec {
    name: "token",
    kind: OptionKind::Credential,
    default: "BAO_TOKEN or VAULT_TOKEN",
    help: "The token's source.",
}];

pub(crate) struct Method(Option<CredentialSource>);

impl Method {
    pub(crate) fn found() -> Self {
        Self(None)
    }

    pub(crate) fn from_options(options: &Options) -> Result<Self> {
        Ok(Self(options.credential("token")?))
    }
}

/// A login.
#[derive(Debug)]
pub(crate) struct Identity {
    source: Option<CredentialSource>,
    environment: Environment,
}

#[derive(Debug)]
pub(crate) struct Token(SecretBytes);

impl Token {
    pub(crate) fn value(&self) -> &SecretBytes {
        &self.0
    }
}

pub(crate) enum Verdict {
    #[expect(dead_code, reason = "until there are logins")]
    Again(Token),
    Denied,
}

impl Identity {
    pub(crate) fn new(_: Arc<Http>, method: Method, environment: Environment) -> Self {
        Self {
            source: method.0,
            environment,
        }
    }

    pub(crate) async fn token(&self, _: Option<Instant>) -> Result<Token> {
        match &self.source {
            Some(source) => source.read().map(Token),
            None => self.environment.secret("TOKEN").map(Token).ok_or_else(|| {
                Error::new(ErrorKind::Unauthenticated, "there is no token")
                    .with_advice("set VAULT_TOKEN")
            }),
        }
    }

    pub(crate) async fn denied(&self, _: &Token, _: Option<Instant>) -> Result<Verdict> {
        Ok(Verdict::Denied)
    }

    pub(crate) async fn probe(&self, deadline: Option<Instant>) -> Result<()> {
        self.token(deadline).await.map(drop)
    }
}
