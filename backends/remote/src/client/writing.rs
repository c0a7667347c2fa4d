//! Writing: sealed to the key of the very server that is asked.

use std::time::Instant;

use keyhaul_core::{Capability, Error, ErrorKind, PutMode, PutOptions, Result, SecretBytes};

use super::RemoteStore;
use super::call::Call;
use super::store::{mode, text, timestamp};
use super::wire::{self, Failure, Link, Writing};
use crate::protocol::seal::{Binding, Purpose};
use crate::protocol::{Stat, WriteRequest, limit, path};

impl RemoteStore {
    /// Whether a write whose answer was lost can be made again at another server: where there is
    /// one, and the service knows the write again by its id.
    pub(super) async fn is_repeatable(&self, options: &PutOptions) -> Result<bool> {
        if options.idempotency.is_none() || !self.0.pool.has_others() {
            return Ok(false);
        }
        if let Some(known) = self.0.idempotent.get() {
            return Ok(*known);
        }
        let can = wire::capabilities(&self.service(&options.request).await?);
        Ok(*self
            .0
            .idempotent
            .get_or_init(|| can.contains(Capability::IDEMPOTENT)))
    }

    /// The error for a value that is too long to be sent: where the service could not write it so
    /// anyway, that is what is told.
    pub(super) async fn too_large(&self, options: &PutOptions) -> Error {
        let needed = needed_to_put(options);
        if let Ok(answer) = self.service(&options.request).await {
            let missing = needed - wire::capabilities(&answer);
            if !missing.is_empty() {
                return Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the key service cannot do this for us: it lacks {}",
                        missing.names().join(", ")
                    ),
                );
            }
        }
        let rule = format!(
            "a key service takes values of at most {} bytes",
            limit::VALUE
        );
        Error::new(ErrorKind::TooLarge, rule)
    }

    /// Writes to one server: sealed to its key, and once more where it has another by now.
    pub(super) async fn write(
        &self,
        link: &Link,
        subject: &str,
        value: &SecretBytes,
        options: &PutOptions,
        until: Instant,
    ) -> Result<Stat, Failure> {
        let request = &options.request;
        let writing = link.writing(request, until).await;
        let writing = writing.map_err(Failure::beforehand)?;
        let failure = match self
            .write_to(link, &writing, subject, value, options, until)
            .await
        {
            Err(failure) if failure.error.kind() == ErrorKind::Conflict => failure,
            other => return other,
        };
        // About the key, or about the version: the server's key tells.
        match link.rewriting(&writing, request, until).await {
            Ok(Some(writing)) => {
                self.write_to(link, &writing, subject, value, options, until)
                    .await
            }
            // Where it cannot be had, what was said before is all that is known.
            Ok(None) | Err(_) => Err(failure),
        }
    }

    async fn write_to(
        &self,
        link: &Link,
        writing: &Writing,
        subject: &str,
        value: &SecretBytes,
        options: &PutOptions,
        until: Instant,
    ) -> Result<Stat, Failure> {
        let body = sealed(link, writing, subject, value, options).map_err(Failure::never)?;
        let call = Call::post(path::WRITE, &body, &options.request).map_err(Failure::never)?;
        link.send(&call.idempotency(options.idempotency), until)
            .await
    }
}

/// `value`, sealed to the server, with all that is asked for.
fn sealed(
    link: &Link,
    writing: &Writing,
    subject: &str,
    value: &SecretBytes,
    options: &PutOptions,
) -> Result<WriteRequest> {
    let (mode, expect) = mode(&options.mode)?;
    let field = options.field.as_ref().map(text);
    let sealer = writing.sender.sealer(Purpose::Write)?;
    let binding = Binding {
        client: &link.identity.certificate,
        nonce: sealer.salt(),
        secret: subject,
        version: None,
        field: field.as_deref(),
    };
    let value = sealer.seal(&binding, 0, value)?;
    Ok(WriteRequest {
        secret: subject.to_owned(),
        key: writing.key.clone(),
        enc: writing.sender.enc().to_owned(),
        salt: sealer.salt().to_owned(),
        value,
        mode,
        expect,
        field,
        labels: options.labels.clone(),
        expires: options.expires.map(timestamp).transpose()?,
    })
}

/// What a store must be able to do to write so.
fn needed_to_put(options: &PutOptions) -> Capability {
    let mut needed = match &options.mode {
        PutMode::Create => Capability::CREATE,
        PutMode::Update(_) => Capability::UPDATE,
        _ => Capability::WRITE,
    };
    match &options.field {
        None => {}
        Some(field) if field.is_all() => needed |= Capability::FIELDS,
        Some(_) => needed |= Capability::FIELDS | Capability::UPDATE,
    }
    if !options.labels.is_empty() {
        needed |= Capability::LABELS;
    }
    if options.expires.is_some() {
        needed |= Capability::EXPIRY;
    }
    needed
}
