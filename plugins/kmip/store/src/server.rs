//! A server, and what it is asked in one message.

use keyhaul_core::{Error, ErrorKind, Request, Result};

use crate::config::Settings;
use crate::failure::Failure;
use crate::message::{self, Operation, Version};
use crate::pool::Pool;
use crate::ttlv::Structure;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pool: Pool,
    pub(crate) version: Version,
}

impl Server {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            pool: Pool::new(settings),
            version: settings.version,
        }
    }

    /// One request, and what `read` finds in the answer.
    pub(crate) async fn one<T>(
        &self,
        asked: message::Request<'_>,
        request: &Request,
        read: impl FnOnce(&Structure<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let operation = asked.0;
        let message = message::encode(self.version, &[asked]);
        let answer = self.pool.ask(&message, request).await?;
        let mut outcomes = message::outcomes(&answer, &[operation])?;
        let payload = outcomes.pop().ok_or_else(missing)??;
        read(&payload)
    }

    /// Several requests in one message, and what `read` finds in the answer to each, by its number.
    pub(crate) async fn each<T>(
        &self,
        asked: Vec<message::Request<'_>>,
        request: &Request,
        read: impl Fn(usize, &Structure<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<Result<T, Failure>>> {
        let operations: Vec<Operation> = asked.iter().map(|(operation, _)| *operation).collect();
        let message = message::encode(self.version, &asked);
        let answer = self.pool.ask(&message, request).await?;
        let outcomes = message::outcomes(&answer, &operations).map_err(Failure::from)?;
        let read = |(number, outcome): (usize, Result<Structure<'_>, Failure>)| {
            outcome.and_then(|payload| read(number, &payload))
        };
        Ok(outcomes.into_iter().enumerate().map(read).collect())
    }
}

pub(crate) fn missing() -> Error {
    Error::new(ErrorKind::Internal, "an answer without an outcome")
}
