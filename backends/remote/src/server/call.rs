//! One request on its way: who asks what, under which id, until when; and its trace in the audit.

use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use keyhaul_core::{Error, ErrorKind, IdempotencyId, Reference, Request, Result};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::audit::Entry;
use super::connection::Connection;
use super::failure::{internal, invalid, of_store, out_of_reach, reason};
use super::guard::Operation;
use super::identity::Identity;
use super::{Live, Shared};
use crate::protocol::Role;

/// The outcome of a change that has only begun.
pub(super) const BEGIN: &str = "begin";
/// The operation of a record that says that somebody was refused too much.
pub(super) const LIMIT: &str = "limit";
/// How much longer than its caller's patience an answer to a change is awaited. The change goes on.
const LONGER: Duration = Duration::from_secs(10);
/// The scope that is each node's own.
const HOST: &str = "@host";

/// The room that a change takes while it is under way.
pub(super) type Room = Arc<OwnedSemaphorePermit>;

/// A request whose holder is known and may ask such things.
pub(super) struct Call {
    pub(super) connection: Arc<Connection>,
    pub(super) live: Arc<Live>,
    pub(super) identity: Arc<Identity>,
    pub(super) id: Arc<str>,
    pub(super) operation: Operation,
    pub(super) deadline: Instant,
    pub(super) idempotency: Option<IdempotencyId>,
}

impl Call {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    /// Who asks, for the store.
    pub(super) fn request(&self) -> Request {
        Request::default()
            .id(Some(Arc::clone(&self.id)))
            .actor(Some(Arc::clone(&self.identity.uri)))
            .deadline(Some(self.deadline))
    }

