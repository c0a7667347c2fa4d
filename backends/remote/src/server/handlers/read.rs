//! Reading values, the one thing that nodes are here for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use keyhaul_core::{Error, ErrorKind, GetOptions, Reference, Result, Secret, SecretPath, Version};

use super::super::audit::Entry;
use super::super::call::{Call, fail, json, late};
use super::super::deletion;
use super::super::failure::{invalid, of_store, refused};
use super::super::state::Permit;
use super::service::capabilities;
use crate::protocol::seal::{Binding, Purpose};
use crate::protocol::{
    MetadataBody, Outcome, Problem, ReadAnswer, ReadItem, ReadRequest, SealedValue, field, limit,
};

/// How many values the store is asked for at once, at least and at most: what it answers is in
/// memory together.
const AT_ONCE: (usize, usize) = (8, 64);
/// How much of what may be no field is recorded.
const MAX_FIELD: usize = 128;

/// One secret on its way to the node.
struct Item {
    /// The secret, in the scope that is meant.
    reference: Option<Reference>,
    step: Step,
    /// Why it was denied, for the audit alone.
    denied: Option<&'static str>,
}

enum Step {
    Permitted(Permit),
    Read(Permit, Secret),
    Failed(Error),
}

/// Values for a node, sealed to the process that asks.
pub(super) async fn read(call: &Arc<Call>, request: &ReadRequest) -> Result<Vec<u8>> {
    if request.items.len() > limit::BATCH {
        let rule = format!("a read is for {} secrets at most", limit::BATCH);
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    let mut nonce = [0; 16];
    if !Base64::decode(&request.nonce, &mut nonce).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(invalid("`nonce` is 16 bytes in base64"));
    }
    let sender = call.connection.sender(&request.key)?;
    let mut items: Vec<Item> = request
        .items
        .iter()
        .map(|asked| judge(call, asked))
        .collect();
    // Held until the values are sealed and gone.
    let _room = call.room(&call.shared().reads).await?;
    fetch(call, &request.items, &mut items).await;
    keep(call, &mut items);

    let entries = items
        .iter()
        .zip(&request.items)
        .map(|(item, asked)| entry(call, item, asked));
    call.record(entries.collect()).await?;
    let permits: Vec<Permit> = items
        .iter()
        .filter_map(|item| match &item.step {
            Step::Read(permit, _) => Some(permit.clone()),
            _ => None,
        })
        .collect();
    if !permits.is_empty()
        && let Err(error) = call.shared().state.fetched(&permits).await
    {
        return Err(withhold(call, &items, &request.items, error).await);
    }

    let sealer = sender.sealer(Purpose::Read)?;
    let mut outcomes = Vec::with_capacity(items.len());
    for (index, (item, asked)) in items.into_iter().zip(&request.items).enumerate() {
        outcomes.push(match item.step {
            Step::Read(_, secret) => {
                let binding = Binding {
                    client: &call.connection.fingerprint,
                    nonce: &request.nonce,
                    secret: &asked.secret,
                    version: asked.version.as_deref(),
                    field: asked.field.as_deref(),
                };
                Outcome::Done(SealedValue {
                    value: sealer.seal(&binding, index, &secret.value)?,
                    metadata: MetadataBody::from(&secret.metadata),
                })
            }
            Step::Failed(error) => Outcome::Problem {
                problem: Problem::of(&error, None),
            },
            Step::Permitted(_) => return Err(late()),
        });
    }
    json(&ReadAnswer {
        enc: sender.enc().to_owned(),
        salt: sealer.salt().to_owned(),
        items: outcomes,
    })
}

/// Whether the node may have it: decided in memory, before any store is asked.
fn judge(call: &Call, asked: &ReadItem) -> Item {
    let reference = match call.secret(&asked.secret) {
        Ok(reference) => reference,
        Err(error) => {
            return Item {
                reference: None,
                step: Step::Failed(error),
                denied: None,
            };
        }
    };
    let (step, denied) = match call
        .shared()
        .state
        .may_read(&call.identity.name, &reference)
    {
        Ok(permit) => (Step::Permitted(permit), None),
        Err(denial) => (Step::Failed(refused()), Some(denial.reason)),
    };
    Item {
        reference: Some(reference),
        step,
        denied,
    }
}

