//! Reading.

use keyhaul_core::{
    Capability, Error, ErrorKind, Field, GetOptions, Metadata, Result, Secret, SecretBytes,
    SecretPath,
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::current::Read;
use super::paths::{KvVersion, Mount, without_data};
use super::{Fields, Kv, no_secret, no_version, not_root, number_of};
use crate::http::{Answer, Call};

/// An answer of KV version 1.
#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// What a reader asks for.
#[derive(Clone, Copy)]
enum Wanted {
    Value,
    Metadata,
}

/// What it gets: the value where that was asked for.
struct Found {
    value: Option<SecretBytes>,
    metadata: Metadata,
}

impl Kv {
    pub(crate) async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let found = self.read(path, options, Wanted::Value).await?;
        match found.value {
            Some(value) => Ok(Secret::new(value, found.metadata)),
            None => Err(Error::new(
                ErrorKind::Internal,
                "a value was read and is not there",
            )),
        }
    }

    pub(crate) async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let found = self.read(path, options, Wanted::Metadata).await?;
        Ok(found.metadata)
    }

    /// Reads, and where nothing was found looks whether it was looked for in the wrong place.
    async fn read(&self, path: &SecretPath, options: &GetOptions, wanted: Wanted) -> Result<Found> {
        let request = &options.request;
        let mount = self.mounted.get(&self.wire, request).await?;
        if options.version.is_some() {
            self.need(&mount, Capability::VERSIONS)?;
        }
        not_root(path)?;
        let error = match self.read_at(&mount, path, options, wanted).await {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            answer => return answer,
        };
        if let Some(mount) = self.mounted.recheck(&self.wire, request, &mount).await? {
            return self.read_at(&mount, path, options, wanted).await;
        }
        // A secret of that name would have been found: this is the API's path, copied.
        if mount.version == KvVersion::Two
            && let Some(rest) = without_data(path)
            && let Ok(found) = self.read_at(&mount, &rest, options, wanted).await
        {
            tracing::debug!(%path, "there is no such secret; taken for the API's path");
            return Ok(found);
        }
        Err(error)
    }

    async fn read_at(
        &self,
        mount: &Mount,
        path: &SecretPath,
        options: &GetOptions,
        wanted: Wanted,
    ) -> Result<Found> {
        let metadata = match (wanted, mount.version) {
            (Wanted::Value, _) => {
                let Secret {
                    value, metadata, ..
                } = self.get_at(mount, path, options).await?;
                let value = Some(value);
                return Ok(Found { value, metadata });
            }
            // There is nothing to know but whether it is there, which its value tells.
            (Wanted::Metadata, KvVersion::One) => {
                self.value_of_one(mount, path, options).await?;
                Metadata::default()
            }
            (Wanted::Metadata, KvVersion::Two) => {
                let number = options.version.as_ref();
                let number = number.map(|version| number_of(version).ok_or_else(no_version));
                let number = number.transpose()?;
                let about = self.about(mount, path, &options.request).await?;
                about.ok_or_else(no_secret)?.metadata(number)?
            }
        };
        let value = None;
        Ok(Found { value, metadata })
    }

    async fn get_at(
        &self,
        mount: &Mount,
        path: &SecretPath,
        options: &GetOptions,
    ) -> Result<Secret> {
        let field = self.meant(options.field.as_ref());
        if mount.version == KvVersion::One {
            let answer = self.value_of_one(mount, path, options).await?;
            let plain: Plain<'_> = answer.json()?;
            let map = plain.data.ok_or_else(|| answer.garbage())?;
            return Ok(Secret::new(self.pick(map, field)?, Metadata::default()));
        }
        let mut call = Call::new(Method::GET, mount.data(path));
        if let Some(version) = &options.version {
            let number = number_of(version).ok_or_else(no_version)?;
            call = call.query("version", &number.to_string());
        }
        let answer = self.send(&options.request, call, "read").await?;
        if answer.status == 400 {
            return Err(not_ready(&answer));
        }
        if !answer.is_success() && answer.status != 404 {
            return Err(answer.refusal());
        }
        let read: Read<'_> = answer.json()?;
        let Some(data) = read.data else {
            return Err(absent(&answer, options));
        };
        let metadata = data.metadata.ok_or_else(|| answer.garbage())?;
        match data.data {
            Some(map) => Ok(Secret::new(self.pick(map, field)?, metadata.metadata()?)),
            None => Err(metadata
                .times
                .refusal(metadata.version)
                .unwrap_or_else(no_secret)),
        }
    }

    async fn value_of_one(
        &self,
        mount: &Mount,
        path: &SecretPath,
        options: &GetOptions,
    ) -> Result<Answer> {
        let call = Call::new(Method::GET, mount.data(path));
        let answer = self.send(&options.request, call, "read").await?;
        match answer.status {
            404 => Err(absent(&answer, options)),
            _ if answer.is_success() => Ok(answer),
            _ => Err(answer.refusal()),
        }
    }

    /// The field meant, or the whole map.
    fn pick(&self, map: &RawValue, field: &Field) -> Result<SecretBytes> {
        let map = map.get().as_bytes();
        if field.is_all() {
            Fields::parse(map)?;
            return Ok(SecretBytes::copy_from(map));
        }
        Fields::parse(map)?.value(field, self.encoding_of(field))
    }
}

/// The error for a 400 to a reading. Nothing in such a request can be wrong: the engine answers so while
/// it prepares its storage, as each node of a cluster does after a new leader came.
fn not_ready(answer: &Answer) -> Error {
    let what = "the engine is not ready";
    Error::new(ErrorKind::Unavailable, what).with_source(answer.refusal())
}

/// The error for a 404: nothing there, or nothing mounted there, of which the server speaks.
fn absent(answer: &Answer, options: &GetOptions) -> Error {
    if !answer.errors().is_empty() {
        return answer.refusal();
    }
    match options.version {
        Some(_) => no_version(),
        None => no_secret(),
    }
}
