//! Writing.
//!
//! A value is written in one request, which the server takes whole or not at all. Whatever must
//! first be found out is compared in that request: nothing that others write meanwhile is lost.

use std::sync::atomic::Ordering;

use keyhaul_core::{
    Capability, Error, ErrorKind, Field, Metadata, PutMode, PutOptions, Recipe, Request, Result,
    SecretBytes, SecretPath, Version,
};

use super::change::{Change, check_labels};
use super::content::{Body, Content};
use super::current::{Current, OneVersion, There};
use super::paths::{KvVersion, Mount};
use super::{Fields, Kv, no_secret, not_root, number_of, succeeded};
use crate::http::Call;
use reqwest::Method;

/// How often a write is begun anew because others wrote in between.
const ATTEMPTS: usize = 64;

/// What is told to who may create and not read.
const UNSEEN: &str = "there is a secret already, or one that was deleted; the token's policies do not let it see which";

impl Kv {
    pub(crate) async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let mount = self.writable(path, value.len(), options).await?;
        self.write(&mount, path, value, options).await
    }

    pub(crate) async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let mount = self.writable(path, recipe.length(), options).await?;
        self.write(&mount, path, &recipe.make()?, options).await
    }

    /// The mount to write to, where the write is possible at all.
    async fn writable(&self, path: &SecretPath, len: usize, options: &PutOptions) -> Result<Mount> {
        let mount = self.mounted.get_sure(&self.wire, &options.request).await?;
        let mut wanted = match options.mode {
            PutMode::Create => Capability::CREATE,
            PutMode::Overwrite => Capability::WRITE,
            PutMode::Update(_) => Capability::UPDATE,
            _ => return Err(unknown_mode()),
        };
        wanted.set(Capability::LABELS, !options.labels.is_empty());
        wanted.set(Capability::EXPIRY, options.expires.is_some());
        if let Some(field) = &options.field {
            wanted |= Capability::FIELDS;
            // To keep the siblings takes compare-and-set.
            wanted.set(
                Capability::UPDATE,
                wanted.contains(Capability::UPDATE) || !field.is_all(),
            );
        }
        self.need(&mount, wanted)?;
        let most = self.max_value();
        if len > most {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the value is over the store's limit of {most} bytes"),
            ));
        }
        not_root(path)?;
        check_labels(&options.labels)?;
        Ok(mount)
    }

    async fn write(
        &self,
        mount: &Mount,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let field = self.meant(options.field.as_ref());
        let content = Content::new(field, value, self.encoding_of(field))?;
        if mount.version == KvVersion::One {
            return self.write_one(mount, path, field, &content, options).await;
        }
        let change = Change {
            kv: self,
            mount,
            path,
            content: &content,
            request: &options.request,
        };
        let written = match &options.mode {
            PutMode::Create => self.create(&change, options.field.as_ref()).await?,
            PutMode::Overwrite => self.overwrite(&change).await?,
            PutMode::Update(version) => self.update(&change, version).await?,
            _ => return Err(unknown_mode()),
        };
        self.label(&change, written, options).await
    }

    /// Writes what is not there: the secret, or the field that is named.
    async fn create(&self, change: &Change<'_>, named: Option<&Field>) -> Result<OneVersion> {
        let mut compare = 0;
        for _ in 0..ATTEMPTS {
            let denied = |error: &Error| error.kind() == ErrorKind::PermissionDenied;
            match change.replace(Some(compare)).await {
                Ok(Some(written)) => return Ok(written),
                Ok(None) => {}
                // To the server, writing where something is there is no creating.
                Err(error) if denied(&error) && change.only_creates().await => {
                    return Err(exists(UNSEEN).with_source(error));
                }
                Err(error) => return Err(error),
            }
            let found = match change.current().await {
                // Who may create need not be able to read.
                Err(error) if denied(&error) => return Err(exists(UNSEEN).with_source(error)),
                found => found?,
            };
            match (found, named.filter(|field| !field.is_all())) {
                (Current::Absent, _) => compare = 0,
                (Current::Gone(version), _) => compare = version,
                (Current::There(_), None) => return Err(exists("there is a secret already")),
                (Current::There(there), Some(field)) => {
                    if there.fields()?.has(field) {
                        return Err(exists(format!("there is a field `{field}` already")));
                    }
                    if let Some(written) = change.merge(&there).await? {
                        return Ok(written);
                    }
                }
            }
        }
        Err(contended())
    }

    /// Writes whatever is there, and keeps the siblings of a field.
    async fn overwrite(&self, change: &Change<'_>) -> Result<OneVersion> {
        if matches!(change.content, Content::Whole(_))
            && let Some(written) = change.replace(None).await?
        {
            return Ok(written);
        }
        for _ in 0..ATTEMPTS {
            if let Some(patched) = change.patch(None).await? {
                match patched {
                    Some(written) => return Ok(written),
                    // Most likely there is nothing yet.
                    None => {
                        if let Some(written) = change.replace(Some(0)).await? {
                            return Ok(written);
                        }
                    }
                }
            }
            let written = match change.current().await? {
                Current::Absent => change.replace(Some(0)).await?,
                Current::Gone(version) => change.replace(Some(version)).await?,
                Current::There(there) => change.merge(&there).await?,
            };
            if let Some(written) = written {
                return Ok(written);
            }
        }
        Err(contended())
    }

    /// Writes over exactly one version.
    async fn update(&self, change: &Change<'_>, version: &Version) -> Result<OneVersion> {
        let conflict = || {
            Error::new(
                ErrorKind::Conflict,
                "the version given is not the current one",
            )
        };
        if let Some(number) = number_of(version)
            && let Some(Some(written)) = change.patch(Some(number)).await?
        {
            return Ok(written);
        }
        match change.current().await? {
            Current::Absent | Current::Gone(_) => Err(no_secret()),
            Current::There(There {
                version: current, ..
            }) if current.to_string() != version.as_str() => Err(conflict()),
            Current::There(there) => change.merge(&there).await?.ok_or_else(conflict),
        }
    }

    /// Has the labels be those of this write. The server keeps them apart from the versions.
    async fn label(
        &self,
        change: &Change<'_>,
        written: OneVersion,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let mut metadata = written.metadata()?;
        if metadata.labels == options.labels {
            return Ok(metadata);
        }
        let mut body = Body::new();
        body.text("{\"custom_metadata\":{")?;
        for (index, (name, value)) in options.labels.iter().enumerate() {
            body.text(if index == 0 { "" } else { "," })?;
            body.string(name)?;
            body.text(":")?;
            body.string(value)?;
        }
        body.text("}}")?;
        let call = Call::new(Method::POST, change.mount.metadata(change.path)).body(body.finish());
        let sent = self.send(change.request, call, "update").await;
        sent.and_then(succeeded).map_err(|error| {
            // The kind and advice are those of what failed; the words say what did not.
            let told = Error::new(
                error.kind(),
                format!(
                    "version {} was written, and its labels were not: {}",
                    written.version,
                    error.message()
                ),
            );
            match error.advice().map(str::to_owned) {
                Some(advice) => told.with_advice(advice),
                None => told,
            }
        })?;
        metadata.labels = options.labels.clone();
        Ok(metadata)
    }

    /// Version 1 replaces maps. The siblings of the field that is meant are read and written back,
    /// which other hosts' writes at the same moment can be lost by.
    async fn write_one(
        &self,
        mount: &Mount,
        path: &SecretPath,
        field: &Field,
        content: &Content<'_>,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let _turn = self.one_writer.lock().await;
        let mut body = Body::new();
        if field.is_all() {
            content.among(&mut body, &Fields::default())?;
        } else {
            let call = Call::new(Method::GET, mount.data(path));
            let answer = self.send(&options.request, call, "read").await?;
            match answer.status {
                404 if answer.errors().is_empty() => {
                    content.among(&mut body, &Fields::default())?
                }
                _ if answer.is_success() => content.among(&mut body, &fields_of_one(&answer)?)?,
                _ => return Err(answer.refusal()),
            }
        }
        let call = Call::new(Method::POST, mount.data(path)).body(body.finish());
        let answer = self.send(&options.request, call, "update").await?;
        if answer.status == 404 && answer.errors().is_empty() {
            // What version 2 says to who takes it for version 1.
            self.mounted
                .recheck(&self.wire, &options.request, mount)
                .await?;
        }
        succeeded(answer)?;
        Ok(Metadata::default())
    }

    /// Whether patching has not been denied yet.
    pub(super) fn may_patch(&self) -> bool {
        !self.patch_denied.load(Ordering::Relaxed)
    }

    /// Remembers that patching was denied.
    pub(super) fn patching_denied(&self) {
        self.patch_denied.store(true, Ordering::Relaxed);
    }

    pub(super) async fn send_for(
        &self,
        request: &Request,
        call: Call<'_>,
        capability: &str,
    ) -> Result<crate::http::Answer> {
        self.send(request, call, capability).await
    }
}

fn fields_of_one(answer: &crate::http::Answer) -> Result<Fields<'_>> {
    #[derive(serde::Deserialize)]
    struct Plain<'a> {
        #[serde(borrow)]
        data: Fields<'a>,
    }

    Ok(answer.json::<Plain<'_>>()?.data)
}

fn exists(words: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::AlreadyExists, words)
}

fn unknown_mode() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this store does not know this mode of writing",
    )
}

fn contended() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("others wrote the secret in between, {ATTEMPTS} times"),
    )
}
