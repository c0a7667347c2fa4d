//! What the far end is told of a failure, and what only the audit is told.

use std::error::Error as _;

use keyhaul_core::{Error, ErrorKind};

use super::guard::Operation;
use crate::protocol::Role;

/// That a node may not read that: the same words whatever there is, and whatever the reason.
pub(super) fn refused() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "this certificate's holder may not do that",
    )
    .with_advice(
        "a manager grants scopes to nodes; the service's audit has the reason under the request's id",
    )
}

/// That it takes a certificate of another role. It says nothing of what there is: the role and the
/// operation decide, and everybody knows the table.
pub(super) fn wrong_role(operation: Operation, role: Role) -> Error {
    let mut able: Vec<&str> = operation.roles().iter().copied().map(of_role).collect();
    able.sort_unstable();
    let able = able.join(" or ");
    let message = format!(
        "{} certificate cannot {}: {able} can",
        of_role(role),
        operation.does()
    );
    Error::new(ErrorKind::PermissionDenied, message).with_advice(format!(
        "ask with {able} certificate: `--config` names a policy, and `client-cert` in it the certificate"
    ))
}

/// That a manager's or an operator's scopes end before that one.
pub(super) fn out_of_reach() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "this certificate's scopes do not reach that far",
    )
    .with_advice("`scopes` of its role in the service's configuration says which they are")
}

const fn of_role(role: Role) -> &'static str {
    match role {
        Role::Manager => "a manager's",
        Role::Node => "a node's",
        Role::Operator => "an operator's",
    }
}

/// That a request is not what it must be.
pub(super) fn invalid(rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidReference, rule)
}

/// That the service fails at something of its own.
pub(super) fn internal(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

/// What a store's failure is for the far end. What the store says of its own rights, its address or
/// its configuration is the service's trouble: it stays here, as the source, for the audit.
pub(super) fn of_store(error: Error) -> Error {
    use ErrorKind as Kind;
    const ADVICE: &str = "the service's audit has the reason under the request's id";
    let kind = error.kind();
    let mapped = match kind {
        Kind::AlreadyExists
        | Kind::Conflict
        | Kind::InvalidReference
        | Kind::NotFound
        | Kind::TooLarge
        | Kind::Unsupported => Error::new(kind, error.message().to_owned()),
        Kind::Corrupt => Error::new(
            kind,
            "what the service's store holds is damaged, or not in the declared encoding",
        ),
        Kind::RateLimited => Error::new(kind, "the service's store asks for fewer requests"),
        Kind::StorageFull => Error::new(kind, "the service's store has no room"),
        Kind::Timeout => Error::new(kind, "the service's store did not answer in time"),
        Kind::Unavailable => Error::new(kind, "the service's store cannot be reached"),
        _ => Error::new(Kind::Internal, "the service cannot use its store").with_advice(ADVICE),
    };
    let mapped = match error.retry_after() {
        Some(wait) => mapped.with_retry_after(wait),
        None => mapped,
    };
    mapped.with_source(error)
}

/// A failure for the audit: the message and all that is underneath. What only repeats what stands
/// above it, or says it with more, is there once.
pub(super) fn reason(error: &Error) -> String {
    // None of it holds a byte of a value: no error does.
    let mut parts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        match parts.last_mut() {
            Some(last) if words.starts_with(&*last) => *last = words,
            Some(last) if last.contains(&words) => {}
            _ => parts.push(words),
        }
        next = source.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_role_is_told_whose_certificate_it_takes() {
        let told = |operation, role| {
            let error = wrong_role(operation, role);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            // What helps a node that lacks a grant helps nobody here.
            assert!(!error.advice().unwrap_or_default().contains("grants scopes"));
            error.message().to_owned()
        };
        let cannot = "a manager's certificate cannot read values: a node's can";
        assert_eq!(told(Operation::Read, Role::Manager), cannot);
        let cannot = "a manager's certificate cannot read the audit: an operator's can";
        assert_eq!(told(Operation::Audit, Role::Manager), cannot);
        let cannot = "a node's certificate cannot set values: an operator's can";
        assert_eq!(told(Operation::Write, Role::Node), cannot);
        let cannot = "an operator's certificate cannot quarantine nodes: a manager's can";
        assert_eq!(told(Operation::Quarantine, Role::Operator), cannot);
    }

    #[test]
    fn a_reason_says_everything_once() {
        let store = Error::new(ErrorKind::AlreadyExists, "web01/root is there");
        let twice = of_store(store.duplicate());
        assert_eq!(reason(&twice), "already exists: web01/root is there");
        // What the source knows beyond its message stays.
        let placed = of_store(store.duplicate().with_place("served.toml:3:1"));
        let words = "already exists: web01/root is there at served.toml:3:1";
        assert_eq!(reason(&placed), words);
        // The control: what differs stands one after the other.
        let io = std::io::Error::other("the disk is gone");
        let store = Error::new(ErrorKind::Internal, "the file cannot be read").with_source(io);
        let expected = "internal error: the service cannot use its store: \
                        internal error: the file cannot be read: the disk is gone";
        assert_eq!(reason(&of_store(store)), expected);
    }

    #[test]
    fn what_a_store_says_of_itself_stays_with_the_audit() {
        for kind in ErrorKind::ALL {
            let error = Error::new(*kind, "words of https://store.example:8200")
                .with_advice("log in at https://store.example:8200");
            let mapped = of_store(error);
            let own = matches!(
                kind,
                ErrorKind::AlreadyExists
                    | ErrorKind::Conflict
                    | ErrorKind::InvalidReference
                    | ErrorKind::NotFound
                    | ErrorKind::TooLarge
                    | ErrorKind::Unsupported
            );
            assert_eq!(mapped.message().contains("store.example"), own, "{kind:?}");
            let advice = mapped.advice().unwrap_or_default();
            assert!(!advice.contains("store.example"), "{kind:?}");
            assert!(reason(&mapped).contains("store.example"), "{kind:?}");
            let trouble = matches!(
                kind,
                ErrorKind::InvalidConfig | ErrorKind::PermissionDenied | ErrorKind::Unauthenticated
            );
            let expected = if trouble { ErrorKind::Internal } else { *kind };
            assert_eq!(mapped.kind(), expected);
        }
    }
}
