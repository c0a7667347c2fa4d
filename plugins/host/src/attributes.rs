//! What is known of a secret, as pairs of texts.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Lease, Metadata, PutOptions, Result, Version};

/// How the name of a pair begins that is a label.
const LABEL: &str = "label:";

/// What was said of a secret.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// What is known of it.
    pub(crate) metadata: Metadata,
    /// Until when a deleted one can be brought back; none where nothing was said of it.
    pub(crate) recoverable: Option<Option<SystemTime>>,
}

/// Reads a plugin's pairs. Names that are not known are passed over.
///
/// # Errors
/// `Internal` where a known name's text is not what it should be.
pub(crate) fn read<T: AsRef<str>>(pairs: &[(T, T)]) -> Result<Attributes> {
    let mut read = Attributes::default();
    let mut lease = (None, Duration::ZERO, false);
    for (name, text) in pairs {
        let (name, text) = (name.as_ref(), text.as_ref());
        let metadata = &mut read.metadata;
        match name {
            "version" => {
                metadata.version = Some(Version::new(text).map_err(|_| wrong(name))?);
            }
            "created" => metadata.created = Some(time(name, text)?),
            "expires" => metadata.expires = Some(time(name, text)?),
            "lease-id" => lease.0 = Some(text),
            "lease-duration" => {
                lease.1 = Duration::from_millis(text.parse().map_err(|_| wrong(name))?);
            }
            "lease-renewable" => lease.2 = text.parse().map_err(|_| wrong(name))?,
            "recoverable-until" if text.is_empty() => read.recoverable = Some(None),
            "recoverable-until" => read.recoverable = Some(Some(time(name, text)?)),
            _ => {
                if let Some(label) = name.strip_prefix(LABEL) {
                    metadata.labels.insert(label.to_owned(), text.to_owned());
                }
            }
        }
    }
    let (id, duration, renewable) = lease;
    read.metadata.lease = id.map(|id| Lease::new(id, duration, renewable));
    Ok(read)
}

/// What a write says of the secret, as pairs.
///
/// # Errors
/// `InvalidReference` for a time that no calendar has.
pub(crate) fn written(options: &PutOptions) -> Result<Vec<(String, String)>> {
    let labels = options.labels.iter();
    let mut pairs: Vec<(String, String)> = labels
        .map(|(name, text)| (format!("{LABEL}{name}"), text.clone()))
        .collect();
    if let Some(expires) = options.expires {
        let time = Timestamp::try_from(expires).map_err(|error| {
            let rule = "the time at which the secret shall expire is out of range";
            Error::new(ErrorKind::InvalidReference, rule).with_source(error)
        })?;
        pairs.push(("expires".into(), time.to_string()));
    }
    Ok(pairs)
}

fn time(name: &str, text: &str) -> Result<SystemTime> {
    let time: Timestamp = text.parse().map_err(|_| wrong(name))?;
    Ok(time.into())
}

fn wrong(name: &str) -> Error {
    let rule = format!("the plugin gave a `{name}` that is none");
    Error::new(ErrorKind::Internal, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_read_and_others_passed_over() {
        let read = read(&[
            ("version", "7"),
            ("created", "1970-01-01T00:00:01Z"),
            ("label:owner", "ops"),
            ("lease-id", "x/1"),
            ("lease-duration", "1500"),
            ("lease-renewable", "true"),
            ("colour", "green"),
            ("recoverable-until", ""),
        ])
        .expect("read");
        let metadata = read.metadata;
        assert_eq!(metadata.version.as_ref().map(Version::as_str), Some("7"));
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(metadata.created, Some(second));
        assert_eq!(metadata.labels["owner"], "ops");
        assert_eq!(metadata.labels.len(), 1);
        let lease = Lease::new("x/1", Duration::from_millis(1500), true);
        assert_eq!(metadata.lease, Some(lease));
        assert_eq!(read.recoverable, Some(None));
    }

    #[test]
    fn what_is_no_time_version_or_number_is_refused() {
        for pair in [
            ("version", ""),
            ("created", "yesterday"),
            ("expires", "1"),
            ("lease-duration", "-1"),
            ("lease-renewable", "1"),
        ] {
            let error = read(&[pair]).expect_err(pair.0);
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.message().contains(pair.0));
        }
    }
}
