//! Metadata and the attributes of a write, as pairs of texts.

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Metadata, PutOptions, Result};

const LABEL: &str = "label:";

/// What is known of a secret, as the interface has it.
pub(crate) fn of_metadata(metadata: &Metadata) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut pair = |name: &str, value: String| pairs.push((name.to_owned(), value));
    if let Some(version) = &metadata.version {
        pair("version", version.to_string());
    }
    for (name, time) in [("created", metadata.created), ("expires", metadata.expires)] {
        // A time that no calendar has is not told.
        if let Some(time) = time.and_then(|time| Timestamp::try_from(time).ok()) {
            pair(name, time.to_string());
        }
    }
    for (name, text) in &metadata.labels {
        pair(&format!("{LABEL}{name}"), text.clone());
    }
    if let Some(lease) = &metadata.lease {
        pair("lease-id", lease.id.clone());
        pair("lease-duration", lease.duration.as_millis().to_string());
        pair("lease-renewable", lease.renewable.to_string());
    }
    pairs
}

/// Adds what a write says of the secret. Names that are not known are passed over.
///
/// # Errors
/// `Internal` for a time that is none.
pub(crate) fn into_put(mut options: PutOptions, pairs: &[(&str, &str)]) -> Result<PutOptions> {
    for (name, text) in pairs {
        if *name == "expires" {
            let time: Timestamp = text.parse().map_err(|_| {
                Error::new(ErrorKind::Internal, "the host gave a time that is none")
            })?;
            options.expires = Some(time.into());
        } else if let Some(label) = name.strip_prefix(LABEL) {
            options.labels.insert(label.to_owned(), (*text).to_owned());
        }
    }
    Ok(options)
}
