//! The names in requests, held to the rules of references.

use jiff::Timestamp;
use keyhaul_core::policy::Pattern;
use keyhaul_core::{Error, ErrorKind, Reference, Result, shown};

use super::time::timestamp;

/// The most patterns of names in a grant.
const PATTERNS: usize = 64;
/// The longest of them, in bytes, and in segments: each is held against what is read.
const PATTERN: usize = 512;
const SEGMENTS: usize = 8;

/// A scope that can be granted.
pub(super) fn scope(scope: &str) -> Result<()> {
    if scope == "@host" {
        let rule = "`@host` means whoever asks; a node's own scope is `@host.NODE`";
        return Err(invalid(rule.into()));
    }
    segment(scope).map_err(|rule| invalid(format!("the scope is none: {rule}")))
}

/// Patterns in `scope`, in order and each once, so that the same are equal.
pub(super) fn patterns(scope: &str, names: &[String]) -> Result<Vec<String>> {
    if names.len() > PATTERNS {
        let rule = format!("a grant has at most {PATTERNS} patterns of names");
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    for name in names {
        if name.len() > PATTERN || name.split('/').count() > SEGMENTS {
            let rule =
                format!("a pattern of names has at most {PATTERN} bytes and {SEGMENTS} segments");
            return Err(Error::new(ErrorKind::TooLarge, rule));
        }
        Pattern::parse(&format!("{scope}/{name}"))
            .map_err(|rule| invalid(format!("the pattern `{}` {rule}", shown(name))))?;
    }
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    Ok(names)
}

/// A time at which something ends, as the file can hold it.
pub(super) fn end(expires: Option<Timestamp>, now: i64) -> Result<Option<i64>> {
    let Some(expires) = expires else {
        return Ok(None);
    };
    let micros = expires.as_microsecond();
    if micros <= now {
        let now = timestamp(now);
        let rule = format!("the grant would have expired already: it is {now:.0} at the service");
        return Err(invalid(rule));
    }
    Ok(Some(micros))
}

fn segment(text: &str) -> Result<(), String> {
    match Reference::parse(&format!("{text}/x")) {
        Ok(reference) if reference.scope() == text && reference.name() == "x" => Ok(()),
        Ok(_) => Err(format!("`{}` is more than one segment", shown(text))),
        Err(error) => Err(error.message().to_owned()),
    }
}

pub(super) fn invalid(rule: String) -> Error {
    Error::new(ErrorKind::InvalidReference, rule)
}
