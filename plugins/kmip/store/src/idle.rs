//! Connections that wait for the next request, and end where none comes.
//!
//! Not only because a firewall would forget them: the buffers of TLS hold what the last answer was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::sleep_until;

use crate::connection::Connection;

/// The connections of a store that are idle.
#[derive(Default)]
pub(crate) struct Idle(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    connections: Vec<Connection>,
    /// Whether somebody ends them in time.
    watched: bool,
}

impl Idle {
    /// One that may be used once more.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut kept = lock(&self.0);
        while let Some(mut connection) = kept.connections.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps one. To be called on a runtime.
    pub(crate) fn keep(&self, connection: Connection) {
        let mut kept = lock(&self.0);
        kept.connections.push(connection);
        if !kept.watched {
            kept.watched = true;
            tokio::spawn(watch(Arc::downgrade(&self.0)));
        }
    }

    /// Ends all.
    pub(crate) fn clear(&self) {
        lock(&self.0).connections.clear();
    }
}

/// Ends each in time, until there is none.
async fn watch(idle: Weak<Mutex<Kept>>) {
    while let Some(next) = next(&idle) {
        sleep_until(next).await;
    }
}

/// Ends those whose time has come. When the next one's has.
fn next(idle: &Weak<Mutex<Kept>>) -> Option<tokio::time::Instant> {
    let idle = idle.upgrade()?;
    let mut kept = lock(&idle);
    kept.connections.retain_mut(Connection::is_usable);
    let next = kept.connections.iter().map(Connection::until).min();
    kept.watched = next.is_some();
    next
}

fn lock(idle: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
