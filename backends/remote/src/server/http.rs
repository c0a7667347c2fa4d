//! HTTP: from a request to the operation it asks for, and from what came of it to an answer.

use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use keyhaul_core::{Error, ErrorKind, IdempotencyId, Result};
use serde::de::DeserializeOwned;

use super::audit::Entry;
use super::bodies;
use super::call::Call;
use super::connection::{Away, Connection, limited};
use super::failure::{internal, invalid, wrong_role};
use super::guard::Operation;
use super::handlers;
use crate::protocol::{MEDIA_TYPE, Problem, header as ours, limit};

const JSON: &str = "application/json";
/// The longest body of a request that holds no value.
const SMALL_BODY: usize = 256 * 1024;
/// How long a request waits for its store where its caller does not say, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60));
/// The longest id of a request.
const MAX_ID: usize = 64;
/// When whoever had one connection too many may try again.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) type Answer = Response<Full<Bytes>>;

/// A failed request.
struct Failure {
    error: Error,
    status: Option<StatusCode>,
    allow: Option<&'static str>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            status: None,
            allow: None,
        }
    }
}

/// Answers one request. Never fails: what goes wrong is a problem document.
pub(super) async fn serve(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let _running = connection.running();
    let id = id(&connection, request.headers());
    let is_head = request.method() == Method::HEAD;
    let (parts, mut body) = request.into_parts();
    let answer = AssertUnwindSafe(answer(&connection, &parts, &mut body, &id));
    let result = answer.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(request = %id, "a request ended in a panic");
        Err(internal("a defect of the service").into())
    });
    let mut answer = match result {
        Ok(body) => respond(StatusCode::OK, JSON, body),
        Err(failure) => {
            let mut answer = problem(&failure, &id);
            // A refusal may come before the body.
            if parts.version < Version::HTTP_2 && !bodies::drained(&mut body).await {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            answer
        }
    };
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static(ours::REQUEST_ID), id);
    }
    // Nothing here is for a cache to keep.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is_head {
        // Over HTTP/2 nobody else takes it off.
        *answer.body_mut() = Full::default();
    }
    answer
}

async fn answer(
    connection: &Arc<Connection>,
    parts: &Parts,
    body: &mut Incoming,
    id: &Arc<str>,
) -> Result<Vec<u8>, Failure> {
    if let Some(away) = connection.turned_away {
        connection.closing.notify_one();
        return Err(turned_away(away).into());
    }
    let live = connection.shared.live();
    // Before all else: what is nobody's is closed, whatever its holder has spent.
    let identity = match connection.identity(&live) {
        Ok(identity) => identity,
        Err(reason) => {
            let operation = Operation::find(&parts.method, parts.uri.path());
            let operation = operation.map_or("none", Operation::name);
            return Err(nobody(connection, id, operation, reason).await.into());
        }
    };
    connection.account.admit().map_err(limited)?;
    let operation = match Operation::find(&parts.method, parts.uri.path()) {
        Ok(operation) => operation,
        Err(allow) => return Err(astray(allow)),
    };
    let now = Instant::now();
    let call = Call {
        connection: Arc::clone(connection),
        identity,
        id: Arc::clone(id),
        operation,
        deadline: now + patience(&parts.headers)?,
        idempotency: idempotency(&parts.headers)?,
        live,
    };
    if call.idempotency.is_some() && !matches!(operation, Operation::Write | Operation::Generate) {
        return Err(invalid("an idempotency-key has no effect on this path").into());
    }
    if !operation.roles().contains(&call.identity.role) {
        let error = wrong_role(operation, call.identity.role);
        let reason = "the role may not ask that";
        return Err(call.deny(call.entry(None), error, reason).await.into());
    }
    let query = parts.uri.query();
    // What it takes up is kept until the answer: so long it is in memory.
    let (body, _held) = if parts.method == Method::GET {
        if !body.is_end_stream() {
            return Err(invalid("a GET takes no body").into());
        }
        (Vec::new(), None)
    } else {
        if query.is_some() {
            return Err(invalid("a POST takes no query: its body says it all").into());
        }
        is_json(&parts.headers)?;
        let most = match operation {
            Operation::Write => limit::BODY,
            _ => SMALL_BODY,
        };
        let (body, held) = bodies::read(connection, body, most, call.live.limits.body).await?;
        (body, Some(held))
    };
    Ok(handlers::answer(Arc::new(call), query.unwrap_or_default(), &body).await?)
}

