//! Metadata, of many secrets at once.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use keyhaul_core::{
    Error, ErrorKind, GetOptions, Metadata, Reference, Result, SecretPath, Version,
};

use super::super::call::{Call, fail, json};
use super::super::deletion;
use super::super::failure::{out_of_reach, refused};
use crate::protocol::{
    MetadataBody, Outcome, ReadItem, Role, Stat, StatAnswer, StatRequest, field, limit,
};

/// How many the store is asked about at once.
const AT_ONCE: usize = 16;

/// Why one was denied, where it was: for the audit alone.
type Judged = Result<Reference, (Error, Option<&'static str>)>;

/// What is known of secrets.
pub(super) async fn stat(call: &Arc<Call>, request: &StatRequest) -> Result<Vec<u8>> {
    if request.items.len() > limit::BATCH {
        let rule = format!("a stat is about {} secrets at most", limit::BATCH);
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    let looked: Vec<(Judged, Result<Metadata>)> = stream::iter(0..request.items.len())
        .map(|index| one(call, &request.items[index]))
        .buffered(AT_ONCE)
        .collect()
        .await;

    let entries = looked
        .iter()
        .zip(&request.items)
        .map(|((judged, result), asked)| {
            let mut entry = call.entry(Some(asked.secret.chars().take(512).collect()));
            if let Ok(reference) = judged {
                entry.subject = Some(reference.subject().to_owned());
            }
            if call.identity.role == Role::Node {
                entry.node = Some(Arc::clone(&call.identity.name));
            }
            if let Err(error) = result {
                fail(&mut entry, error);
            }
            if let Err((_, Some(reason))) = judged {
                entry.reason = Some(Cow::Borrowed(reason));
            }
            entry
        });
    call.record(entries.collect()).await?;
    let items = looked.into_iter().map(|(_, result)| {
        let stat = |metadata: Metadata| Stat {
            metadata: MetadataBody::from(&metadata),
        };
        Outcome::from(result.map(stat))
    });
    json(&StatAnswer {
        items: items.collect(),
    })
}

async fn one(call: &Call, asked: &ReadItem) -> (Judged, Result<Metadata>) {
    let judged = judge(call, asked);
    let result = match &judged {
        Ok(reference) => look(call, asked, reference).await,
        Err((error, _)) => Err(error.duplicate()),
    };
    (judged, result)
}

fn judge(call: &Call, asked: &ReadItem) -> Judged {
    let reference = call.secret(&asked.secret).map_err(|error| (error, None))?;
    match call.identity.role {
        Role::Node => match call
            .shared()
            .state
            .may_read(&call.identity.name, &reference)
        {
            Ok(_) => Ok(reference),
            Err(denial) => Err((refused(), Some(denial.reason))),
        },
        Role::Manager | Role::Operator if call.identity.covers(reference.scope()) => Ok(reference),
        Role::Manager | Role::Operator => {
            Err((out_of_reach(), Some("the role does not cover the scope")))
        }
    }
}

async fn look(call: &Call, asked: &ReadItem, reference: &Reference) -> Result<Metadata> {
    let options = GetOptions::default()
        .version(asked.version.as_deref().map(Version::new).transpose()?)
        .field(asked.field.as_deref().map(field).transpose()?)
        .expired(asked.expired)
        .request(call.request());
    let path = SecretPath::new(reference.subject())?;
    deletion::alive(call, reference.subject(), &path).await?;
    let metadata = call.ask(call.shared().store.stat(&path, &options)).await?;
    // A grant can go while the store is asked.
    if call.identity.role == Role::Node
        && let Err(_denied) = call.shared().state.may_read(&call.identity.name, reference)
    {
        return Err(refused());
    }
    Ok(metadata)
}
