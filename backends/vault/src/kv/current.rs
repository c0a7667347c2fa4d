//! What the server says of a secret and its versions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use keyhaul_core::{Error, ErrorKind, Metadata, Request, Result, SecretPath, Version};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::paths::Mount;
use super::{Fields, Kv, unread};
use crate::http::{Answer, Call};

/// An answer of `data/PATH`.
#[derive(Deserialize)]
pub(super) struct Read<'a> {
    #[serde(borrow)]
    pub(super) data: Option<ReadData<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ReadData<'a> {
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    pub(super) metadata: Option<OneVersion>,
}

/// An answer to a write.
#[derive(Deserialize)]
pub(super) struct Written {
    pub(super) data: OneVersion,
}

/// An answer of `metadata/PATH`.
#[derive(Deserialize)]
pub(super) struct About {
    pub(super) data: AllVersions,
}

/// What is known of one version.
#[derive(Deserialize)]
pub(super) struct OneVersion {
    pub(super) version: u64,
    #[serde(flatten)]
    pub(super) times: Times,
    pub(super) custom_metadata: Option<BTreeMap<String, String>>,
}

/// What is known of a secret.
#[derive(Deserialize)]
pub(super) struct AllVersions {
    pub(super) current_version: u64,
    pub(super) custom_metadata: Option<BTreeMap<String, String>>,
    pub(super) versions: BTreeMap<String, Times>,
}

/// A version's times.
#[derive(Deserialize)]
pub(super) struct Times {
    created_time: String,
    deletion_time: String,
    destroyed: bool,
}

impl Times {
    /// Why the version is gone, in words, where it is.
    pub(super) fn gone(&self) -> Option<&'static str> {
        if self.destroyed {
            return Some("destroyed");
        }
        let deleted = time(&self.deletion_time)?;
        (deleted <= SystemTime::now()).then_some("deleted")
    }

    /// The error for a version that is gone.
    pub(super) fn refusal(&self, version: u64) -> Option<Error> {
        let word = self.gone()?;
        let error = Error::new(
            ErrorKind::NotFound,
            format!("version {version} of the secret was {word}"),
        );
        Some(match word {
            "deleted" => {
                error.with_advice("bring it back (`bao kv undelete`), or write a new version")
            }
            _ => error.with_advice("it is gone for good; write a new version"),
        })
    }

    fn metadata(
        &self,
        version: u64,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Result<Metadata> {
        let mut metadata = Metadata::new(Some(Version::new(version.to_string())?));
        metadata.created = time(&self.created_time);
        // Of a version that is there, it lies ahead: the engine's `delete_version_after`.
        metadata.expires = time(&self.deletion_time);
        metadata.labels = labels.cloned().unwrap_or_default();
        Ok(metadata)
    }
}

impl OneVersion {
    pub(super) fn metadata(&self) -> Result<Metadata> {
        self.times
            .metadata(self.version, self.custom_metadata.as_ref())
    }
}

impl AllVersions {
    /// What is known of a version, or of the current one.
    ///
    /// # Errors
    /// `NotFound` where it is gone or never was.
    pub(super) fn metadata(&self, version: Option<u64>) -> Result<Metadata> {
        let number = version.unwrap_or(self.current_version);
        let times = self.versions.get(&number.to_string());
        let times = times.ok_or_else(|| match version {
            Some(_) => super::no_version(),
            None => super::no_secret(),
        })?;
        match times.refusal(number) {
            Some(error) => Err(error),
            None => times.metadata(number, self.custom_metadata.as_ref()),
        }
    }

    /// The numbers of the versions that are not gone.
    pub(super) fn live(&self) -> Vec<u64> {
        let live = self
            .versions
            .iter()
            .filter(|(_, times)| times.gone().is_none());
        live.filter_map(|(number, _)| number.parse().ok()).collect()
    }

    /// Whether the current version is there.
    pub(super) fn is_live(&self) -> bool {
        self.versions
            .get(&self.current_version.to_string())
            .is_some_and(|times| times.gone().is_none())
    }
}

/// What a write finds.
pub(super) enum Current {
    /// Nothing, and nothing was ever there.
    Absent,
    /// A secret whose current version is gone, or holds nothing: the number to compare with.
    Gone(u64),
    /// A secret.
    There(There),
}

/// A secret as it is now.
pub(super) struct There {
    answer: Answer,
    pub(super) version: u64,
}

impl There {
    /// Its fields.
    ///
    /// # Errors
    /// As [`Answer::garbage`].
    pub(super) fn fields(&self) -> Result<Fields<'_>> {
        let read: Read<'_> = self.answer.json()?;
        match read.data.and_then(|data| data.data) {
            Some(map) => Fields::parse(map.get().as_bytes()),
            None => Err(self.answer.garbage()),
        }
    }
}

impl Kv {
    /// What is at `path` now.
    pub(super) async fn current(
        &self,
        mount: &Mount,
        path: &SecretPath,
        request: &Request,
    ) -> Result<Current> {
        let call = Call::new(Method::GET, mount.data(path));
        let answer = self.send(request, call, "read").await?;
        if !answer.is_success() && answer.status != 404 {
            return Err(unread(&answer, path));
        }
        let read: Read<'_> = answer.json()?;
        let Some(ReadData { data, metadata }) = read.data else {
            return if answer.is_absence() {
                Ok(Current::Absent)
            } else {
                Err(answer.refusal())
            };
        };
        let Some(metadata) = metadata else {
            return Err(answer.garbage());
        };
        let version = metadata.version;
        let empty = match data {
            Some(map) => Fields::parse(map.get().as_bytes())?.is_empty(),
            None => true,
        };
        if empty {
            return Ok(Current::Gone(version));
        }
        Ok(Current::There(There { answer, version }))
    }

    /// What is known of `path`, none where there is nothing.
    pub(super) async fn about(
        &self,
        mount: &Mount,
        path: &SecretPath,
        request: &Request,
    ) -> Result<Option<AllVersions>> {
        let call = Call::new(Method::GET, mount.metadata(path));
        let answer = self.send(request, call, "read").await?;
        match answer.status {
            404 if answer.is_absence() => Ok(None),
            _ if answer.is_success() => Ok(Some(answer.json::<About>()?.data)),
            _ => Err(unread(&answer, path)),
        }
    }
}

fn time(text: &str) -> Option<SystemTime> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.into())
}
