//! What is known of a secret, as it travels.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Lease, Metadata, Result, Version};
use serde::{Deserialize, Serialize};

bodies! {
    /// What is known of one secret.
    answer Stat {
        /// It.
        metadata: MetadataBody,
    }
    /// Metadata as it travels.
    answer MetadataBody {
        /// The version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// When it was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        created: Option<Timestamp>,
        /// When the store stops giving it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// The lease of a value made for this reader.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseBody>,
    }
    /// A lease as it travels.
    answer LeaseBody {
        /// Its name at the store.
        id: String,
        /// How long it lasts, in seconds.
        seconds: u64,
        /// Whether it can be renewed.
        renewable: bool,
    }
}

impl MetadataBody {
    /// The contract's metadata.
    ///
    /// # Errors
    /// `Corrupt` where the version is none.
    pub fn metadata(self) -> Result<Metadata> {
        let version = self.version.map(Version::new).transpose();
        let version = version.map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "the answer holds a version that is none",
            )
        })?;
        let mut metadata = Metadata::new(version);
        metadata.created = self.created.map(SystemTime::from);
        metadata.expires = self.expires.map(SystemTime::from);
        metadata.labels = self.labels;
        metadata.lease = self.lease.map(|lease| {
            Lease::new(
                lease.id,
                Duration::from_secs(lease.seconds),
                lease.renewable,
            )
        });
        Ok(metadata)
    }
}

impl From<&Metadata> for MetadataBody {
    fn from(metadata: &Metadata) -> Self {
        let time = |time: Option<SystemTime>| time.and_then(|time| Timestamp::try_from(time).ok());
        Self {
            version: metadata.version.as_ref().map(|v| v.as_str().to_owned()),
            created: time(metadata.created),
            expires: time(metadata.expires),
            labels: metadata.labels.clone(),
            lease: metadata.lease.as_ref().map(|lease| LeaseBody {
                id: lease.id.clone(),
                seconds: lease.duration.as_secs(),
                renewable: lease.renewable,
            }),
        }
    }
}
