//! Reading: many at once, opened where they are bound to what was asked.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

use base64ct::{Base64, Encoding as _};
use keyhaul_core::{Error, ErrorKind, Request, Result, Secret, random};

use super::RemoteStore;
use super::call::Call;
use super::pool::Repeat;
use super::wire::{Answered, Failure, Link, passes};
use crate::protocol::seal::{Binding, Purpose, Receiver, Recipient};
use crate::protocol::{Outcome, ReadAnswer, ReadItem, ReadRequest, SealedValue, limit, path};

/// How many servers' keys are kept agreed on: one for each connection that they have with us.
const RECEIVERS: usize = 64;

/// What answers are opened with.
#[derive(Default)]
pub(super) struct Sealing {
    /// Our key, made for the first read.
    recipient: Option<Arc<Recipient>>,
    /// Agreements by their `enc`, the one used last at the end.
    receivers: VecDeque<(String, Arc<Receiver>)>,
}

impl RemoteStore {
    /// Reads `items`, at most [`limit::BATCH`], in one request.
    pub(super) async fn read(
        &self,
        items: &[ReadItem],
        request: &Request,
    ) -> Result<Vec<Result<Secret>>> {
        let recipient = self.recipient()?;
        let mut nonce = [0; 16];
        random::fill(&mut nonce)?;
        let body = ReadRequest {
            key: recipient.public().to_owned(),
            nonce: Base64::encode_string(&nonce),
            items: items.to_vec(),
        };
        let call = Call::post(path::READ, &body, request)?;
        let (call, body, recipient) = (&call, &body, &recipient);
        self.0
            .pool
            .run(request, Repeat::Safe, |link, until| async move {
                let answer = link.exchange(call, until).await?;
                let items = self
                    .opened(&link, recipient, body, answer)
                    .map_err(Failure::never)?;
                match self.cannot_serve(&items) {
                    Some(error) => Err(Failure::said(error)),
                    None => Ok(items),
                }
            })
            .await
    }

    fn opened(
        &self,
        link: &Link,
        recipient: &Recipient,
        asked: &ReadRequest,
        answer: Answered<ReadAnswer>,
    ) -> Result<Vec<Result<Secret>>> {
        let Answered { body: answer, id } = answer;
        if answer.items.len() != asked.items.len() {
            return Err(link.foreign("more or fewer answers than were asked for"));
        }
        let opener = self
            .receiver(recipient, &answer.enc)?
            .opener(Purpose::Read, &answer.salt)?;
        let open = |index: usize, item: &ReadItem, sealed: SealedValue| {
            let binding = Binding {
                client: &link.identity.certificate,
                nonce: &asked.nonce,
                secret: &item.secret,
                version: item.version.as_deref(),
                field: item.field.as_deref(),
            };
            let value = opener.open(&binding, index, &sealed.value)?;
            Ok(Secret::new(value, sealed.metadata.metadata()?))
        };
        let pairs = asked.items.iter().zip(answer.items).enumerate();
        let opened = pairs.map(|(index, (item, outcome))| match outcome {
            Outcome::Problem { problem } => Err(link.told(problem, id.as_deref())),
            Outcome::Done(sealed) => open(index, item, sealed),
        });
        Ok(opened.collect())
    }

    /// What to say of a server that has nothing of what it was asked for, since its store cannot
    /// serve now: another may. One word of any other kind is a decision, and stands.
    pub(super) fn cannot_serve<T>(&self, items: &[Result<T>]) -> Option<Error> {
        let all = |item: &Result<T>| item.as_ref().is_err_and(passes);
        if !self.0.pool.has_others() || !items.iter().all(all) {
            return None;
        }
        let mut errors = items.iter().filter_map(|item| item.as_ref().err());
        errors.next().map(Error::duplicate)
    }

    /// Reads `items` in as few requests as they need: what had no room among many is asked for among
    /// few, which always fit, and at last alone.
    pub(super) async fn read_all(
        &self,
        items: &[ReadItem],
        request: &Request,
    ) -> Vec<Result<Secret>> {
        let mut answers: Vec<Option<Result<Secret>>> = items.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..items.len()).collect();
        for most in [limit::BATCH, limit::ANSWER / limit::VALUE, 1] {
            let mut crowded = Vec::new();
            for places in left.chunks(most) {
                let batch: Vec<ReadItem> = places.iter().map(|at| items[*at].clone()).collect();
                let answered = match self.read(&batch, request).await {
                    Ok(answered) => answered,
                    Err(error) => batch.iter().map(|_| Err(error.duplicate())).collect(),
                };
                for (at, answer) in places.iter().zip(answered) {
                    let too_large = |error: &Error| error.kind() == ErrorKind::TooLarge;
                    if places.len() > 1 && answer.as_ref().is_err_and(too_large) {
                        crowded.push(*at);
                    }
                    answers[*at] = Some(answer);
                }
            }
            left = crowded;
        }
        // Each place was in one batch of the first round, and a batch has as many answers as items.
        let nothing = || Err(Error::new(ErrorKind::Internal, "a read without an answer"));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(nothing))
            .collect()
    }

    /// The key that answers are sealed to: one for the life of this store.
    fn recipient(&self) -> Result<Arc<Recipient>> {
        let mut sealing = self.sealing();
        if let Some(recipient) = &sealing.recipient {
            return Ok(Arc::clone(recipient));
        }
        let made = Arc::new(Recipient::new()?);
        sealing.recipient = Some(Arc::clone(&made));
        Ok(made)
    }

    /// What opens the answers under `enc`. A server keeps to one for a connection.
    fn receiver(&self, recipient: &Recipient, enc: &str) -> Result<Arc<Receiver>> {
        let mut sealing = self.sealing();
        let known = sealing.receivers.iter().position(|(known, _)| known == enc);
        let entry = match known.and_then(|index| sealing.receivers.remove(index)) {
            Some(entry) => entry,
            None => (enc.to_owned(), Arc::new(recipient.meet(enc)?)),
        };
        let receiver = Arc::clone(&entry.1);
        sealing.receivers.push_back(entry);
        if sealing.receivers.len() > RECEIVERS {
            sealing.receivers.pop_front();
        }
        Ok(receiver)
    }

    fn sealing(&self) -> MutexGuard<'_, Sealing> {
        self.0
            .sealing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
