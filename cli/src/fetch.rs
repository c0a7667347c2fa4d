//! From references to values that a consumer can use, or every reason why not.

use std::sync::Arc;

use keyhaul_core::{Error, Reference, Secret};

use crate::failure::Outcome;
use crate::session::Session;

/// Every value, in order. Where one is missing there is none: half of a VM's secrets start no VM.
pub fn all(session: &Session, references: &[Reference]) -> Outcome<Vec<Arc<Secret>>> {
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
