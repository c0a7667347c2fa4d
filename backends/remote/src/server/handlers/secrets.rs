//! Setting, making, deleting and naming secrets: what managers and operators do without ever
//! reading one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use keyhaul_core::{
    DeleteOptions, Error, ErrorKind, ListOptions, Metadata, PutOptions, Reference, Result,
    SecretBytes, SecretPath, Version,
};

use super::super::audit::Entry;
use super::super::burial;
use super::super::call::Call;
use super::super::failure::invalid;
use super::Query;
use crate::protocol::seal::{Binding, Purpose};
use crate::protocol::{
    DeleteAnswer, DeleteRequest, GenerateRequest, ListAnswer, MetadataBody, Mode, RestoreRequest,
    Stat, WriteRequest, field,
};

/// Sets a value that an operator sealed to this process.
pub(super) async fn write(call: &Arc<Call>, request: WriteRequest) -> Result<Vec<u8>> {
    let (reference, path, mut entry) = named(call, &request.secret).await?;
    terms(&mut entry, request.mode, &request.expect, &request.field);
    let options = Wanted {
        mode: request.mode,
        expect: request.expect.as_deref(),
        field: request.field.as_deref(),
        labels: &request.labels,
        expires: request.expires,
    };
    let options = options.of(call)?;
    let value = open(call, &request)?;
    drop(request);
    let own = Arc::clone(call);
    let change = async move {
        let _alone = burial::alone(&own.shared().subjects, reference.subject()).await;
        burial::clear(&own, reference.subject(), &path, &options.mode).await?;
        let put = own.shared().store.put(&path, &value, &options);
        own.ask(put).await.map(stat)
    };
    call.changed(entry, change, note).await
}

/// Has a value made that nobody here sees.
pub(super) async fn generate(call: &Arc<Call>, request: GenerateRequest) -> Result<Vec<u8>> {
    let (reference, path, mut entry) = named(call, &request.secret).await?;
    terms(&mut entry, request.mode, &request.expect, &request.field);
    let recipe = request.recipe()?;
    let options = Wanted {
        mode: request.mode,
        expect: request.expect.as_deref(),
        field: request.field.as_deref(),
        labels: &request.labels,
        expires: request.expires,
    };
    let options = options.of(call)?;
    let own = Arc::clone(call);
    let change = async move {
        let _alone = burial::alone(&own.shared().subjects, reference.subject()).await;
        burial::clear(&own, reference.subject(), &path, &options.mode).await?;
        let made = own.shared().store.generate(&path, &recipe, &options);
        own.ask(made).await.map(stat)
    };
    call.changed(entry, change, note).await
}

/// Deletes a secret: hidden at once, gone when the window is over.
pub(super) async fn delete(call: &Arc<Call>, request: DeleteRequest) -> Result<Vec<u8>> {
    let (reference, path, mut entry) = named(call, &request.secret).await?;
    entry.term("force", request.force.then_some(true.into()));
    let version = request.version.map(Version::new).transpose()?;
    if !request.force && call.shared().state.is_granted(reference.scope()) {
        let error = Error::new(
            ErrorKind::Conflict,
            "a node holds the secret's scope: what it runs may need it",
        )
        .with_advice("revoke the scope first, or delete with `force`");
        return call.looked::<()>(entry, Err(error)).await;
    }
    let own = Arc::clone(call);
    let change = async move {
        let _alone = burial::alone(&own.shared().subjects, reference.subject()).await;
        let options = DeleteOptions::default()
            .version(version)
            .request(own.request());
        let restorable_until = burial::bury(&own, &reference, &path, &options).await?;
        Ok(DeleteAnswer { restorable_until })
    };
    call.changed(entry, change, |_, _| {}).await
}

/// Brings back what was deleted.
pub(super) async fn restore(call: &Arc<Call>, request: RestoreRequest) -> Result<Vec<u8>> {
    let (reference, path, entry) = named(call, &request.secret).await?;
    let own = Arc::clone(call);
    let change = async move {
        let _alone = burial::alone(&own.shared().subjects, reference.subject()).await;
        burial::exhume(&own, reference.subject(), &path)
            .await
            .map(stat)
    };
    call.changed(entry, change, note).await
}

