//! The key service as a store.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use base64ct::{Base64, Encoding as _};
use jiff::Timestamp;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, Field, GetOptions,
    ListOptions, Metadata, Page, PutMode, PutOptions, Recipe, Reference, Request, Result, Secret,
    SecretBytes, SecretPath, SecretStore, StoreConfig, Version, random,
};

use super::Service;
use super::pool::Pool;
use super::service::send;
use super::wire::{self, Call, Failure, Link, Writing};
use crate::protocol::seal::{Binding, Purpose, Receiver, Recipient};
use crate::protocol::{
    AlphabetBody, DeleteAnswer, DeleteRequest, GenerateRequest, ListAnswer, Mode, Outcome,
    ReadAnswer, ReadItem, ReadRequest, SealedValue, ServiceAnswer, Stat, StatAnswer, StatRequest,
    WriteRequest, limit, path,
};

/// How many servers' keys are kept agreed on: one for each connection that they have with us.
const RECEIVERS: usize = 64;

/// A key service's secrets. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct RemoteStore(Arc<Inner>);

struct Inner {
    descriptor: Descriptor,
    pool: Arc<Pool>,
    sealing: Mutex<Sealing>,
    /// Whether the service knows a repeated write again.
    idempotent: OnceLock<bool>,
}

/// What answers are opened with.
#[derive(Default)]
struct Sealing {
    /// Our key, made for the first read.
    recipient: Option<Arc<Recipient>>,
    /// Agreements by their `enc`, the one used last at the end.
    receivers: VecDeque<(String, Arc<Receiver>)>,
}

