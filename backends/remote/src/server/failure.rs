//! What the far end is told of a failure, and what only the audit is told.

use keyhaul_core::{Error, ErrorKind};

/// That a certificate's holder may not do that: the same words whatever there is, and whatever the
/// reason.
pub(super) fn refused() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "this certificate's holder may not do that",
    )
    .with_advice(
        "a manager grants scopes to nodes; the service's audit has the reason under the request's id",
    )
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

/// A failure for the audit: the message and all that is underneath.
pub(super) fn reason(error: &Error) -> String {
    // `Debug` walks the sources, and holds no byte of a value: no error does.
    format!("{error:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
