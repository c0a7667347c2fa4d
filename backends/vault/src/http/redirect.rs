//! Where a server sends us, and whether to go there.
//!
//! A standby answers 307 with its leader's address. Whoever gets the next request gets the token:
//! only the store's own address and those that the policy trusts do.

use keyhaul_core::{Error, ErrorKind, Result};
use url::Url;

use super::{Address, Answer, Settings};
use crate::error::printable;

/// How many requests one call may become: a standby, its leader, and one election in between.
pub(super) const MOST: usize = 4;

/// The next request of a call.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) address: Address,
    pub(super) to: Url,
}

/// Where `answer`, which `current` gave when asked for `asked`, sends us, if it does.
///
/// # Errors
/// `Unavailable` for an address that nobody trusts, or none at all.
pub(super) fn next(
    settings: &Settings,
    current: &Address,
    asked: &Url,
    answer: &Answer,
) -> Result<Option<Hop>> {
    if !matches!(answer.status, 301 | 302 | 307 | 308) {
        return Ok(None);
    }
    let location = answer.location.as_deref().unwrap_or_default();
    let to = asked.join(location).ok().filter(|_| !location.is_empty());
    let Some(to) = to.filter(|to| to.username().is_empty() && to.password().is_none()) else {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!("{current} redirects to no address"),
        ));
    };
    let address = if to.origin() == asked.origin() {
        // A socket's urls all have the same host: it stays the socket.
        Some(current)
    } else {
        let known = std::iter::once(&settings.address).chain(&settings.trusted);
        known.into_iter().find(|known| known.holds(&to))
    };
    match address {
        Some(address) => Ok(Some(Hop {
            address: address.clone(),
            to,
        })),
        None => {
            let server = printable(&to.origin().ascii_serialization());
            Err(Error::new(
                ErrorKind::Unavailable,
                format!("{current} redirects to {server}, which the policy does not trust"),
            )
            .with_advice(format!(
                "if that is the cluster's own, add it to the store: trusted-addresses = [\"{server}\"]"
            )))
        }
    }
}

/// The error for a call that is sent on and on.
pub(super) fn too_many(address: &Address) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{address} redirects in a circle, or has no leader"),
    )
}
