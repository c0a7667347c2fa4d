//! The key service as a store.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use jiff::Timestamp;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, Field, GetOptions,
    ListOptions, Metadata, Page, PutMode, PutOptions, Recipe, Reference, Request, Result, Secret,
    SecretBytes, SecretPath, SecretStore, StoreConfig, Version,
};

use super::Service;
use super::call::Call;
use super::pool::{Pool, Repeat};
use super::reading::Sealing;
use super::service::send;
use super::wire::{self, Answered, Failure};
use crate::protocol::{
    AlphabetBody, DeleteAnswer, DeleteRequest, GenerateRequest, ListAnswer, Mode, Outcome,
    ReadItem, ServiceAnswer, Stat, StatAnswer, StatRequest, limit, path,
};

/// A key service's secrets. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct RemoteStore(pub(super) Arc<Inner>);

pub(super) struct Inner {
    descriptor: Descriptor,
    pub(super) pool: Arc<Pool>,
    pub(super) sealing: Mutex<Sealing>,
    /// Whether the service knows a repeated write again.
    pub(super) idempotent: OnceLock<bool>,
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

    pub(super) async fn service(&self, request: &Request) -> Result<ServiceAnswer> {
        let call = Call::get(path::SERVICE, request);
        send(&self.0.pool, &call, request, Repeat::Safe).await
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
        let call = &call;
        self.0
            .pool
            .run(&options.request, Repeat::Safe, |link, until| async move {
                let Answered { body, id } = link.exchange::<StatAnswer>(call, until).await?;
                match body.items.into_iter().next() {
                    Some(Outcome::Done(Stat { metadata })) => {
                        metadata.metadata().map_err(Failure::never)
                    }
                    Some(Outcome::Problem { problem }) => {
                        Err(Failure::said(link.told(problem, id.as_deref())))
                    }
                    None => Err(Failure::never(link.foreign("no answer to an item"))),
                }
            })
            .await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let subject = subject(path)?;
        if value.len() > limit::VALUE {
            return Err(self.too_large(options).await);
        }
        let (subject, shown_by) = (subject.as_str(), format!("keyhaul stat {subject}"));
        let repeat = match self.is_repeatable(options).await? {
            true => Repeat::Safe,
            false => Repeat::Never {
                shown_by: &shown_by,
            },
        };
        let stat = self
            .0
            .pool
            .run(&options.request, repeat, |link, until| async move {
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
            // Who names a mode that replaces has said so: `generate --overwrite` is force enough.
            force: options.mode != PutMode::Create,
        };
        let call =
            Call::post(path::GENERATE, &body, &options.request)?.idempotency(options.idempotency);
        let shown_by = format!("keyhaul stat {}", body.secret);
        let repeat = match self.is_repeatable(options).await? {
            true => Repeat::Safe,
            false => Repeat::Never {
                shown_by: &shown_by,
            },
        };
        let stat: Stat = send(&self.0.pool, &call, &options.request, repeat).await?;
        stat.metadata.metadata()
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let body = DeleteRequest {
            secret: subject(path)?,
            version: options.version.as_ref().map(Version::to_string),
            force: options.force,
        };
        let call = Call::post(path::DELETE, &body, &options.request)?;
        let shown_by = format!("keyhaul stat {}", body.secret);
        let repeat = Repeat::Never {
            shown_by: &shown_by,
        };
        let answer: DeleteAnswer = send(&self.0.pool, &call, &options.request, repeat).await?;
        let until = answer.restorable_until.map(SystemTime::from);
        options.remains.tell(until);
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
        let answer: ListAnswer = send(&self.0.pool, &call, &options.request, Repeat::Safe).await?;
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

pub(super) fn mode(mode: &PutMode) -> Result<(Mode, Option<String>)> {
    Mode::of(mode).ok_or_else(|| unsupported("this mode of writing"))
}

pub(super) fn text(field: &Field) -> String {
    field.as_str().to_owned()
}

pub(super) fn timestamp(time: SystemTime) -> Result<Timestamp> {
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
