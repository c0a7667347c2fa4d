//! Secrets on a lease: credentials that an engine makes for whoever reads.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream;
use keyhaul_core::{
    Capabilities, Capability, Error, ErrorKind, Field, GetOptions, Lease, Metadata, Request,
    Result, Secret, SecretBytes, SecretPath,
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::Probed;
use crate::config::Config;
use crate::http::{Answer, Call};
use crate::kv::{Fields, MAX_VALUE, ask_mount, not_root};
use crate::wire::Wire;

/// How many credentials are made at the same time.
const AT_ONCE: usize = 16;

const CAN: Capability = Capability::READ.union(Capability::FIELDS);

/// Any engine that answers a GET with a secret on a lease, as `database` does at `creds/ROLE`.
#[derive(Debug)]
pub(crate) struct Leased {
    wire: Wire,
    mount: String,
    field: Field,
}

/// What the server lends.
#[derive(Deserialize)]
struct Lent<'a> {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Leased {
    pub(crate) fn new(wire: Wire, config: &Config) -> Self {
        Self {
            wire,
            mount: config.mount.clone(),
            field: config.field.clone(),
        }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities::new(CAN, MAX_VALUE)
    }

    /// The error for what it cannot do: all but reading, and versions of that.
    pub(crate) fn refuse(&self, wanted: Capability) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "a leased engine makes its secrets itself, and lacks the capability {}",
                wanted.names().join(", ")
            ),
        )
    }

    /// Has a credential made. It lives until its lease ends.
    pub(crate) async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let answer = self.lend(path, options).await?;
        let lent: Lent<'_> = answer.json()?;
        let field = options.field.as_ref().unwrap_or(&self.field);
        match pick(&lent, field).unwrap_or_else(|| Err(answer.garbage())) {
            Ok(value) => Ok(Secret::new(value, metadata(&lent))),
            Err(error) => {
                // Nobody will use it, and whoever asks again has another made.
                self.take_leave(&lent, path, &options.request).await;
                Err(error)
            }
        }
    }

    /// Has one credential made for each path, however often it is asked for: user and password of
    /// one reading belong together.
    pub(crate) async fn get_many(
        &self,
        paths: &[SecretPath],
        options: &GetOptions,
    ) -> Vec<Result<Secret>> {
        let mut first: HashMap<&SecretPath, usize> = HashMap::new();
        let mut distinct = Vec::new();
        for path in paths {
            first.entry(path).or_insert_with(|| {
                distinct.push(path);
                distinct.len() - 1
            });
        }
        let asked: Vec<_> = distinct
            .iter()
            .map(|path| self.get(path, options))
            .collect();
        let made: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let copy = |path: &SecretPath| match first.get(path).and_then(|index| made.get(*index)) {
            Some(Ok(secret)) => {
                let value = SecretBytes::copy_from(secret.value.expose());
                Ok(Secret::new(value, secret.metadata.clone()))
            }
            Some(Err(error)) => Err(error.duplicate()),
            None => Err(Error::new(ErrorKind::Internal, "a path was not asked for")),
        };
        paths.iter().map(copy).collect()
    }

    /// What a lease of this secret is like. That takes a credential, which is given back at once.
    pub(crate) async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let answer = self.lend(path, options).await?;
        let lent: Lent<'_> = answer.json()?;
        self.take_leave(&lent, path, &options.request).await;
        Ok(metadata(&lent))
    }

    /// Reaches the server, logs in, and sees that an engine is there.
    pub(crate) async fn probe(&self) -> Result<()> {
        if self.wire.probe().await? == Probed::Unspent {
            return Ok(());
        }
        ask_mount(&self.wire, &Request::default(), &self.mount)
            .await
            .map(drop)
    }

    async fn lend(&self, path: &SecretPath, options: &GetOptions) -> Result<Answer> {
        if options.version.is_some() {
            return Err(self.refuse(Capability::VERSIONS));
        }
        not_root(path)?;
        let call = Call::new(Method::GET, format!("{}/{path}", self.mount));
        let answer = self.wire.send(&options.request, call, "read").await?;
        match answer.status {
            _ if answer.is_success() => Ok(answer),
            // Engines answer so for a role that they do not have.
            400 if !answer.errors().is_empty() => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the engine makes no such secret: {}",
                    answer.errors().join("; ")
                ),
            )
            .with_advice("check the role's name in the path, as in creds/ROLE")),
            404 if answer.is_absence() => Err(Error::new(
                ErrorKind::NotFound,
                "the engine has no such path",
            )),
            _ => Err(answer.refusal()),
        }
    }

    /// Gives a credential back that nobody uses.
    async fn take_leave(&self, lent: &Lent<'_>, path: &SecretPath, request: &Request) {
        if !lent.lease_id.is_empty()
            && let Err(error) = self.give_back(&lent.lease_id, request).await
        {
            // It ends by itself; to say nothing would leave a riddle in the database.
            tracing::warn!(%path, %error, "a credential that nobody uses could not be given back, and lives until its lease ends");
        }
    }

    async fn give_back(&self, lease: &str, request: &Request) -> Result<()> {
        let call = Call::new(Method::PUT, format!("sys/leases/revoke/{lease}"));
        let answer = self.wire.send(request, call, "update").await?;
        if answer.is_success() {
            Ok(())
        } else {
            Err(answer.refusal())
        }
    }
}

fn pick(lent: &Lent<'_>, field: &Field) -> Option<Result<SecretBytes>> {
    let map = lent.data?.get().as_bytes();
    Some(Fields::parse(map).and_then(|fields| {
        if field.is_all() {
            Ok(SecretBytes::copy_from(map))
        } else {
            fields.value(field, None)
        }
    }))
}

fn metadata(lent: &Lent<'_>) -> Metadata {
    let mut metadata = Metadata::default();
    // Without an id there is no lease, only an answer, as of `static-creds`.
    if !lent.lease_id.is_empty() {
        let duration = Duration::from_secs(lent.lease_duration);
        metadata.expires = SystemTime::now().checked_add(duration);
        metadata.lease = Some(Lease::new(&lent.lease_id, duration, lent.renewable));
    }
    metadata
}
