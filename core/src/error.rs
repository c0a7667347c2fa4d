//! The one error type, and the table of its kinds.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What every fallible operation of keyhaul returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Declares the kinds once: the enum, its name, and its status in each of the three places where
/// an error leaves the process.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $words:literal, $exit:literal, $http:literal, $abi:literal;)*) => {
        /// What went wrong, as far as a caller can act on it. Each kind's comment says how.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// Every kind, in alphabetical order.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The kind's name, as in JSON output, the audit log and the protocol.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorKind::$kind => stringify!($kind),)* }
            }

            /// The kind in words, as errors begin.
            pub const fn words(self) -> &'static str {
                match self { $(ErrorKind::$kind => $words,)* }
            }

            /// The exit status of the command line.
            pub const fn exit_code(self) -> u8 {
                match self { $(ErrorKind::$kind => $exit,)* }
            }

            /// The HTTP status of the key service.
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorKind::$kind => $http,)* }
            }

            /// The status of the plugin ABI. 0 is success and never a kind.
            pub const fn abi_status(self) -> u32 {
                match self { $(ErrorKind::$kind => $abi,)* }
            }
        }
    };
}

kinds! {
    /// The secret is there already and the caller asked to create it. Read it, or choose another name.
    AlreadyExists, "already exists", 10, 409, 1;
    /// The version given is not the current one: somebody wrote in between. Read again and decide.
    Conflict, "conflict", 11, 412, 2;
    /// What is stored is damaged, foreign or not in the declared encoding. Restore it from a backup
    /// or mend the route; a retry gives the same.
    Corrupt, "corrupt", 12, 502, 3;
    /// A defect of keyhaul or of its environment. Report it.
    Internal, "internal error", 13, 500, 4;
    /// A policy, setting or credential source is wrong. Mend it at the place named.
    InvalidConfig, "invalid configuration", 14, 500, 5;
    /// The reference or its use is wrong. Mend it at the column named.
    InvalidReference, "invalid reference", 15, 400, 6;
    /// There is no such secret where the policy says it would be. Check the name and the route.
    NotFound, "not found", 16, 404, 7;
    /// The store or the system knows who asks, and says no. Ask for the right named in the message.
    PermissionDenied, "permission denied", 17, 403, 8;
    /// The store asks for fewer requests. Wait as long as it says.
    RateLimited, "rate limited", 18, 429, 9;
    /// The store has no room. Nothing was lost; make room.
    StorageFull, "storage full", 19, 507, 10;
    /// No answer within the time limit. A retry can help.
    Timeout, "timed out", 20, 504, 11;
    /// The value or the request is over a limit, which the message names.
    TooLarge, "too large", 21, 413, 12;
    /// The store does not know who asks: no credential, or one that is expired or wrong. Log in.
    Unauthenticated, "not authenticated", 22, 401, 13;
    /// The store cannot be reached or cannot serve now. A retry can help.
    Unavailable, "unavailable", 23, 503, 14;
    /// The store, or this keyhaul, cannot do that at all. Its capabilities say so beforehand.
    Unsupported, "unsupported", 24, 501, 15;
}

impl ErrorKind {
    /// Whether the same request can succeed later without anybody changing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Timeout | Self::Unavailable)
    }

    /// The kind of a name, for the far end of a protocol.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The kind that fits an I/O error best.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound | Io::NotADirectory => Self::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::PermissionDenied,
            Io::AlreadyExists => Self::AlreadyExists,
            Io::StorageFull | Io::QuotaExceeded => Self::StorageFull,
            Io::TimedOut => Self::Timeout,
            Io::InvalidFilename => Self::InvalidConfig,
            _ => Self::Unavailable,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What a store was asked to do when an error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Asking what a store can do.
    Capabilities,
    /// Deleting a secret.
    Delete,
    /// Generating a secret.
    Generate,
    /// Reading a secret.
    Get,
    /// Listing secrets.
    List,
    /// Opening a store from the policy.
    Open,
    /// Trying whether a store can be reached.
    Probe,
    /// Writing a secret.
    Put,
    /// Reading a secret's metadata.
    Stat,
}

impl Operation {
    /// The operation's name, as in the audit log and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::Delete => "delete",
            Self::Generate => "generate",
            Self::Get => "get",
            Self::List => "list",
            Self::Open => "open",
            Self::Probe => "probe",
            Self::Put => "put",
            Self::Stat => "stat",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure: its kind, what happened in words, where, and what to do about it.
///
/// `Display` prints kind, message and place on one line and leaves the source to reporters, which
/// walk [`source`](StdError::source), and the advice to whoever talks to a person. **No error ever holds a byte of
/// a secret**: messages are made of names, numbers and rules.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    context: Context,
    advice: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    refused: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Where an error arose. Each part is filled by whoever knows it, innermost first, and never
/// overwritten.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Context {
    /// The place in a file: `PATH:LINE:COLUMN`.
    pub place: Option<String>,
    /// What was being done.
    pub operation: Option<Operation>,
    /// What was asked for, in words, where it is none of a store's operations: `grant web01 to y`.
    pub task: Option<String>,
    /// The path in the store.
    pub path: Option<String>,
    /// The store's name.
    pub store: Option<String>,
    /// The route that chose the store: `PATH:LINE`.
    pub route: Option<String>,
    /// The reference that was asked for.
    pub reference: Option<String>,
}

