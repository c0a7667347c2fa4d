//! Who asked for what, when, and what came of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use serde::{Serialize, Serializer};

use super::{Call, Layer};
use crate::store::{GetOptions, Request};
use crate::{Error, ErrorKind, Operation, Result, Secret, SecretPath, random};

/// Records every request and what came of it, and fails the request where that cannot be done.
///
/// - What changes something (`put`, `generate`, `delete`) is recorded twice: as it begins, so that
///   a sink that cannot be written fails it before it has had an effect; and as it ends. A
///   beginning without an end is a request whose outcome nobody saw: look at the store.
/// - What reads is recorded as it ends; where that fails, the value is withheld. Of a `get_many`
///   each path has a record of its own.
/// - `capabilities`, which is about no secret, is not recorded.
/// - A request without an id gets one, which the layers and servers below see too.
///
/// A record never holds a value, or a value's length.
///
/// Right: outermost, `Audit::new(sink).over(layers)`: what is recorded is what the caller asked
/// and got. Wrong: inside a cache, which would answer without a record; inside the retries, where
/// one request of one caller is recorded as several; or inside the deadline, where an answer is
/// recorded that the caller no longer waited for.
#[derive(Clone, Debug)]
pub struct Audit {
    sink: Arc<dyn AuditSink>,
    /// Who asks where the request does not say.
    user: Arc<str>,
}

/// Where audit records go.
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Keeps a record. Called on the path of each request: it must be quick, and does not wait for
    /// anything that could hang.
    ///
    /// # Errors
    /// Any: the request that the record is about fails.
    fn record(&self, record: &AuditRecord<'_>) -> Result<()>;
}

/// One line of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditRecord<'a> {
    /// When this happened.
    #[serde(serialize_with = "rfc_3339")]
    pub time: SystemTime,
    /// Whether the request begins or has ended.
    pub event: AuditEvent,
    /// The request's id, the same in logs and at servers.
    pub request: &'a str,
    /// Who asked: [`Request::actor`], or the user this process runs as, as `uid:0`.
    pub actor: &'a str,
    /// What was asked.
    #[serde(serialize_with = "name_of_operation")]
    pub operation: Operation,
    /// Of which store.
    pub store: &'a str,
    /// About which secret, or below which prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// `ok`, or the kind of the error; none as the request begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// How long it took, in microseconds; none as the request begins.
    #[serde(rename = "duration_us", serialize_with = "microseconds")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditEvent {
    /// A request that can change something is about to be made.
    Begin,
    /// A request has its outcome.
    End,
}

impl Audit {
    /// Records to `sink`.
    pub fn new(sink: Arc<dyn AuditSink>) -> Self {
        let user = format!("uid:{}", rustix::process::getuid().as_raw());
        Self {
            sink,
            user: user.into(),
        }
    }

    fn begin(&self, call: &Call<'_>, id: &str) -> Result<()> {
        let record = self.about(call, id, AuditEvent::Begin);
        self.sink.record(&record).map_err(|error| {
            unrecorded(call, "the store was not asked, since", &error).with_source(error)
        })
    }

    /// Records an outcome, and gives the answer only where that was possible.
    fn end<T>(&self, call: &Call<'_>, id: &str, start: Instant, answer: Result<T>) -> Result<T> {
        let outcome = answer.as_ref().map_or_else(|e| e.kind().name(), |_| "ok");
        let record = AuditRecord {
            outcome: Some(outcome),
            duration: Some(start.elapsed()),
            ..self.about(call, id, AuditEvent::End)
        };
        match self.sink.record(&record) {
            Ok(()) => answer,
            Err(error) => {
                let what = match (&answer, is_change(call.operation)) {
                    (Err(failed), _) => format!("the request failed ({}), and", failed.kind()),
                    (Ok(_), true) => "the change was made, but".into(),
                    (Ok(_), false) => "the answer is withheld, since".into(),
                };
                Err(unrecorded(call, &what, &error).with_source(error))
            }
        }
    }

    fn about<'a>(&'a self, call: &Call<'a>, id: &'a str, event: AuditEvent) -> AuditRecord<'a> {
        AuditRecord {
            time: SystemTime::now(),
            event,
            request: id,
            actor: call.request.actor.as_deref().unwrap_or(&self.user),
            operation: call.operation,
            store: &call.store.descriptor().name,
            path: call.path.map(SecretPath::as_str),
            outcome: None,
            duration: None,
        }
    }
}

impl Layer for Audit {
    fn request(&self, request: &Request) -> Result<Option<Request>> {
        match request.id {
            Some(_) => Ok(None),
            None => Ok(Some(request.clone().id(Some(fresh_id()?)))),
        }
    }

    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        if call.operation == Operation::Capabilities {
            return attempt().await;
        }
        let id = id_of(call.request)?;
        if is_change(call.operation) {
            self.begin(&call, &id)?;
        }
        let start = Instant::now();
        let answer = attempt().await;
        self.end(&call, &id, start, answer)
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        let id = match id_of(call.request) {
            Ok(id) => id,
            Err(error) => return super::layer::all_fail(paths, &error),
        };
        let start = Instant::now();
        let answers = call.store.get_many(paths, options).await;
        let recorded = |(answer, path)| self.end(&call.at(path), &id, start, answer);
        answers.into_iter().zip(paths).map(recorded).collect()
    }
}

fn is_change(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Delete | Operation::Generate | Operation::Put
    )
}

/// The request's id; a fresh one for `probe`, which carries no request.
fn id_of(request: &Request) -> Result<Arc<str>> {
    match &request.id {
        Some(id) => Ok(id.clone()),
        None => fresh_id(),
    }
}

fn fresh_id() -> Result<Arc<str>> {
    random::hex(8).map(Arc::from)
}

/// The sink's error as the request's. Never of a passing kind: who tries again would find a store
/// that may have been changed.
fn unrecorded(call: &Call<'_>, what: &str, error: &Error) -> Error {
    let kind = match error.kind() {
        kind if kind.is_transient() => ErrorKind::Internal,
        kind => kind,
    };
    call.error(kind, format!("{what} the audit record could not be kept"))
        .with_advice("mend the place that the audit is written to, then ask again")
}

fn rfc_3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let time = jiff::Timestamp::try_from(*time).map_err(serde::ser::Error::custom)?;
    serializer.collect_str(&format_args!("{time:.6}"))
}

fn name_of_operation<S: Serializer>(
    operation: &Operation,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(operation.name())
}

fn microseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let micros = duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    micros.serialize(serializer)
}
