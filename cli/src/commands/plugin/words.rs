//! Errors on their way from one process of ours to another.

use std::fmt;

use keyhaul_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// An error as it is shown.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Words {
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Words {
    /// The error itself, as far as it was told.
    pub fn error(&self) -> Error {
        let kind = ErrorKind::from_name(&self.kind).unwrap_or(ErrorKind::Internal);
        let mut error = Error::new(kind, self.message.clone());
        if let Some(place) = &self.place {
            error = error.with_place(place);
        }
        if let Some(because) = &self.because {
            error = error.with_source(Cause(because.clone()));
        }
        if let Some(advice) = &self.advice {
            error = error.with_advice(advice.clone());
        }
        error
    }
}

impl From<&Error> for Words {
    fn from(error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self {
            kind: error.kind().name().to_owned(),
            message: error.message().to_owned(),
            place: error.context().place.clone(),
            because: (!causes.is_empty()).then(|| causes.join(": ")),
            advice: error.advice().map(str::to_owned),
        }
    }
}

/// What was beneath an error, in words.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was_told() {
        for kind in ErrorKind::ALL.iter().copied() {
            let told = Error::new(kind, "rule")
                .with_place("here:1")
                .with_advice("mend it")
                .with_source(Cause("beneath".to_owned()));
            let text = serde_json::to_string(&Words::from(&told)).expect("JSON");
            let words: Words = serde_json::from_str(&text).expect("words");
            let came = words.error();
            assert_eq!(came.kind(), kind);
            assert_eq!(format!("{came:?}"), format!("{told:?}"));
            assert_eq!(came.advice(), told.advice());
        }
    }
}
