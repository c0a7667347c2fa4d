//! The requests of logging in, each with what its statuses mean.
//!
//! vaultrs has endpoints for them. Those of logging in and unwrapping take role, secret and token as
//! plain strings, and give the new token as one: here they stay in locked memory both ways. Those
//! of renewing and revoking begin their path with a tab (vaultrs 0.8), which no server knows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, SecretWriter};
use reqwest::Method as Verb;
use serde::Deserialize;
use serde_json::value::RawValue;
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use super::method::Method;
use super::token::Life;
use crate::http::{Answer, Call, Http, Manner};

/// No body of a login is longer: the longest part is a JSON web token.
const MAX_BODY: usize = 1 << 20;

/// What a login gave.
pub(super) struct Issued {
    pub(super) value: SecretBytes,
    pub(super) life: Life,
    pub(super) accessor: Option<String>,
    pub(super) policies: Vec<String>,
}

/// What a token says of itself.
pub(super) enum Looked {
    /// It lives.
    Alive {
        life: Life,
        accessor: Option<String>,
        policies: Vec<String>,
    },
    /// It is dead, or may not look at itself.
    Refused,
}

#[derive(Deserialize)]
struct LoginAnswer<'a> {
    #[serde(borrow)]
    auth: Option<Auth<'a>>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow)]
    client_token: &'a RawValue,
    accessor: Option<String>,
    policies: Option<Vec<String>>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    num_uses: u64,
}

#[derive(Deserialize)]
struct LookupAnswer {
    data: Lookup,
}

#[derive(Deserialize)]
struct Lookup {
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    #[serde(default)]
    period: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    num_uses: u64,
    accessor: Option<String>,
    policies: Option<Vec<String>>,
    identity_policies: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Unwrapped<'a> {
    #[serde(borrow)]
    data: SecretIdData<'a>,
}

#[derive(Deserialize)]
struct SecretIdData<'a> {
    #[serde(borrow)]
    secret_id: &'a RawValue,
}

#[derive(Deserialize)]
struct WrappingAnswer {
    data: Wrapping,
}

#[derive(Deserialize)]
struct Wrapping {
    creation_path: Option<String>,
}

/// Logs in with these fields.
///
/// # Errors
/// `Unauthenticated` where the server refuses, `InvalidConfig` where it has no such mount.
pub(super) async fn login(
    http: &Http,
    method: &Method,
    path: &str,
    fields: &BTreeMap<&str, &str>,
) -> Result<Issued> {
    let call = Call::new(Verb::POST, path).body(body(fields)?);
    let answer = http.send(call).await?;
    if !answer.is_success() {
        return Err(login_refused(&answer, method));
    }
    let read: LoginAnswer<'_> = answer.json()?;
    issued(&answer, read.auth, method)
}

fn issued(answer: &Answer, auth: Option<Auth<'_>>, method: &Method) -> Result<Issued> {
    let auth = auth.ok_or_else(|| answer.garbage())?;
    let value = text(auth.client_token).ok_or_else(|| answer.garbage())?;
    if value.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the login by {method} asks for a second factor"),
        )
        .with_advice("log in elsewhere, and give the store the token"));
    }
    let policies = auth.policies.unwrap_or_default();
    let lease = Duration::from_secs(auth.lease_duration);
    Ok(Issued {
        value,
        life: Life {
            left: (auth.lease_duration > 0).then_some(lease),
            lease,
            renewable: auth.renewable,
            counted: auth.num_uses > 0,
        },
        accessor: auth.accessor,
        policies,
    })
}

fn login_refused(answer: &Answer, method: &Method) -> Error {
    let says = words(answer);
    match answer.status {
        400 | 401 | 403 => Error::new(
            ErrorKind::Unauthenticated,
            format!("the server refuses the login by {method}{says}"),
        )
        .with_advice("see that the credential belongs to that method, mount and namespace, and has not expired or been used up"),
        404 | 405 => Error::new(
            ErrorKind::InvalidConfig,
            format!("there is no login by {method}{says}"),
        )
        .with_advice("set `mount` in `auth` to where the method is mounted: bao auth list"),
        _ => answer.refusal(),
    }
}

/// Looks up the token itself. This uses up a counted token by one.
///
/// # Errors
/// Where there was no answer, or one that settles nothing.
pub(super) async fn lookup_self(
    http: &Http,
    token: &SecretBytes,
    deadline: Option<Instant>,
) -> Result<Looked> {
    let call = Call::endpoint(&LookupTokenSelfRequest {})?.manner(asking(token, deadline));
    let answer = http.send(call).await?;
    if matches!(answer.status, 401 | 403) {
        return Ok(Looked::Refused);
    }
    if !answer.is_success() {
        return Err(answer.refusal());
    }
    let LookupAnswer { data } = answer.json()?;
    let mut policies = data.policies.unwrap_or_default();
    policies.extend(data.identity_policies.unwrap_or_default());
    policies.dedup();
    let lease = data.creation_ttl.max(data.period).max(data.ttl);
    Ok(Looked::Alive {
        life: Life {
            left: (data.ttl > 0).then(|| Duration::from_secs(data.ttl)),
            lease: Duration::from_secs(lease),
            renewable: data.renewable,
            counted: data.num_uses > 0,
        },
        accessor: data.accessor,
        policies,
    })
}