impl RemoteStore {
    /// The store of a policy. Does no I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        Ok(Service::open(config)?.store())
    }

    pub(super) fn of(descriptor: Descriptor, pool: Arc<Pool>) -> Self {
        Self(Arc::new(Inner {
            descriptor,
            pool,
            sealing: Mutex::default(),
            idempotent: OnceLock::new(),
        }))
    }

    async fn service(&self, request: &Request) -> Result<ServiceAnswer> {
        let call = Call::get(path::SERVICE, request);
        send(&self.0.pool, &call, request, true).await
    }

    /// Whether a write whose answer was lost can be made again at another server: where there is
    /// one, and the service knows the write again by its id.
    async fn is_repeatable(&self, options: &PutOptions) -> Result<bool> {
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

    /// Reads `items`, at most [`limit::BATCH`], in one request.
    async fn read(&self, items: &[ReadItem], request: &Request) -> Result<Vec<Result<Secret>>> {
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
            .run(request, true, |link, until| async move {
                let answer: ReadAnswer = link.send(call, until).await?;
                self.opened(&link, recipient, body, answer)
                    .map_err(Failure::never)
            })
            .await
    }

    fn opened(
        &self,
        link: &Link,
        recipient: &Recipient,
        asked: &ReadRequest,
        answer: ReadAnswer,
    ) -> Result<Vec<Result<Secret>>> {
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
            Outcome::Problem { problem } => Err(problem.error()),
            Outcome::Done(sealed) => open(index, item, sealed),
        });
        Ok(opened.collect())
    }

    /// Reads `items` in as few requests as they need.
    async fn read_all(&self, items: &[ReadItem], request: &Request) -> Vec<Result<Secret>> {
        let mut answers = Vec::with_capacity(items.len());
        for batch in items.chunks(limit::BATCH) {
            match self.read(batch, request).await {
                Err(error) => answers.extend(batch.iter().map(|_| Err(error.duplicate()))),
                Ok(answered) => {
                    for (item, answer) in batch.iter().zip(answered) {
                        answers.push(self.alone(batch, item, answer, request).await);
                    }
                }
            }
        }
        answers
    }

    /// `answer`, or where there was no room for it among others, what is answered to it alone.
    async fn alone(
        &self,
        batch: &[ReadItem],
        item: &ReadItem,
        answer: Result<Secret>,
        request: &Request,
    ) -> Result<Secret> {
        let crowded = |error: &Error| error.kind() == ErrorKind::TooLarge && batch.len() > 1;
        if !answer.as_ref().is_err_and(crowded) {
            return answer;
        }
        let mut alone = self.read(std::slice::from_ref(item), request).await?;
        alone.pop().unwrap_or(answer)
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

    /// Writes to one server: sealed to its key, and once more where it has another by now.
    async fn write(
        &self,
        link: &Link,
        subject: &str,
        value: &SecretBytes,
        options: &PutOptions,
        until: Instant,
    ) -> Result<Stat, Failure> {
        let request = &options.request;
        let writing = link.writing(request, until).await?;
        let failure = match self
            .write_to(link, &writing, subject, value, options, until)
            .await
        {
            Err(failure) if failure.error.kind() == ErrorKind::Conflict => failure,
            other => return other,
        };
        // About the key, or about the version: the server's key tells.
        match link.rewriting(&writing, request, until).await? {
            Some(writing) => {
                self.write_to(link, &writing, subject, value, options, until)
                    .await
            }
            None => Err(failure),
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

#[async_trait]
impl SecretStore for RemoteStore {
    fn descriptor(&self) -> &Descriptor {
        &self.0.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let answer = self.service(&Request::default()).await?;
        let mut can = wire::capabilities(&answer);
        // Whoever makes a value there, it is not made here.
        can.set(
            Capability::GENERATES_REMOTELY,
            can.contains(Capability::GENERATE),
        );
        Ok(Capabilities::new(can, answer.max_value.min(limit::VALUE)))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let item = item(path, options)?;
        let mut answers = self
            .read(std::slice::from_ref(&item), &options.request)
            .await?;
        // There are as many answers as items.
        answers.pop().unwrap_or_else(|| Err(internal()))
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let items: Vec<Result<ReadItem>> = paths.iter().map(|path| item(path, options)).collect();
        let fit: Vec<ReadItem> = items
            .iter()
            .filter_map(|item| item.as_ref().ok())
            .cloned()
            .collect();
        let mut answers = self.read_all(&fit, &options.request).await.into_iter();
        let answered = |item: Result<ReadItem>| {
            item.and_then(|_| answers.next().unwrap_or_else(|| Err(internal())))
        };
        items.into_iter().map(answered).collect()
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let items = vec![item(path, options)?];
        let call = Call::post(path::STAT, &StatRequest { items }, &options.request)?;
        let answer: StatAnswer = send(&self.0.pool, &call, &options.request, true).await?;
        match answer.items.into_iter().next() {
            Some(Outcome::Done(Stat { metadata })) => metadata.metadata(),
            Some(Outcome::Problem { problem }) => Err(problem.error()),
            None => Err(Error::new(
                ErrorKind::Corrupt,
                "the key service gave no answer to an item",
            )),
        }
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let subject = subject(path)?;
        if value.len() > limit::VALUE {
            let rule = format!(
                "a key service takes values of at most {} bytes",
                limit::VALUE
            );
            return Err(Error::new(ErrorKind::TooLarge, rule));
        }
        let (subject, repeatable) = (subject.as_str(), self.is_repeatable(options).await?);
        let stat = self
            .0
            .pool
            .run(&options.request, repeatable, |link, until| async move {
                self.write(&link, subject, value, options, until).await
            })
            .await?;
        stat.metadata.metadata()
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let (mode, expect) = mode(&options.mode)?;
        let body = GenerateRequest {
            secret: subject(path)?,
            alphabet: AlphabetBody::of(recipe)
                .ok_or_else(|| unsupported("this recipe's alphabet"))?,
            length: recipe.length(),
            mode,
            expect,
            field: options.field.as_ref().map(text),
            labels: options.labels.clone(),
            expires: options.expires.map(timestamp).transpose()?,
        };
        let call =
            Call::post(path::GENERATE, &body, &options.request)?.idempotency(options.idempotency);
        let repeatable = self.is_repeatable(options).await?;
        let stat: Stat = send(&self.0.pool, &call, &options.request, repeatable).await?;
        stat.metadata.metadata()
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let body = DeleteRequest {
            secret: subject(path)?,
            version: options.version.as_ref().map(Version::to_string),
            force: options.force,
        };
        let call = Call::post(path::DELETE, &body, &options.request)?;
        let _: DeleteAnswer = send(&self.0.pool, &call, &options.request, true).await?;
        Ok(())
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        check_prefix(prefix)?;
        // More than a page has is no mistake: the service may give fewer.
        let most = options.limit.map(|most| most.min(limit::PAGE).to_string());
        let call = Call::get(path::SECRETS, &options.request)
            .query(
                "prefix",
                Some(prefix.as_str()).filter(|_| !prefix.is_root()),
            )
            .query("shallow", options.shallow.then_some("true"))
            .query("limit", most.as_deref())
            .query("after", options.after.as_deref());
        let answer: ListAnswer = send(&self.0.pool, &call, &options.request, true).await?;
        Ok(Page::new(
            paths(answer.secrets)?,
            paths(answer.folders)?,
            answer.next,
        ))
    }

    async fn probe(&self) -> Result<()> {
        self.service(&Request::default()).await.map(drop)
    }
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteStore({})", self.0.descriptor)
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

fn item(path: &SecretPath, options: &GetOptions) -> Result<ReadItem> {
    Ok(ReadItem {
        secret: subject(path)?,
        version: options.version.as_ref().map(Version::to_string),
        field: options.field.as_ref().map(text),
        expired: options.expired,
    })
}

/// `SCOPE/NAME`, and nothing else.
fn subject(path: &SecretPath) -> Result<String> {
    let text = path.as_str();
    let reference = Reference::parse(text)?;
    if reference.subject() != text {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "a path in a key service is SCOPE/NAME, without version and field",
        ));
    }
    Ok(text.to_owned())
}

/// What could have secrets below it, or be one.
fn check_prefix(prefix: &SecretPath) -> Result<()> {
    if prefix.is_root() || subject(prefix).is_ok() {
        return Ok(());
    }
    // A scope, which is no reference by itself.
    subject(&prefix.join("name")?).map(drop)
}

fn paths(names: Vec<String>) -> Result<Vec<SecretPath>> {
    let path = |name| {
        SecretPath::new(name).map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "the key service lists a name that is none",
            )
        })
    };
    names.into_iter().map(path).collect()
}

fn mode(mode: &PutMode) -> Result<(Mode, Option<String>)> {
    Mode::of(mode).ok_or_else(|| unsupported("this mode of writing"))
}

fn text(field: &Field) -> String {
    field.as_str().to_owned()
}

fn timestamp(time: SystemTime) -> Result<Timestamp> {
    Timestamp::try_from(time).map_err(|_| {
        Error::new(
            ErrorKind::InvalidReference,
            "a secret expires within the years that a calendar has",
        )
    })
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("a key service has no word for {what}"),
    )
}

fn internal() -> Error {
    Error::new(ErrorKind::Internal, "a read without an answer")
}
