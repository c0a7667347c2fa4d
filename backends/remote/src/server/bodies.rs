//! Bodies of requests: how they are read, and how much of them is in memory at a time.
//!
//! A body that trickles in is in memory for as long as it may take, and one connection can have a
//! hundred of them. So there is room for so many KiB, of everybody and of each holder, and who finds
//! none waits before a byte is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use keyhaul_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::Connection;
use super::failure::{internal, invalid};
use crate::protocol::limit;

/// KiB of all bodies at a time.
pub(super) const ALL: usize = 64 * 1024;
/// KiB of one holder's: several of the longest, and no more than a part of all.
pub(super) const SHARE: usize = ALL / 4;
/// How long the rest of a refused request's body is awaited.
const DRAIN: Duration = Duration::from_secs(2);
/// When whoever found no room may try again.
const AGAIN: Duration = Duration::from_secs(5);

/// The room that a body takes up, until dropped.
pub(super) struct Held {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// A whole body, of `most` bytes and within `time`.
///
/// # Errors
/// `TooLarge`; `InvalidReference` where it breaks off; `Timeout` where it does not arrive in time,
/// `RateLimited` or `Unavailable` where there is no room for it in time.
pub(super) async fn read(
    connection: &Connection,
    body: &mut Incoming,
    most: usize,
    time: Duration,
) -> Result<(Vec<u8>, Held)> {
    let end = Instant::now() + time;
    let too_large = || {
        Error::new(
            ErrorKind::TooLarge,
            format!("the body is longer than the {most} bytes that this path takes"),
        )
    };
    let announced = body.size_hint().exact();
    let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    // Where nobody says how long it is, it may be as long as any.
    let longest = announced.unwrap_or(most);
    let held = hold(connection, longest, end).await?;
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| invalid("the body did not arrive whole").with_source(error))?;
            // Trailers say nothing that is asked for.
            if let Ok(data) = frame.into_data() {
                if data.len() > longest - bytes.len() {
                    return Err(too_large());
                }
                if bytes.is_empty() {
                    // What is announced is believed only as far as it costs little.
                    let announced = announced.unwrap_or_default();
                    bytes.reserve(announced.min(64 * 1024).max(data.len()));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes)
    };
    match timeout_at(end, whole).await {
        Ok(read) => Ok((read?, held)),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "the body did not arrive in time",
        )),
    }
}

/// Room for a body of so many bytes, of its holder's share first: who has used that up takes none
/// of the others'.
async fn hold(connection: &Connection, bytes: usize, end: Instant) -> Result<Held> {
    let kib = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
    let room = async |of: &Arc<Semaphore>, kind, words| {
        let room = Arc::clone(of).acquire_many_owned(kib);
        match timeout_at(end, room).await {
            Ok(room) => room.map_err(|_| internal("the service ends")),
            Err(_) => Err(Error::new(kind, words).with_retry_after(AGAIN)),
        }
    };
    Ok(Held {
        _share: room(
            connection.account.bodies(),
            ErrorKind::RateLimited,
            "as many bodies of this certificate's as may be are under way",
        )
        .await?,
        _all: room(
            &connection.shared.bodies,
            ErrorKind::Unavailable,
            "as many bodies as may be are under way",
        )
        .await?,
    })
}

/// Reads what is left of the body of a refused request and throws it away: who is still writing
/// does not hear that it was refused. `false` where that is more than it is worth: then the
/// connection ends.
pub(super) async fn drained(body: &mut Incoming) -> bool {
    if body.size_hint().lower() > limit::BODY as u64 {
        return false;
    }
    let all = async {
        let mut left = limit::BODY;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len) {
                Some(less) => left = less,
                None => return false,
            }
        }
        body.is_end_stream()
    };
    timeout(DRAIN, all).await.unwrap_or(false)
}
