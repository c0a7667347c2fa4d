//! Setting, making, deleting and naming secrets: what managers and operators do without ever
//! reading one.

use std::sync::Arc;

use keyhaul_core::{
    Alphabet, DeleteOptions, Error, ErrorKind, ListOptions, Metadata, PutMode, PutOptions, Recipe,
    Reference, Result, SecretBytes, SecretPath, Version,
};

use super::super::audit::Entry;
use super::super::call::Call;
use super::super::deletion::{self, Value};
use super::super::failure::invalid;
use super::super::turns;
use super::Query;
use crate::protocol::seal::{Binding, Purpose};
use crate::protocol::{
    DeleteAnswer, DeleteRequest, GenerateRequest, ListAnswer, MetadataBody, RestoreRequest, Stat,
    Terms, WriteRequest,
};

/// Sets a value that an operator sealed to this process.
pub(super) async fn write(call: &Arc<Call>, request: WriteRequest) -> Result<Vec<u8>> {
    let (reference, path, mut entry) = named(call, &request.secret).await?;
    terms(&mut entry, &request.terms());
    let options = options(call, &request.terms())?;
    let value = open(call, &request)?;
    drop(request);
    let value = Value::Given(value);
    put(call, (reference, path, entry), value, options).await
}

/// Has a value made that nobody here sees.
pub(super) async fn generate(call: &Arc<Call>, request: GenerateRequest) -> Result<Vec<u8>> {
    let (reference, path, mut entry) = named(call, &request.secret).await?;
    terms(&mut entry, &request.terms());
    let recipe = strong(request.recipe()?)?;
    let options = options(call, &request.terms())?;
    if options.mode != PutMode::Create
        && !request.force
        && call.shared().state.is_granted(reference.scope())
    {
        let error = Error::new(
            ErrorKind::Conflict,
            "a node holds the secret's scope: a new value in the place of one in use can lock it out",
        )
        .with_advice("make a new secret beside it; over HTTP, `force` replaces it all the same");
        return call.looked::<()>(entry, Err(error)).await;
    }
    let value = Value::Made(recipe);
    put(call, (reference, path, entry), value, options).await
}

async fn put(
    call: &Arc<Call>,
    (reference, path, entry): (Reference, SecretPath, Entry),
    value: Value,
    options: PutOptions,
) -> Result<Vec<u8>> {
    let own = Arc::clone(call);
    let change = |room| async move {
        let (call, subject) = (Arc::clone(&own), reference.subject().to_owned());
        let write = async move {
            deletion::write(&call, reference.subject(), &path, &value, options)
                .await
                .map(stat)
        };
        turns::alone(&own, room, &subject, write).await
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
        .with_advice("revoke the scope first (keyhaul revoke), or delete with --force; over HTTP, with `force`");
        return call.looked::<()>(entry, Err(error)).await;
    }
    let own = Arc::clone(call);
    let change = |room| async move {
        let (call, subject) = (Arc::clone(&own), reference.subject().to_owned());
        let delete = async move {
            let options = DeleteOptions::default()
                .version(version)
                .request(call.request());
            let restorable_until = deletion::delete(&call, &reference, &path, &options).await?;
            Ok(DeleteAnswer { restorable_until })
        };
        turns::alone(&own, room, &subject, delete).await
    };
    call.changed(entry, change, |_, _| {}).await
}

/// Brings back what was deleted.
pub(super) async fn restore(call: &Arc<Call>, request: RestoreRequest) -> Result<Vec<u8>> {
    let (reference, path, entry) = named(call, &request.secret).await?;
    let own = Arc::clone(call);
    let change = |room| async move {
        let (call, subject) = (Arc::clone(&own), reference.subject().to_owned());
        let restore = async move {
            deletion::restore(&call, reference.subject(), &path)
                .await
                .map(stat)
        };
        turns::alone(&own, room, &subject, restore).await
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
            let error = error.with_advice(
                "name a scope, as in `keyhaul list web01`; over HTTP, as the `prefix`",
            );
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
    let mut page = deletion::without_deleted(call, prefix, page).await?;
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

/// Whoever has a value made does not learn it: it takes one that cannot be guessed.
fn strong(recipe: Recipe) -> Result<Recipe> {
    let letters = match recipe.alphabet() {
        Alphabet::Alphanumeric => 22,
        Alphabet::Hex => 32,
        _ => 16,
    };
    if recipe.length() >= letters {
        return Ok(recipe);
    }
    Err(invalid(format!(
        "a generated value has at least 128 bits here, as 22 letters and digits, 32 of `hex` or 16 \
         of `bytes`: whoever has it made must not guess it, and {} of these are less",
        recipe.length()
    ))
    .with_advice("an operator can set what a consumer needs shorter"))
}

/// The secret, its path in the store, and the record of what is done with it.
async fn named(call: &Call, secret: &str) -> Result<(Reference, SecretPath, Entry)> {
    let reference = call.secret(secret)?;
    let entry = call.entry(Some(reference.subject().to_owned()));
    call.reach(reference.scope(), &entry).await?;
    let path = SecretPath::new(reference.subject())?;
    Ok((reference, path, entry))
}

/// The options of a write, on the caller's behalf.
fn options(call: &Call, terms: &Terms<'_>) -> Result<PutOptions> {
    let options = terms.options()?;
    Ok(options
        .idempotency(call.idempotency)
        .request(call.request()))
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
fn terms(entry: &mut Entry, terms: &Terms<'_>) {
    entry.term("mode", serde_json::json!(terms.mode));
    entry.term("expect", terms.expect.map(Into::into));
    entry.term("field", terms.field.map(Into::into));
}

fn note(stat: &Stat, entry: &mut Entry) {
    entry.version.clone_from(&stat.metadata.version);
}
