//! Failures as they travel: problem details (RFC 9457) with the kind of the error.

use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, misleads};
use serde::{Deserialize, Serialize};

/// The media type of a failed answer.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Where the kinds are described, with the kind as the fragment: RFC 9457's `type`.
const TYPES: &str = "https://keyhaul.github.io/keyhaul/exit-codes.html#";
/// The longest text that is taken from the far end.
const MAX_TEXT: usize = 1000;

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI that stands for the kind, and leads to its description.
    #[serde(rename = "type")]
    pub uri: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// The kind's name, as [`ErrorKind::name`].
    pub kind: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// How long to wait before asking again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The request's id, under which the audit has the whole story.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Problem {
    /// An error's kind, message, advice and patience. Its source and place stay here: they speak
    /// of the server's insides.
    pub fn of(error: &Error, request: Option<&str>) -> Self {
        let kind = error.kind();
        Self {
            uri: format!("{TYPES}{}", kind.name()),
            title: kind.words().to_owned(),
            status: kind.http_status(),
            detail: error.message().to_owned(),
            kind: kind.name().to_owned(),
            advice: error.advice().map(str::to_owned),
            retry_after_ms: error
                .retry_after()
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            request: request.map(str::to_owned),
        }
    }

    /// The error that the far end had. A kind that this version does not know is `Internal`; texts
    /// are cut and cleaned, since a terminal may show them.
    pub fn error(self) -> Error {
        let kind = ErrorKind::from_name(&self.kind).unwrap_or(ErrorKind::Internal);
        let mut error = Error::new(kind, clean(&self.detail));
        if let Some(advice) = &self.advice {
            error = error.with_advice(clean(advice));
        }
        if let Some(wait) = self.retry_after_ms {
            error = error.with_retry_after(Duration::from_millis(wait));
        }
        error
    }
}

fn clean(text: &str) -> String {
    let shown = |c: char| if misleads(c) { ' ' } else { c };
    text.chars().take(MAX_TEXT).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_travels_with_message_advice_and_patience() {
        for kind in ErrorKind::ALL {
            let error = Error::new(*kind, "it went wrong")
                .with_advice("mend it")
                .with_retry_after(Duration::from_millis(1500));
            let problem = Problem::of(&error, Some("r-1"));
            assert_eq!(problem.status, kind.http_status());
            let text = serde_json::to_string(&problem).expect("JSON");
            let back: Problem = serde_json::from_str(&text).expect("the same");
            assert_eq!(back, problem);
            let back = back.error();
            assert_eq!(back.kind(), *kind);
            assert_eq!(back.message(), "it went wrong");
            assert_eq!(back.advice(), Some("mend it"));
            assert_eq!(back.retry_after(), Some(Duration::from_millis(1500)));
        }
    }

    #[test]
    fn what_the_far_end_says_reaches_no_terminal_as_it_is() {
        let mut problem = Problem::of(&Error::new(ErrorKind::NotFound, "x"), None);
        problem.detail = format!("\u{1b}[2J\n\u{202e}{}", "a".repeat(5000));
        problem.kind = "Newer".into();
        let error = problem.error();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(!error.message().contains(misleads));
        assert_eq!(error.message().chars().count(), 1000);
    }
}
