//! Tokens, and what is known of their lives.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, SecretBytes};

/// How long a token of unknown lease is used before it is looked up. A process that fetches its
/// secrets and ends is done by then, and the question would only cost it.
const SETTLE: Duration = Duration::from_secs(5);

/// A token, shared by the requests that use it.
#[derive(Clone)]
pub(crate) struct Token(Arc<Inner>);

struct Inner {
    value: SecretBytes,
    generation: u64,
}

impl Token {
    /// The `generation`th token of an identity.
    pub(super) fn new(value: SecretBytes, generation: u64) -> Self {
        Self(Arc::new(Inner { value, generation }))
    }

    /// The token itself, for a request's header.
    pub(crate) fn value(&self) -> &SecretBytes {
        &self.0.value
    }

    /// Its number among the tokens of its identity.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, …)", self.0.generation)
    }
}

/// Where a token came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An environment variable.
    Environment(String),
    /// The file that the servers' own command line writes.
    File(PathBuf),
    /// The kernel's keyring: an earlier `keyhaul login`.
    Kept,
    /// A login of this process.
    Login,
    /// The source that the policy names.
    Source(CredentialSource),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "the token in ${name}"),
            Self::File(path) => write!(f, "the token in {}", path.display()),
            Self::Kept => f.write_str("the kept login"),
            Self::Login => f.write_str("the login's token"),
            Self::Source(source) => write!(f, "the token in {source}"),
        }
    }
}

/// How long a token lives and what may be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// What is left of it. None for a token that does not end.
    pub(super) left: Option<Duration>,
    /// What the lease was when it began, or was renewed.
    pub(super) lease: Duration,
    /// Whether the lease can be renewed.
    pub(super) renewable: bool,
    /// Whether each request uses it up a little: then nothing is asked that need not be.
    pub(super) counted: bool,
}

/// The token in use.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) origin: Origin,
    /// When it was obtained.
    pub(super) since: Instant,
    /// None while nobody has told.
    pub(super) life: Option<Life>,
    expires: Option<Instant>,
    /// When something is to be done for it: renewal, a new login, or finding out.
    due: Option<Instant>,
}

impl Held {
    /// A token of unknown life.
    pub(super) fn unknown(token: Token, origin: Origin) -> Self {
        let since = Instant::now();
        Self {
            token,
            origin,
            since,
            life: None,
            expires: None,
            due: Some(since + SETTLE),
        }
    }

    /// A token with the life that a server told when it was asked, at `asked`.
    pub(super) fn known(token: Token, origin: Origin, life: Life, asked: Instant) -> Self {
        let mut held = Self::unknown(token, origin);
        held.since = asked;
        held.learn(life, asked);
        held
    }

    /// Takes note of the life that a server told when it was asked, at `asked`.
    pub(super) fn learn(&mut self, life: Life, asked: Instant) {
        self.life = Some(life);
        self.expires = life.left.and_then(|left| asked.checked_add(left));
        // Two thirds of the lease, from its beginning.
        self.due = life
            .left
            .and_then(|left| asked.checked_add(left.saturating_sub(life.lease / 3)));
    }

    /// Whether it is not known to be over.
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether it is time to do something for it.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Leaves it alone for a quarter of what is left of it: what was tried came to nothing.
    pub(super) fn postpone(&mut self, now: Instant) {
        let left = self.expires.map(|end| end.saturating_duration_since(now));
        let wait = left.map_or(SETTLE * 12, |left| left / 4);
        self.due = Some(now + wait.max(Duration::from_millis(500)));
    }

    /// Leaves it alone until its end: nothing can be done for it.
    pub(super) fn leave(&mut self) {
        self.due = None;
    }
}

/// The error for a token that is dead, with what is known of the reason.
pub(super) fn dead(held: Option<&Held>) -> Error {
    let (what, life) = match held {
        Some(held) => (held.origin.to_string(), held.life),
        None => ("the token".to_owned(), None),
    };
    let reason = match (held, life) {
        (None, _) => "has expired",
        (_, Some(life)) if life.counted => "is dead: used up, expired or revoked",
        (_, Some(_)) => "is dead although its lease is not over: it was revoked",
        (_, None) => "is dead: expired, revoked or used up",
    };
    let advice = match held.map(|held| &held.origin) {
        Some(Origin::Environment(name)) => {
            format!("put a living token into ${name}, or unset it and log in: keyhaul login STORE")
        }
        Some(Origin::Source(source)) => format!("put a living token into {source}"),
        _ => "log in: keyhaul login STORE".to_owned(),
    };
    Error::new(ErrorKind::Unauthenticated, format!("{what} {reason}")).with_advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(life: Life, asked: Instant) -> Held {
        let token = Token::new(SecretBytes::copy_from(b"hvs.hunter2"), 7);
        Held::known(token, Origin::Login, life, asked)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_due_at_two_thirds_of_its_lease_and_over_at_its_end() {
        let asked = Instant::now();
        let life = Life {
            left: Some(HOUR),
            lease: HOUR,
            renewable: true,
            counted: false,
        };
        let fresh = held(life, asked);
        assert!(!fresh.is_due(asked + Duration::from_secs(2399)));
        assert!(fresh.is_due(asked + Duration::from_secs(2400)));
        assert!(fresh.is_valid(asked + Duration::from_secs(3599)));
        assert!(!fresh.is_valid(asked + HOUR));
        // Half of it is over already: a sixth is left until it is due.
        let left = Some(HOUR / 2);
        let half = held(Life { left, ..life }, asked);
        assert!(!half.is_due(asked + Duration::from_secs(599)));
        assert!(half.is_due(asked + Duration::from_secs(600)));
        let endless = held(Life { left: None, ..life }, asked);
        assert!(!endless.is_due(asked + HOUR * 1000) && endless.is_valid(asked + HOUR * 1000));
    }

    #[test]
    fn debug_shows_no_token() {
        let held = Held::unknown(
            Token::new(SecretBytes::copy_from(b"hvs.hunter2"), 1),
            Origin::Kept,
        );
        assert!(!format!("{held:?}").contains("hunter2"));
    }
}
