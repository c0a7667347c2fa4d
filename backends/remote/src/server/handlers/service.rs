//! Who asks, and what the service can do for them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use keyhaul_core::{Capabilities, Capability, Result};

use super::super::call::{Call, json};
use super::Query;
use crate::protocol::{Role, ServiceAnswer, limit};

/// For how long a store's word on what it can do is believed.
const KNOWN: Duration = Duration::from_secs(30);

/// Who asks, and what the service can do for them.
pub(super) async fn service(call: &Call, _: Query) -> Result<Vec<u8>> {
    let capabilities = capabilities(call).await?;
    let identity = &call.identity;
    let scopes = match identity.role {
        Role::Node => Vec::new(),
        _ => identity
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect(),
    };
    json(&ServiceAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: identity.name.to_string(),
        uri: identity.uri.to_string(),
        role: identity.role,
        scopes,
        can: can(identity.role, capabilities.can).names(),
        max_value: capabilities.max_value.min(limit::VALUE),
        max_batch: limit::BATCH,
        key: call.shared().recipient.public().to_owned(),
    })
}

/// The interface's description.
pub(super) fn openapi(_: Query) -> Result<Vec<u8>> {
    Ok(crate::protocol::OPENAPI.as_bytes().to_vec())
}

/// What the role can do of what the store can.
fn can(role: Role, store: Capability) -> Capability {
    let words = Capability::LABELS | Capability::EXPIRY | Capability::FIELDS;
    let modes =
        Capability::WRITE | Capability::CREATE | Capability::UPDATE | Capability::IDEMPOTENT;
    match role {
        Role::Node => store & (Capability::READ | Capability::VERSIONS | words),
        Role::Operator => store & (modes | words),
        Role::Manager => {
            let names = Capability::DELETE | Capability::LIST | Capability::GENERATE;
            let can = store & (names | modes | words);
            if can.contains(Capability::GENERATE) {
                // Wherever the value is made behind us, it is not made where the manager is.
                can | Capability::GENERATES_REMOTELY
            } else {
                can
            }
        }
    }
}

/// What the store can do, as it said within the last half minute.
pub(super) async fn capabilities(call: &Call) -> Result<Capabilities> {
    let shared = call.shared();
    let kept = *shared
        .capabilities
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((since, capabilities)) = kept
        && since.elapsed() < KNOWN
    {
        return Ok(capabilities);
    }
    let capabilities = call.ask(shared.store.capabilities()).await?;
    let mut kept = shared
        .capabilities
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *kept = Some((Instant::now(), capabilities));
    Ok(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_can_both_read_and_write() {
        let all = Capability::all();
        for role in [Role::Manager, Role::Node, Role::Operator] {
            let can = can(role, all);
            assert_eq!(can.contains(Capability::READ), role == Role::Node);
            assert_eq!(can.contains(Capability::DELETE), role == Role::Manager);
            assert_eq!(can.contains(Capability::WRITE), role != Role::Node);
        }
        assert_eq!(can(Role::Manager, Capability::READ), Capability::empty());
    }
}