/// Whether a token lives that may not look itself up: which mounts there are is told to any living token,
/// each what it may see, and does not use up a counted one.
///
/// # Errors
/// Where there was no answer, or one that settles nothing.
pub(super) async fn is_alive(http: &Http, token: &SecretBytes) -> Result<bool> {
    let call = Call::new(Verb::GET, "sys/internal/ui/mounts").manner(asking(token, None));
    let answer = http.send(call).await?;
    match answer.status {
        401 | 403 => Ok(false),
        _ if answer.is_success() => Ok(true),
        _ => Err(answer.refusal()),
    }
}

/// Renews the token's lease. None where the server refuses for good.
///
/// # Errors
/// Where there was no answer, or one that may be another the next time.
pub(super) async fn renew_self(
    http: &Http,
    token: &SecretBytes,
    deadline: Option<Instant>,
) -> Result<Option<Life>> {
    let call = Call::new(Verb::POST, "auth/token/renew-self")
        .body(body(&BTreeMap::new())?)
        .manner(asking(token, deadline));
    let answer = http.send(call).await?;
    if matches!(answer.status, 400 | 401 | 403) {
        return Ok(None);
    }
    if !answer.is_success() {
        return Err(answer.refusal());
    }
    let read: LoginAnswer<'_> = answer.json()?;
    let renewed = issued(&answer, read.auth, &Method::found())?;
    Ok(Some(renewed.life))
}

/// Revokes the token. One that is dead already is as good as revoked.
///
/// # Errors
/// Where the server did not do it.
pub(super) async fn revoke_self(http: &Http, token: &SecretBytes) -> Result<()> {
    let call = Call::new(Verb::POST, "auth/token/revoke-self").manner(asking(token, None));
    let answer = http.send(call).await?;
    if answer.is_success() || matches!(answer.status, 401 | 403) {
        return Ok(());
    }
    Err(answer.refusal())
}

/// Asks what a wrapping token wraps, without unwrapping it: it must be a secret id of this mount. Somebody
/// who took the real one could have put another in its place.
///
/// # Errors
/// `Unauthenticated` where it is spent, expired, or wraps something else.
pub(super) async fn lookup_wrapping(
    http: &Http,
    method: &Method,
    wrapping: &SecretBytes,
) -> Result<()> {
    let token = utf8(wrapping)?;
    let fields = BTreeMap::from([("token", token)]);
    let call = Call::new(Verb::POST, "sys/wrapping/lookup").body(body(&fields)?);
    let answer = http.send(call).await?;
    if matches!(answer.status, 400 | 401 | 403) {
        return Err(spent());
    }
    if !answer.is_success() {
        return Err(answer.refusal());
    }
    let WrappingAnswer { data } = answer.json()?;
    let path = data.creation_path.unwrap_or_default();
    let expected = format!("auth/{}/role/", method.mount);
    // In a namespace, its name comes first.
    let of_mount = path.starts_with(&expected) || path.contains(&format!("/{expected}"));
    if of_mount && path.ends_with("secret-id") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unauthenticated,
        format!("the wrapped secret-id is none of {method}: it wraps another answer"),
    )
    .with_advice(
        "somebody may have replaced it: revoke the role's secret ids and have a new one made",
    ))
}

/// Takes a secret id out of its wrapping, which works once.
///
/// # Errors
/// `Unauthenticated` where somebody did so before.
pub(super) async fn unwrap_secret_id(http: &Http, wrapping: &SecretBytes) -> Result<SecretBytes> {
    let call = Call::new(Verb::POST, "sys/wrapping/unwrap").manner(asking(wrapping, None));
    let answer = http.send(call).await?;
    if matches!(answer.status, 400 | 401 | 403) {
        return Err(spent());
    }
    if !answer.is_success() {
        return Err(answer.refusal());
    }
    let Unwrapped { data } = answer.json()?;
    text(data.secret_id).ok_or_else(|| answer.garbage())
}

/// The error for a wrapping token that gives nothing any more.
pub(super) fn spent() -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "the wrapped secret-id has been used already, or has expired: it can be spent once",
    )
    .with_advice("if nobody here used it, somebody intercepted it: revoke the role's secret ids. Have a new one wrapped; to log in once and for several commands, use `keyhaul login`")
}

/// How a token asks.
fn asking(token: &SecretBytes, deadline: Option<Instant>) -> Manner<'_> {
    Manner {
        token: Some(token),
        deadline,
        ..Manner::default()
    }
}

/// A JSON object, written straight into locked memory.
fn body(fields: &BTreeMap<&str, &str>) -> Result<SecretBytes> {
    let mut writer = SecretWriter::with_limit(MAX_BODY);
    serde_json::to_writer(&mut writer, fields)
        .map_err(|_| Error::new(ErrorKind::TooLarge, "a credential is longer than 1 MiB"))?;
    Ok(writer.finish())
}

/// A credential as text, as JSON wants it.
///
/// # Errors
/// `InvalidConfig` where it is none.
pub(super) fn utf8(credential: &SecretBytes) -> Result<&str> {
    std::str::from_utf8(credential.expose())
        .map_err(|_| Error::new(ErrorKind::InvalidConfig, "a credential is no UTF-8 text"))
}

/// A string that has no escapes, as the tokens and ids that servers make.
fn text(raw: &RawValue) -> Option<SecretBytes> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    let plain = !inner.contains('\\');
    plain.then(|| SecretBytes::copy_from(inner.as_bytes()))
}

fn words(answer: &Answer) -> String {
    match answer.errors() {
        lines if lines.is_empty() => String::new(),
        lines => format!(": {}", lines.join("; ")),
    }
}