    /// What a store answers, within the caller's patience.
    pub(super) async fn ask<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout_at(self.deadline.into(), answer).await {
            Ok(answer) => answer.map_err(of_store),
            Err(_) => Err(late()),
        }
    }

    /// The secret that the caller means by `text`: `SCOPE/NAME`, and nothing after it.
    ///
    /// # Errors
    /// `InvalidReference` with the rule.
    pub(super) fn secret(&self, text: &str) -> Result<Reference> {
        let reference = Reference::parse(text)?;
        if reference.subject() != text {
            return Err(invalid(
                "a secret is named SCOPE/NAME here; a version or a field has a key of its own",
            ));
        }
        if reference.scope() != HOST {
            return Ok(reference);
        }
        if self.identity.role != Role::Node {
            return Err(of_node());
        }
        Reference::parse(&format!(
            "{HOST}.{}/{}",
            self.identity.name,
            reference.name()
        ))
    }

    /// A scope that the caller names.
    ///
    /// # Errors
    /// `InvalidReference` with the rule.
    pub(super) fn scope(&self, scope: &str) -> Result<()> {
        if scope == HOST {
            return Err(of_node());
        }
        let reference = Reference::parse(&format!("{scope}/x"))?;
        if reference.scope() == scope {
            Ok(())
        } else {
            Err(invalid("a scope is one segment"))
        }
    }

    /// Lets the call pass where the role reaches `scope`; otherwise says no, and the audit why.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) async fn reach(&self, scope: &str, entry: &Entry) -> Result<()> {
        if self.identity.covers(scope) {
            return Ok(());
        }
        let error = out_of_reach();
        let reason = "the role does not cover the scope";
        Err(self.deny(entry.clone(), error, reason).await)
    }

    /// As [`reach`](Self::reach), for what is about all scopes.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) async fn reach_all(&self, entry: &Entry) -> Result<()> {
        if self.identity.covers_all() {
            return Ok(());
        }
        let error = out_of_reach();
        let reason = "the role does not cover all scopes";
        Err(self.deny(entry.clone(), error, reason).await)
    }

    /// What to say no with, once the audit has why: `error`, or `Internal` where the audit cannot be
    /// written.
    pub(super) async fn deny(&self, mut entry: Entry, error: Error, reason: &'static str) -> Error {
        entry.outcome = error.kind().name();
        entry.reason = Some(Cow::Borrowed(reason));
        match self.record(vec![entry]).await {
            Ok(_) => error,
            Err(failed) => failed,
        }
    }

    /// A record of this call about `subject`.
    pub(super) fn entry(&self, subject: Option<String>) -> Entry {
        Entry {
            request: Arc::clone(&self.id),
            actor: Arc::clone(&self.identity.uri),
            role: Some(self.identity.role),
            peer: Arc::clone(&self.connection.peer),
            operation: self.operation.name(),
            subject,
            node: None,
            outcome: Entry::OK,
            reason: None,
            version: None,
            epoch: None,
            migration: None,
            terms: serde_json::Map::new(),
        }
    }

    /// Writes records down, durably.
    ///
    /// # Errors
    /// As [`Connection::record`]: then nothing may be done or told.
    pub(super) async fn record(&self, entries: Vec<Entry>) -> Result<u64> {
        self.connection.record(entries).await
    }

    /// The answer to what only looks: told once the audit has it.
    ///
    /// # Errors
    /// The result's own, or `Internal`.
    pub(super) async fn looked<T: Serialize>(
        &self,
        mut entry: Entry,
        result: Result<T>,
    ) -> Result<Vec<u8>> {
        if let Err(error) = &result {
            fail(&mut entry, error);
        }
        self.record(vec![entry]).await?;
        json(&result?)
    }

    /// Room for what is limited, in turn and within the caller's patience.
    ///
    /// # Errors
    /// `Timeout`.
    pub(super) async fn room(&self, rooms: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
        let room = Arc::clone(rooms).acquire_owned();
        match tokio::time::timeout_at(self.deadline.into(), room).await {
            Ok(room) => room.map_err(|_| internal("the service ends")),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                "the service has too much under way: the request had no turn in time, and nothing was done",
            )),
        }
    }

    /// Has `change` made: recorded before it begins and when it is done, and carried to its end
    /// although the caller may be gone. `change` is given its room: who does a part of it that may
    /// outlive it keeps that. `note` completes the record.
    ///
    /// # Errors
    /// The change's own, or `Internal`; that too where it was done and its end cannot be recorded.
    pub(super) async fn changed<T, F>(
        self: &Arc<Self>,
        entry: Entry,
        change: impl FnOnce(Room) -> F + Send + 'static,
        note: impl FnOnce(&T, &mut Entry) + Send + 'static,
    ) -> Result<Vec<u8>>
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let rooms = if self.operation.is_of_state() {
            &self.shared().decisions
        } else {
            &self.shared().changes
        };
        let room = Arc::new(self.room(rooms).await?);
        let call = Arc::clone(self);
        let task = tokio::spawn(async move {
            let change = change(Arc::clone(&room));
            // Until its end is recorded.
            let _room = room;
            let mut begun = entry.clone();
            begun.outcome = BEGIN;
            call.record(vec![begun]).await?;
            let result = AssertUnwindSafe(change).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(internal("a defect of the service")));
            let mut done = entry;
            match &result {
                Ok(answer) => note(answer, &mut done),
                Err(error) => fail(&mut done, error),
            }
            // Whatever its caller has to spend: what was begun has an end.
            match (call.shared().record(vec![done]).await, result) {
                (Ok(_), result) => result,
                (Err(error), Ok(_)) => Err(unended(error)),
                (Err(error), Err(_)) => Err(error),
            }
        });
        // The stores' patience is the caller's. This is for disks that hang, under the state.
        match tokio::time::timeout_at((self.deadline + LONGER).into(), task).await {
            Ok(result) => {
                json(&result.unwrap_or_else(|_| Err(internal("a defect of the service")))?)
            }
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                "the service could not finish it in time: it may still be done",
            )),
        }
    }
}

/// That a change is done although its end could not be recorded: whoever is told of a plain failure
/// would do it again.
fn unended(error: Error) -> Error {
    let done = "it is done, and must not be done again; but the audit cannot be written, and has its beginning only";
    Error::new(ErrorKind::Internal, done)
        .with_advice("see what is with the disk under the service's audit; its log has the reason")
        .with_source(error)
}

/// Makes a record one of a failure.
pub(super) fn fail(entry: &mut Entry, error: &Error) {
    entry.outcome = error.kind().name();
    entry.reason = Some(Cow::Owned(reason(error)));
}

/// An answer's body.
///
/// # Errors
/// `Internal` where it is none.
pub(super) fn json(answer: &impl Serialize) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(512);
    serde_json::to_writer(&mut body, answer)
        .map_err(|error| internal("the answer cannot be written").with_source(error))?;
    Ok(body)
}

pub(super) fn late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the service's store did not answer in time",
    )
}

fn of_node() -> Error {
    invalid("`@host` is the asking node's own scope; a node's scope is named @host.NODE")
}
