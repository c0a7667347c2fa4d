//! From references to values that a consumer can use, or every reason why not.

use std::sync::Arc;

use keyhaul_core::{Error, Result, Secret, Wanted};

use crate::failure::Outcome;
use crate::session::Session;

/// Every value, in order. Where one is missing there is none: half of a VM's secrets start no VM.
pub fn all(session: &Session, references: &[Wanted]) -> Outcome<Vec<Arc<Secret>>> {
    let mut secrets = Vec::with_capacity(references.len());
    let mut errors: Vec<Error> = Vec::new();
    for answer in each(session, references) {
        match answer {
            Ok(secret) => secrets.push(secret),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(secrets)
    } else {
        Err(errors.into())
    }
}

/// Every value or the reason why not, in order.
pub fn each(session: &Session, references: &[Wanted]) -> Vec<Result<Arc<Secret>>> {
    for reference in references {
        // A reference that leads nowhere is reported below.
        if let Ok(target) = session.resolver.target(reference) {
            tracing::info!(
                reference = reference.short(),
                route = target.route,
                store = target.stores.join(", else "),
                path = %target.path,
                "to be fetched"
            );
        }
    }
    session.wait(session.resolver.resolve(references, &session.request()))
}