/// Refuses whoever's certificate is nobody's, or no longer; the audit knows why.
async fn nobody(
    connection: &Arc<Connection>,
    id: &Arc<str>,
    operation: &'static str,
    reason: &'static str,
) -> Error {
    // Once this is answered: what was revoked or has expired has nothing to ask here.
    connection.closing.notify_one();
    let error = Error::new(
        ErrorKind::Unauthenticated,
        "the certificate is nobody's here, or no longer valid",
    )
    .with_advice("renew it, or have its URI mapped to a role in the service's configuration");
    let entry = Entry {
        request: Arc::clone(id),
        actor: connection.uri(),
        role: None,
        peer: Arc::clone(&connection.peer),
        operation,
        subject: None,
        node: None,
        outcome: error.kind().name(),
        reason: Some(reason.into()),
        version: None,
        epoch: None,
        migration: None,
        terms: serde_json::Map::new(),
    };
    match connection.record_nobody(entry).await {
        Ok(_) => error,
        Err(failed) => failed,
    }
}

/// What whoever has one connection too many is told: another server of the service may have room.
fn turned_away(away: Away) -> Error {
    let (kind, words) = match away {
        Away::Full => (
            ErrorKind::Unavailable,
            "the service has as many connections as it takes",
        ),
        Away::Share => (
            ErrorKind::RateLimited,
            "this certificate has as many connections as one may have",
        ),
    };
    Error::new(kind, words)
        .with_retry_after(AGAIN)
        .with_advice("`[limits]` in the service's configuration says how many that are")
}

/// There is no such path, or no such method on it.
fn astray(allow: &'static str) -> Failure {
    let (kind, status, words) = match allow {
        "" => (
            ErrorKind::NotFound,
            StatusCode::NOT_FOUND,
            "there is no such path",
        ),
        _ => (
            ErrorKind::Unsupported,
            StatusCode::METHOD_NOT_ALLOWED,
            "the path does not take this method",
        ),
    };
    let error =
        Error::new(kind, words).with_advice("the interface is described at /v1/openapi.json");
    Failure {
        error,
        status: Some(status),
        allow: (!allow.is_empty()).then_some(allow),
    }
}

/// The request's id: the caller's, where it is one, or a fresh one.
fn id(connection: &Connection, headers: &HeaderMap) -> Arc<str> {
    let legal = |id: &&str| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=MAX_ID).contains(&id.len()) && id.bytes().all(word)
    };
    match single(headers, ours::REQUEST_ID) {
        Ok(Some(id)) if legal(&id) => id.into(),
        _ => connection.shared.fresh_id().into(),
    }
}

fn patience(headers: &HeaderMap) -> Result<Duration> {
    let (usual, most) = PATIENCE;
    match number(headers, ours::TIMEOUT)? {
        None => Ok(usual),
        Some(millis) => Ok(Duration::from_millis(millis).min(most)),
    }
}

fn idempotency(headers: &HeaderMap) -> Result<Option<IdempotencyId>> {
    match single(headers, ours::IDEMPOTENCY_KEY)? {
        None => Ok(None),
        Some(text) => match IdempotencyId::from_hex(text) {
            Some(id) if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Some(id)),
            _ => Err(invalid("an idempotency-key is 32 hexadecimal digits")),
        },
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>> {
    let Some(text) = single(headers, name)? else {
        return Ok(None);
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match u64::from_str(text) {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(invalid(format!("`{name}` is a whole number"))),
    }
}

fn is_json(headers: &HeaderMap) -> Result<()> {
    let media = single(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let (media, parameters) = media.split_once(';').unwrap_or((media, "charset=utf-8"));
    let known = parameters.trim().eq_ignore_ascii_case("charset=utf-8");
    if !media.trim().eq_ignore_ascii_case(JSON) || !known {
        return Err(invalid("a body is JSON: content-type is application/json"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(invalid("a body comes as it is, without content-encoding"));
    }
    Ok(())
}

/// A header that is there once, or not at all.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(invalid(format!("the header `{name}` is ASCII"))),
        },
        (Some(_), Some(_)) => Err(invalid(format!("the header `{name}` is there twice"))),
    }
}

/// A body's words.
///
/// # Errors
/// `InvalidReference` with the rule.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("the body: {error}")))
}

fn problem(failure: &Failure, id: &str) -> Answer {
    let mut problem = Problem::of(&failure.error, Some(id));
    if let Some(status) = failure.status {
        problem.status = status.as_u16();
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answer = respond(status, MEDIA_TYPE, body);
    let headers = answer.headers_mut();
    if let Some(allow) = failure.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(wait) = failure.error.retry_after() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

fn respond(status: StatusCode, media: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}
