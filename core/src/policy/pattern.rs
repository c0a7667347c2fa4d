//! What a route matches.

use std::fmt;

use crate::Reference;

/// A pattern over a reference's scope and name.
///
/// Segments match segments: `*` stands for any run of characters within one, `**`, alone in its
/// segment, for any number of segments, none included.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// The text, split once: a pattern is matched more often than it is read.
    segments: Vec<Box<str>>,
}

impl Pattern {
    /// Reads a pattern; the error is the rule it breaks, as words that follow the pattern's name.
    ///
    /// # Errors
    /// The rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        for segment in text.split('/') {
            if segment.is_empty() {
                return Err("has an empty segment".into());
            }
            if segment != "**" && segment.contains("**") {
                return Err(
                    "has `**` beside other characters; it stands alone in its segment".into(),
                );
            }
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-*@~".contains(c);
            if let Some(found) = segment.chars().find(|c| !legal(*c)) {
                return Err(format!("has {found:?}, which no reference holds"));
            }
        }
        Ok(Self {
            text: text.into(),
            segments: text.split('/').map(Box::from).collect(),
        })
    }

    /// Whether `reference` is served. Version and field play no part.
    pub fn matches(&self, reference: &Reference) -> bool {
        let subject: Vec<&str> = reference.subject().split('/').collect();
        covers(&self.segments, &subject)
    }

    /// Whether every reference that `other` matches is matched by this pattern too. May say no where it is
    /// so, never yes where it is not.
    pub(super) fn shadows(&self, other: &Pattern) -> bool {
        let mut theirs: Vec<&str> = other.text.split('/').collect();
        // A reference has two segments at least, so `**` alone says no more than `*/*/**`.
        while theirs.iter().filter(|segment| **segment != "**").count() < 2 {
            match theirs.iter().position(|segment| *segment == "**") {
                Some(at) => theirs.insert(at, "*"),
                None => break,
            }
        }
        covers(&self.segments, &theirs)
    }

    /// Whether it matches references of this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        let first = self.text.split('/').next().unwrap_or_default();
        first == "**" || covers(&[first], &[scope])
    }

    /// The reference, where the pattern names exactly one.
    pub fn pinned_reference(&self) -> Option<Reference> {
        Reference::parse(&self.text).ok()
    }

    /// The scope, where the pattern names exactly one.
    pub fn pinned_scope(&self) -> Option<&str> {
        self.text
            .split('/')
            .next()
            .filter(|scope| !scope.contains('*'))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `pattern` matches `subject`, by segments. A subject may itself hold wildcards: they are
/// covered by wildcards at least as wide.
fn covers<S: AsRef<str>>(pattern: &[S], subject: &[&str]) -> bool {
    glob(
        pattern,
        subject,
        |segment| segment.as_ref() == "**",
        |ours, theirs| {
            *theirs != "**"
                && glob(
                    ours.as_ref().as_bytes(),
                    theirs.as_bytes(),
                    |byte| *byte == b'*',
                    |a, b| a == b,
                )
        },
    )
}

/// Matches with wildcards, going back to the last one only: enough, since an earlier one could not
/// reach further. At most the product of the lengths in steps, whatever the pattern.
fn glob<P, T>(
    pattern: &[P],
    subject: &[T],
    is_wild: impl Fn(&P) -> bool,
    same: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut back = None;
    while seen < subject.len() {
        match pattern.get(at) {
            Some(wild) if is_wild(wild) => {
                back = Some((at, seen));
                at += 1;
            }
            Some(plain) if same(plain, &subject[seen]) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((wild, from)) = back else {
                    return false;
                };
                back = Some((wild, from + 1));
                at = wild + 1;
                seen = from + 1;
            }
        }
    }
    pattern[at..].iter().all(is_wild)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    #[test]
    fn wildcards_match_as_documented() {
        for (text, reference, expected) in [
            ("**", "web01/root", true),
            ("prod-*/**", "prod-1/a/b", true),
            ("prod-*/**", "test-1/a", false),
            ("*/root", "web01/root", true),
            ("*/root", "web01/luks/root", false),
            ("**/root", "web01/luks/root", true),
            ("web01/**/root", "web01/root", true),
            ("web01/r*t", "web01/root", true),
            ("web01/r*t", "web01/roots", false),
            ("@site/**", "@site/tls", true),
            ("web01/root", "web01/root?version=1#f", true),
            ("web01/*", "web01/root~next", true),
            ("web01", "web01/root", false),
        ] {
            let reference = Reference::parse(reference).expect("valid");
            assert_eq!(
                pattern(text).matches(&reference),
                expected,
                "{text} {reference}"
            );
        }
    }

    #[test]
    fn shadowing_is_seen_and_never_claimed_wrongly() {
        for (earlier, later, expected) in [
            ("**", "web01/root", true),
            ("**", "prod-*/**", true),
            ("*/**", "**", true),
            ("prod-*/**", "prod-a*/x", true),
            ("prod-*/**", "**", false),
            ("prod-a*/**", "prod-*/**", false),
            ("*/root", "**/root", false),
            ("**/root", "*/root", true),
            ("*/*", "**", false),
            ("a*/**", "*a/**", false),
        ] {
            assert_eq!(
                pattern(earlier).shadows(&pattern(later)),
                expected,
                "{earlier} {later}"
            );
        }
    }

    #[test]
    fn malformed_patterns_say_which_rule() {
        for (text, rule) in [
            ("", "empty"),
            ("a//b", "empty"),
            ("a**/b", "alone"),
            ("a b/*", "' '"),
        ] {
            assert!(
                Pattern::parse(text).expect_err(text).contains(rule),
                "{text}"
            );
        }
    }
}
