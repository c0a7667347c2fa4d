//! How many connections there is room for, with and without a certificate: what the process has
//! descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::entrance::{HANDSHAKES, WAITING};

/// How many connections that are one too many are told so at the same time.
pub(super) const TURNED_AWAY: usize = 64;
/// Descriptors that are not connections: files of state, audit and stores, and stores' connections.
const OTHERS: usize = 256;

/// How many connections there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// With a certificate.
    pub(super) connections: usize,
    /// That wait for a handshake.
    pub(super) waiting: usize,
}

/// Room for `wanted` connections that have shown a certificate, or for as many as the process can
/// have descriptors for. Its soft limit is raised as far as that takes: connections must never use
/// up what the state and the audit need.
pub(super) fn connections(wanted: usize) -> Room {
    let others = HANDSHAKES + TURNED_AWAY + OTHERS;
    let needed = (wanted + WAITING + others) as u64;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let mut soft = limit.current.unwrap_or(u64::MAX);
    if soft < needed {
        let raised = Rlimit {
            current: Some(needed.min(hard)),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            soft = needed.min(hard);
        }
    }
    let soft = usize::try_from(soft).unwrap_or(usize::MAX);
    let room = divide(soft.saturating_sub(others), wanted);
    if room.connections < wanted {
        tracing::warn!(
            wanted,
            room = room.connections,
            "the limit of open files (ulimit -n, LimitNOFILE=) leaves no room for as many connections as configured"
        );
    }
    room
}

/// Where there are few descriptors, who waits gets a quarter of them at most.
fn divide(descriptors: usize, wanted: usize) -> Room {
    let left = descriptors.saturating_sub(wanted).max(descriptors / 4);
    let waiting = left.clamp(1, WAITING);
    Room {
        connections: descriptors.saturating_sub(waiting).clamp(1, wanted),
        waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_for_connections_first() {
        let room = |connections, waiting| Room {
            connections,
            waiting,
        };
        assert_eq!(divide(100_000, 4096), room(4096, WAITING));
        assert_eq!(divide(4096 + WAITING, 4096), room(4096, WAITING));
        assert_eq!(divide(400, 4096), room(300, 100));
        assert_eq!(divide(0, 4096), room(1, 1));
    }
}
