//! From references to values that a consumer can use, or every reason why not.

use std::sync::Arc;

use keyhaul_core::{Error, Reference, Secret};

use crate::failure::Outcome;
use crate::session::Session;

/// Every value, in order. Where one is missing there is none: half of a VM's secrets start no VM.
pub fn all(session: &Session, references: &[Reference]) -> Outcome<Vec<Arc<Secret>>> {
    for reference in references {
        // A reference that leads nowhere is reported below.
        if let Ok(target) = session.resolver.policy().target(reference) {
            tracing::info!(
                reference = reference.short(),
                route = target.route,
                store = target.stores.join(", else "),
                path = %target.path,
                "to be fetched"
            );
        }
    }
    let answers = session.wait(session.resolver.resolve(references, &session.request()));
    let mut secrets = Vec::with_capacity(answers.len());
    let mut errors: Vec<Error> = Vec::new();
    for answer in answers {
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