/// Names of secrets in the manager's scopes.
pub(super) async fn list(call: &Arc<Call>, query: Query) -> Result<Vec<u8>> {
    let prefix = query.text("prefix").unwrap_or_default();
    let entry = call.entry(Some(prefix.to_owned()));
    let path = match prefix {
        // Pages of all are made of others' names too: not even where they end is for everybody.
        "" if !call.identity.covers_all() => {
            let error = Error::new(
                ErrorKind::PermissionDenied,
                "the role does not cover all scopes: names are listed below one of its own",
            );
            let error = error.with_advice("name a `prefix` that begins with the scope, as web01");
            return call.looked::<()>(entry, Err(error)).await;
        }
        "" => SecretPath::root(),
        prefix => {
            let path = SecretPath::new(prefix)?;
            let scope = path.segments().next().unwrap_or_default().to_owned();
            call.scope(&scope)?;
            call.reach(&scope, &entry).await?;
            path
        }
    };
    let options = ListOptions::default()
        .shallow(query.flag("shallow")?)
        .limit(Some(query.limit()?))
        .after(query.text("after").map(str::to_owned))
        .request(call.request());
    let result = names(call, &path, &options).await;
    call.looked(entry, result).await
}

async fn names(call: &Call, prefix: &SecretPath, options: &ListOptions) -> Result<ListAnswer> {
    let page = call.ask(call.shared().store.list(prefix, options)).await?;
    let mut page = burial::without_buried(call, prefix, page).await?;
    let reached = |path: &SecretPath| {
        let scope = path.segments().next().unwrap_or_default();
        call.identity.covers(scope)
    };
    page.secrets.retain(reached);
    page.folders.retain(reached);
    let text = |paths: Vec<SecretPath>| paths.iter().map(SecretPath::to_string).collect();
    Ok(ListAnswer {
        secrets: text(page.secrets),
        folders: text(page.folders),
        next: page.next,
    })
}

/// The secret, its path in the store, and the record of what is done with it.
async fn named(call: &Call, secret: &str) -> Result<(Reference, SecretPath, Entry)> {
    let reference = call.secret(secret)?;
    let entry = call.entry(Some(reference.subject().to_owned()));
    call.reach(reference.scope(), &entry).await?;
    let path = SecretPath::new(reference.subject())?;
    Ok((reference, path, entry))
}

/// How a secret shall be written.
struct Wanted<'a> {
    mode: Mode,
    expect: Option<&'a str>,
    field: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    expires: Option<Timestamp>,
}

impl Wanted<'_> {
    fn of(self, call: &Call) -> Result<PutOptions> {
        Ok(PutOptions::default()
            .mode(self.mode.with(self.expect)?)
            .field(self.field.map(field).transpose()?)
            .labels(self.labels.clone())
            .expires(self.expires.map(SystemTime::from))
            .idempotency(call.idempotency)
            .request(call.request()))
    }
}

/// Opens what was sealed to this process.
fn open(call: &Call, request: &WriteRequest) -> Result<SecretBytes> {
    let recipient = &call.shared().recipient;
    if request.key != recipient.public() {
        return Err(Error::new(
            ErrorKind::Conflict,
            "the value is sealed to another key than the service's: it has a new one after a start",
        )
        .with_advice("fetch the key again (/v1/service), and seal the value to it"));
    }
    let binding = Binding {
        client: &call.connection.fingerprint,
        nonce: &request.salt,
        secret: &request.secret,
        version: None,
        field: request.field.as_deref(),
    };
    let opened = recipient
        .meet(&request.enc)
        .and_then(|receiver| receiver.opener(Purpose::Write, &request.salt))
        .and_then(|opener| opener.open(&binding, 0, &request.value));
    opened.map_err(|error| match error.kind() {
        // What is corrupt here came from the caller, not from the store.
        ErrorKind::Corrupt => invalid(error.message().to_owned()),
        _ => error,
    })
}

fn stat(metadata: Metadata) -> Stat {
    Stat {
        metadata: MetadataBody::from(&metadata),
    }
}

/// What the record says of a write, besides.
fn terms(entry: &mut Entry, mode: Mode, expect: &Option<String>, field: &Option<String>) {
    entry.term("mode", serde_json::json!(mode));
    entry.term("expect", expect.clone().map(Into::into));
    entry.term("field", field.clone().map(Into::into));
}

fn note(stat: &Stat, entry: &mut Entry) {
    entry.version.clone_from(&stat.metadata.version);
}
