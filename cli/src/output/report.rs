//! Failures in words.

use std::error::Error as _;
use std::fmt::Write as _;

use keyhaul_core::Error;

use super::{Style, words};

/// Reports every failure on standard error, each with its context and what to do next.
pub fn failures(errors: &[Error]) {
    let style = Style::of_stderr();
    for error in errors {
        words(described(error, style));
    }
}

/// Reports something that works but should not stay so.
pub fn warning(text: &str, advice: Option<&str>) {
    let style = Style::of_stderr();
    let mut lines = format!("{} {text}", style.warning("warning:"));
    if let Some(advice) = advice {
        let _ = write!(lines, "\n  {} {advice}", style.label("next:"));
    }
    words(lines);
}

fn described(error: &Error, style: Style) -> String {
    format!("{} {}", style.error("error:"), in_words(error, style, 2))
}

/// Kind and message, then a line for each thing that is known about it, so far to the right.
pub fn in_words(error: &Error, style: Style, indent: usize) -> String {
    let context = error.context();
    let mut text = format!("{}: {}", error.kind(), error.message());
    let mut detail = |label: &str, value: Option<&str>| {
        if let Some(value) = value {
            let label = style.label(&format!("{label}:"));
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{:indent$}{label} {value}", "");
        }
    };
    detail("at", context.place.as_deref());
    detail("reference", context.reference.as_deref());
    detail("route", context.route.as_deref());
    detail("store", context.store.as_deref());
    detail("path", context.path.as_deref());
    let operation = context.operation.map(|operation| operation.name());
    detail("while", operation.or(context.task.as_deref()));
    let mut source = error.source();
    while let Some(cause) = source {
        detail("because", Some(&cause.to_string()));
        source = cause.source();
    }
    if let Some(wait) = error.retry_after() {
        detail(
            "wait",
            Some(&format!("{} s, as the store asks", wait.as_secs().max(1))),
        );
    }
    detail("next", error.advice());
    text
}