/// Asks the store for what is permitted, and for nothing else.
async fn fetch(call: &Call, asked: &[ReadItem], items: &mut [Item]) {
    let mut groups: BTreeMap<_, Vec<(usize, SecretPath)>> = BTreeMap::new();
    for (index, (item, asked)) in items.iter_mut().zip(asked).enumerate() {
        let (Step::Permitted(_), Some(reference)) = (&item.step, &item.reference) else {
            continue;
        };
        match path(call, reference.subject()).await {
            Ok(path) => {
                let key = (
                    asked.version.as_deref(),
                    asked.field.as_deref(),
                    asked.expired,
                );
                groups.entry(key).or_default().push((index, path));
            }
            Err(error) => item.step = Step::Failed(error),
        }
    }
    if groups.is_empty() {
        return;
    }
    let at_once = match capabilities(call).await {
        Ok(known) => at_once(known.max_value),
        // The store says more of it where it is asked for values.
        Err(_) => AT_ONCE.0,
    };
    let mut total = 0;
    for ((version, of, expired), group) in groups {
        let options = || -> Result<GetOptions> {
            Ok(GetOptions::default()
                .version(version.map(Version::new).transpose()?)
                .field(of.map(field).transpose()?)
                .expired(expired)
                .request(call.request()))
        };
        let options = match options() {
            Ok(options) => options,
            Err(error) => {
                for (index, _) in group {
                    items[index].step = Step::Failed(error.duplicate());
                }
                continue;
            }
        };
        for chunk in group.chunks(at_once) {
            let paths: Vec<SecretPath> = chunk.iter().map(|(_, path)| path.clone()).collect();
            let results = if total >= limit::ANSWER {
                Vec::new()
            } else {
                let answer = get(call, &paths, &options);
                match tokio::time::timeout_at(call.deadline.into(), answer).await {
                    Ok(results) => results
                        .into_iter()
                        .map(|got| got.map_err(of_store))
                        .collect(),
                    Err(_) => paths.iter().map(|_| Err(late())).collect(),
                }
            };
            let missing = std::iter::repeat_with(|| Err(too_large()));
            for ((index, _), result) in chunk.iter().zip(results.into_iter().chain(missing)) {
                take(&mut items[*index], result, &mut total);
            }
        }
    }
}

/// Asks the store; for a single secret in the way that costs least.
async fn get(call: &Call, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
    let store = &call.shared().store;
    match paths {
        [path] => vec![store.get(path, options).await],
        _ => store.get_many(paths, options).await,
    }
}

/// As many as fill one answer, of the longest that the store takes.
fn at_once(longest: usize) -> usize {
    (limit::ANSWER / longest.max(1)).clamp(AT_ONCE.0, AT_ONCE.1)
}

/// Where the store has it, unless it is deleted.
async fn path(call: &Call, subject: &str) -> Result<SecretPath> {
    let path = SecretPath::new(subject)?;
    deletion::alive(call, subject, &path).await?;
    Ok(path)
}

/// Takes what the store gave, as long as there is room in the answer. One value always has.
fn take(item: &mut Item, result: Result<Secret>, total: &mut usize) {
    let step = std::mem::replace(&mut item.step, Step::Failed(late()));
    item.step = match (step, result) {
        (Step::Permitted(permit), Ok(secret)) => {
            // What is refused takes no room from what comes after it.
            let with = *total + secret.value.len();
            if with > limit::ANSWER && *total > 0 {
                Step::Failed(too_large())
            } else {
                *total = with;
                Step::Read(permit, secret)
            }
        }
        (Step::Permitted(_), Err(error)) => Step::Failed(error),
        (step, _) => step,
    };
}

/// Asks again whether the node may: the store may have taken its time.
fn keep(call: &Call, items: &mut [Item]) {
    for item in items {
        let Step::Read(permit, _) = &item.step else {
            continue;
        };
        if !call.shared().state.still_holds(permit) {
            item.step = Step::Failed(refused());
            item.denied = Some("the grant went while the store was asked");
        }
    }
}

/// What to say where the audit has reads that are not answered after all; it learns that too.
async fn withhold(call: &Call, items: &[Item], asked: &[ReadItem], error: Error) -> Error {
    let entries = items.iter().zip(asked).filter_map(|(item, asked)| {
        let mut entry = matches!(item.step, Step::Read(..)).then(|| entry(call, item, asked))?;
        fail(&mut entry, &error);
        Some(entry)
    });
    match call.record(entries.collect()).await {
        Ok(_) if error.kind() == ErrorKind::PermissionDenied => refused(),
        Ok(_) => error,
        Err(unwritten) => unwritten,
    }
}

fn entry(call: &Call, item: &Item, asked: &ReadItem) -> Entry {
    // What is no reference is recorded as far as it could be one.
    let subject = match &item.reference {
        Some(reference) => reference.subject().to_owned(),
        None => asked
            .secret
            .chars()
            .take(keyhaul_core::reference::MAX_REFERENCE)
            .collect(),
    };
    let mut entry = call.entry(Some(subject));
    entry.node = Some(Arc::clone(&call.identity.name));
    if let Some(field) = &asked.field {
        let shown: String = field.chars().take(MAX_FIELD).collect();
        entry.term("field", serde_json::Value::from(shown));
    }
    match &item.step {
        Step::Read(permit, secret) => {
            let version = secret.metadata.version.as_ref();
            entry.version = version.map(|version| version.as_str().to_owned());
            entry.epoch = permit.epoch();
            entry.migration = permit.migration().map(str::to_owned);
        }
        Step::Failed(error) => {
            fail(&mut entry, error);
            if let Some(reason) = item.denied {
                entry.reason = Some(Cow::Borrowed(reason));
            }
        }
        Step::Permitted(_) => fail(&mut entry, &late()),
    }
    entry
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("one answer holds {} bytes of values", limit::ANSWER),
    )
    .with_advice("ask for this one alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_at_once_has_a_bound_whatever_the_store_takes() {
        assert_eq!(at_once(limit::VALUE), 8);
        assert_eq!(at_once(usize::MAX), 8);
        assert_eq!(at_once(0), 64);
        assert_eq!(at_once(64 * 1024), 64);
        assert_eq!(at_once(256 * 1024), 16);
    }
}
