//! A limit on one attempt.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Call, Layer};
use crate::{ErrorKind, Result};

/// Gives up an attempt after a while, as `Timeout`, and drops it. The contract says what dropping
/// means: the old value or the new one.
///
/// Right: inside the retries, `Retry::new(3).over(Timeout::new(limit).over(store))`: one attempt
/// that hangs uses up one limit, and the next has its turn. Wrong: outside them,
/// `Timeout::new(limit).over(Retry::new(3).over(store))`: the first attempt that hangs uses up all
/// the time there is, and nothing is ever tried again. For a limit on the whole there is
/// [`Deadline`](super::Deadline).
#[derive(Clone, Copy, Debug)]
pub struct Timeout {
    limit: Duration,
}

impl Timeout {
    /// Attempts of at most `limit`.
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl Layer for Timeout {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        match tokio::time::timeout(self.limit, attempt()).await {
            Ok(answer) => answer,
            Err(_) => Err(call.error(
                ErrorKind::Timeout,
                format!("the store gave no answer within {:?}", self.limit),
            )),
        }
    }
}