impl Error {
    /// An error of `kind`, with a message that says what happened and names the rule.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: Context::default(),
            advice: None,
            retry_after: None,
            refused: false,
            source: None,
        }))
    }

    /// An I/O error on `subject`, with the kind that fits.
    pub fn io(subject: impl fmt::Display, error: std::io::Error) -> Self {
        Self::new(ErrorKind::of_io(&error), subject.to_string()).with_source(error)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What happened, without kind and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it happened.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// What to do next, as a sentence.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// How long the store asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the store was not asked at all, since it is known to be down: to ask it again at
    /// once is refused the same way, whatever the kind says. Another store may be asked.
    pub fn is_refused(&self) -> bool {
        self.0.refused
    }

    /// Adds what to do next. The innermost advice is the most exact, so a later one does not replace it.
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice.get_or_insert_with(|| advice.into());
        self
    }

    /// Adds the error underneath, which `Display` does not repeat.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds how long the store asks to be left alone.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Marks that the store was not asked at all.
    pub fn with_refusal(mut self) -> Self {
        self.0.refused = true;
        self
    }

    /// Adds the place in a file.
    pub fn with_place(mut self, place: impl fmt::Display) -> Self {
        self.0
            .context
            .place
            .get_or_insert_with(|| place.to_string());
        self
    }

    /// Adds what was being done.
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.context.operation.get_or_insert(operation);
        self
    }

    /// Adds what was asked for, where it is none of a store's operations.
    pub fn with_task(mut self, task: impl fmt::Display) -> Self {
        self.0.context.task.get_or_insert_with(|| task.to_string());
        self
    }

    /// Adds the path in the store.
    pub fn with_path(mut self, path: impl fmt::Display) -> Self {
        self.0.context.path.get_or_insert_with(|| path.to_string());
        self
    }

    /// Adds the store's name.
    pub fn with_store(mut self, store: impl fmt::Display) -> Self {
        self.0
            .context
            .store
            .get_or_insert_with(|| store.to_string());
        self
    }

    /// Adds the route that chose the store.
    pub fn with_route(mut self, route: impl fmt::Display) -> Self {
        self.0
            .context
            .route
            .get_or_insert_with(|| route.to_string());
        self
    }

    /// Adds the reference that was asked for.
    pub fn with_reference(mut self, reference: impl fmt::Display) -> Self {
        self.0
            .context
            .reference
            .get_or_insert_with(|| reference.to_string());
        self
    }

    /// The same failure for another caller that waited for the same answer. The source, which
    /// cannot be copied, stays with the original; its words are kept.
    pub fn duplicate(&self) -> Self {
        let inner = &self.0;
        Self(Box::new(Inner {
            kind: inner.kind,
            message: inner.message.clone(),
            context: inner.context.clone(),
            advice: inner.advice.clone(),
            retry_after: inner.retry_after,
            refused: inner.refused,
            source: inner
                .source
                .as_ref()
                .map(|source| chain(source.as_ref()).into()),
        }))
    }
}

/// An error and all its sources in one line.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        line = format!("{line}: {source}");
        next = source.source();
    }
    line
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            context,
            ..
        } = &*self.0;
        write!(f, "{kind}: {message}")?;
        if let Some(place) = &context.place {
            write!(f, " at {place}")?;
        }
        let parts = [
            ("", context.operation.map(Operation::name)),
            ("", context.task.as_deref()),
            ("path ", context.path.as_deref()),
            ("store ", context.store.as_deref()),
            ("route ", context.route.as_deref()),
            ("reference ", context.reference.as_deref()),
        ];
        let mut open = false;
        for (label, part) in parts {
            if let Some(part) = part {
                write!(f, "{}{label}{part}", if open { ", " } else { " (" })?;
                open = true;
            }
        }
        if open { f.write_str(")") } else { Ok(()) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut next = self.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_one_status_of_each_sort() {
        let all = ErrorKind::ALL;
        assert_eq!(all.len(), 15);
        assert_eq!(
            all.iter()
                .map(|k| k.exit_code())
                .collect::<HashSet<_>>()
                .len(),
            15
        );
        // Over HTTP the problem document names the kind: statuses may repeat.
        assert!(all.iter().all(|k| (400..600).contains(&k.http_status())));
        assert_eq!(
            all.iter()
                .map(|k| k.abi_status())
                .collect::<HashSet<_>>()
                .len(),
            15
        );
        assert!(
            all.iter()
                .all(|k| k.abi_status() != 0 && ErrorKind::from_name(k.name()) == Some(*k))
        );
        assert!(all.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        // 0 to 2 are the shell's and clap's, 125 and above are `run`'s and the signals'.
        assert!(all.iter().all(|k| (3..125).contains(&k.exit_code())));
    }

    #[test]
    fn display_names_kind_message_and_context_but_not_the_source() {
        let error = Error::new(ErrorKind::NotFound, "no such secret")
            .with_operation(Operation::Get)
            .with_store("site")
            .with_store("outer layers do not overwrite")
            .with_reference("secret:web01/root")
            .with_source(std::io::Error::other("underneath"));
        assert_eq!(
            error.to_string(),
            "not found: no such secret (get, store site, reference secret:web01/root)"
        );
        assert!(format!("{error:?}").ends_with(": underneath"));
        assert_eq!(format!("{:?}", error.duplicate()), format!("{error:?}"));
    }
}
