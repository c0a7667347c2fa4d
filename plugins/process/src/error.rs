//! What goes wrong with a plugin, in keyhaul's words.

use std::borrow::Cow;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind};
use tokio::task::JoinError;

/// A plugin that does not keep to the protocol: it was killed.
pub(crate) fn broken(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the plugin broke the protocol: {}", what.into()),
    )
    .with_advice("tell its author; keyhaul killed it, and starts it anew for a later request")
}

/// A program that is no plugin, or one of another time.
pub(crate) fn no_plugin(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, what.into())
        .with_advice("name a program that speaks version 1 of keyhaul's plugin protocol")
}

/// What was started as a program and is none. It can happen to be executable, and then crashes.
pub(crate) fn library(path: &Path, why: Error) -> Error {
    let what = format!("{} is a shared library, and no program", path.display());
    Error::new(ErrorKind::InvalidConfig, what)
        .with_source(why)
        .with_advice("a library is loaded: its url begins with plugin://, not plugin+exec://")
}

/// A plugin that ended while it was needed.
pub(crate) fn ended(status: Option<ExitStatus>) -> Error {
    use std::os::unix::process::ExitStatusExt as _;
    let how = match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("the plugin exited with status {code}"),
            (_, Some(signal)) => format!("the plugin was killed by signal {signal}"),
            _ => "the plugin ended".to_owned(),
        },
        None => "the plugin closed its stdout and was killed".to_owned(),
    };
    Error::new(ErrorKind::Unavailable, how).with_advice(
        "what it wrote last to its stderr is in keyhaul's log, and all of it with `-v`",
    )
}

/// A plugin that said nothing for too long while it was asked.
pub(crate) fn stalled(after: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "the plugin said nothing for {} ms and was killed",
            after.as_millis()
        ),
    )
    .with_advice("where it needs longer for an answer, raise the store's `stall`")
}

/// A task of ours that did not end as tasks do.
pub(crate) fn lost(error: JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a task of the plugin's host was lost").with_source(error)
}

/// A caller that stopped waiting.
pub(crate) fn too_late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the plugin did not answer by the deadline",
    )
}
