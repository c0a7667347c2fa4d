//! What a node can be called: one rule for certificates, requests and the command line.

use keyhaul_core::{Error, ErrorKind, Reference, Result};

/// The rule in words.
pub(crate) const NODE_NAME: &str =
    "1 to 123 of [A-Za-z0-9._-], does not start with `-`, and is not `.` or `..`";

/// Whether a node can be called so: its own scope, `@host.NAME`, must be one.
pub(crate) fn is_node_name(name: &str) -> bool {
    let segment = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.starts_with('-')
        && !matches!(name, "" | "." | "..")
        && name.chars().all(segment)
        && Reference::parse(&format!("@host.{name}/x")).is_ok()
}

/// That a node can be called so: no other could ever ask.
///
/// # Errors
/// `InvalidReference` with the rule.
pub fn check_node_name(name: &str) -> Result<()> {
    if is_node_name(name) {
        return Ok(());
    }
    let rule = format!("a node's name is {NODE_NAME}");
    Err(Error::new(ErrorKind::InvalidReference, rule))
}
