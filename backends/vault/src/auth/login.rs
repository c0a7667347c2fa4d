//! Logins that a person makes, for the next commands of the day.

use std::time::{Duration, SystemTime};

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, StoreConfig};

use super::api::{self, Looked};
use super::finding::{Finder, Wrapped};
use super::kept::Place;
use super::method::{Kind, Method};
use crate::config::Config;
use crate::environment::Environment;
use crate::http::Http;

/// What a login gave, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The token's policies: what it may do.
    pub policies: Vec<String>,
    /// By which an administrator can look the token up and revoke it.
    pub accessor: Option<String>,
    /// When the lease ends, if it does.
    pub expires: Option<SystemTime>,
    /// Whether the lease can be renewed, as commands do on their way.
    pub renewable: bool,
}

/// What a login asks the person for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// Nothing: the policy names all of it.
    Nothing,
    /// The password of this user.
    Password(String),
    /// A token.
    Token,
}

/// What logging in to a store asks the person for.
///
/// # Errors
/// `InvalidConfig` where the store's `auth` is wrong.
pub fn question(store: &StoreConfig) -> Result<Question> {
    Method::of(store).map(|method| question_of(&method))
}

/// Whether the next request to a store would spend a wrapped secret id, which a later process then
/// lacks: what only looks does not make it. Asks no server.
///
/// # Errors
/// `InvalidConfig` where the store's settings are wrong.
pub fn next_request_spends(store: &StoreConfig) -> Result<bool> {
    let method = Method::of(store)?;
    if !method.is_wrapped() {
        return Ok(false);
    }
    let http = Http::new(Config::new(store)?.settings(store, &Environment::process())?);
    Ok(Place::new(&http, &method).read().is_none())
}

/// Logs in to a store and keeps the token in the kernel's keyring for its lease, for every command
/// of this user; `answer` is to [`question`]. A login kept before is revoked.
///
/// # Errors
/// `Unauthenticated` where the server refuses; `InvalidConfig` where the policy names the token, so that there is
/// nothing to keep; `Unsupported` where this system has no keyring. Nothing is kept then.
pub async fn login(store: &StoreConfig, answer: Option<SecretBytes>) -> Result<Login> {
    let environment = Environment::process();
    let http = Http::new(Config::new(store)?.settings(store, &environment)?);
    log_in(&http, &Method::of(store)?, &environment, answer).await
}

/// Revokes the kept login of a store at its server and forgets it; whether there was one.
///
/// # Errors
/// Where the server did not revoke it. It is kept then, so that it can be tried again.
pub async fn logout(store: &StoreConfig) -> Result<bool> {
    let environment = Environment::process();
    let http = Http::new(Config::new(store)?.settings(store, &environment)?);
    log_out(&http, &Method::of(store)?).await
}

/// What a login by `method` asks for.
pub(super) fn question_of(method: &Method) -> Question {
    match &method.kind {
        Kind::Token { source: None } => Question::Token,
        Kind::Userpass {
            username,
            password: None,
        } => Question::Password(username.clone()),
        _ => Question::Nothing,
    }
}

/// Logs in by `method` at the server of `http`, and keeps the token.
pub(super) async fn log_in(
    http: &Http,
    method: &Method,
    environment: &Environment,
    answer: Option<SecretBytes>,
) -> Result<Login> {
    let place = Place::new(http, method);
    let (token, life, accessor, policies) = match (&method.kind, answer) {
        (
            Kind::Token {
                source: Some(source),
            },
            _,
        ) => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the store takes its token from {source}: there is no login to keep"),
            ));
        }
        (Kind::Token { source: None }, None) => {
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                "a login without an `auth` table takes a token",
            ));
        }
        (Kind::Token { source: None }, Some(token)) => {
            match api::lookup_self(http, &token, None).await? {
                Looked::Alive {
                    life,
                    accessor,
                    policies,
                } => (token, life, accessor, policies),
                Looked::Refused => {
                    return Err(Error::new(
                        ErrorKind::Unauthenticated,
                        "the server does not take the token: it is wrong, expired, revoked or of another namespace",
                    ));
                }
            }
        }
        (Kind::Userpass { .. }, answer) => fresh(http, method, environment, answer).await?,
        (_, Some(_)) => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("a login by {method} takes no password"),
            ));
        }
        (_, None) => fresh(http, method, environment, None).await?,
    };
    let before = place.read().filter(|before| *before != token);
    if let Err(error) = place.write(&token, life.left) {
        // Nobody could use it, or revoke it later.
        let _ = api::revoke_self(http, &token).await;
        return Err(error);
    }
    if let Some(before) = before {
        let _ = api::revoke_self(http, &before).await;
    }
    Ok(Login {
        policies,
        accessor,
        expires: life
            .left
            .and_then(|left: Duration| SystemTime::now().checked_add(left)),
        renewable: life.renewable,
    })
}

type Fresh = (SecretBytes, super::token::Life, Option<String>, Vec<String>);

async fn fresh(
    http: &Http,
    method: &Method,
    environment: &Environment,
    password: Option<SecretBytes>,
) -> Result<Fresh> {
    let finder = Finder {
        http,
        method,
        environment,
        generation: 0,
    };
    let issued = finder
        .log_in(&mut Wrapped::default(), password.as_ref())
        .await?;
    Ok((issued.value, issued.life, issued.accessor, issued.policies))
}

/// Revokes and forgets the token that is kept of logins by `method` at the server of `http`.
pub(super) async fn log_out(http: &Http, method: &Method) -> Result<bool> {
    let place = Place::new(http, method);
    let Some(token) = place.read() else {
        return Ok(false);
    };
    api::revoke_self(http, &token).await?;
    place.forget();
    Ok(true)
}
