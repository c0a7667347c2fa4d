//! Which engine is mounted where: declared, or asked of the server and remembered.

use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Request, Result};
use reqwest::Method;
use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard};

use super::paths::{DATA, KvVersion, METADATA, Mount};
use crate::http::Answer;
use crate::wire::Wire;

/// How long an answer of the server is believed when a secret is not found: a mount can be replaced
/// while a store is open.
const BELIEVED: Duration = Duration::from_secs(60);

/// What a store knows of its mount.
#[derive(Debug)]
pub(super) struct Mounted {
    /// What the policy says it is.
    path: String,
    declared: Option<KvVersion>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// When asking failed last, and how: who waited for that answer has it, too.
    failed: Option<(Instant, Error)>,
}

#[derive(Clone, Debug)]
struct Known {
    mount: Mount,
    /// When the server said so; none where only the policy does.
    asked: Option<Instant>,
}

impl Mounted {
    pub(super) fn new(path: String, declared: Option<KvVersion>) -> Self {
        // With a part of the API at its end, only the server can say what the mount's name is.
        let sure = ![DATA, METADATA].iter().any(|part| ends_with(&path, part));
        let known = declared.filter(|_| sure).map(|version| Known {
            mount: Mount {
                path: path.clone(),
                version,
            },
            asked: None,
        });
        Self {
            path,
            declared,
            state: Mutex::new(State {
                known,
                failed: None,
            }),
        }
    }

    /// Whether [`get`](Self::get) need not ask.
    pub(super) async fn is_known(&self) -> bool {
        self.state.lock().await.known.is_some()
    }

    /// The mount. Asks the server where it is not known yet; others wait for the same answer.
    ///
    /// # Errors
    /// `InvalidConfig` where what is mounted there is no such engine, `PermissionDenied` where the
    /// server says nothing of it.
    pub(super) async fn get(&self, wire: &Wire, request: &Request) -> Result<Mount> {
        let entered = Instant::now();
        let mut state = self.turn(request).await?;
        if let Some(known) = &state.known {
            return Ok(known.mount.clone());
        }
        self.find_out(&mut state, wire, request, entered).await
    }

    /// The same before a write, which a wrong declaration would put where nobody looks for it: the
    /// server is asked once whether it agrees, where it tells.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) async fn get_sure(&self, wire: &Wire, request: &Request) -> Result<Mount> {
        let entered = Instant::now();
        let mut state = self.turn(request).await?;
        match state.known.clone() {
            Some(Known {
                mount,
                asked: Some(_),
            }) => Ok(mount),
            Some(Known { mount, asked: None }) => {
                match self.find_out(&mut state, wire, request, entered).await {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(mount),
                    asked => asked,
                }
            }
            None => self.find_out(&mut state, wire, request, entered).await,
        }
    }

    /// Waits until nobody else is asking.
    async fn turn(&self, request: &Request) -> Result<MutexGuard<'_, State>> {
        match request.deadline {
            None => Ok(self.state.lock().await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), self.state.lock())
                .await
                .map_err(|_| {
                    let message =
                        "the server did not say before the deadline what is mounted there";
                    Error::new(ErrorKind::Timeout, message)
                }),
        }
    }

    /// Asks, unless asking has failed since the caller `entered`: a hundred who wait for a server
    /// that stalls are not to wait a hundred times as long.
    async fn find_out(
        &self,
        state: &mut State,
        wire: &Wire,
        request: &Request,
        entered: Instant,
    ) -> Result<Mount> {
        if let Some((at, error)) = &state.failed
            && entered <= *at
        {
            return Err(error.duplicate());
        }
        match self.ask(wire, request).await {
            Ok(mount) => self.remember(&mut state.known, mount),
            Err(error) => {
                // Who has less time than others says nothing about the server.
                if request.deadline.is_none() || error.kind() != ErrorKind::Timeout {
                    state.failed = Some((Instant::now(), error.duplicate()));
                }
                Err(error)
            }
        }
    }

    /// Asks again, after an answer that a wrong version explains as well as an absent secret does.
    /// The mount, where it is another than the one `used`.
    ///
    /// # Errors
    /// `InvalidConfig` where the server contradicts the policy.
    pub(super) async fn recheck(
        &self,
        wire: &Wire,
        request: &Request,
        used: &Mount,
    ) -> Result<Option<Mount>> {
        let entered = Instant::now();
        let mut state = self.turn(request).await?;
        let current = state.known.clone();
        if let Some(Known {
            mount,
            asked: Some(asked),
        }) = current
            && asked.elapsed() < BELIEVED
        {
            return Ok((mount != *used).then_some(mount));
        }
        match self.find_out(&mut state, wire, request, entered).await {
            Ok(mount) => Ok((mount != *used).then_some(mount)),
            Err(error) if error.kind() == ErrorKind::InvalidConfig => Err(error),
            // It was about a secret that is not there, and that is still so.
            Err(_) => Ok(None),
        }
    }

    /// Asks the server afresh, whatever is known.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) async fn probe(&self, wire: &Wire, request: &Request) -> Result<()> {
        let mut state = self.turn(request).await?;
        let mount = self.ask(wire, request).await?;
        self.remember(&mut state.known, mount).map(drop)
    }

    fn remember(&self, known: &mut Option<Known>, mount: Mount) -> Result<Mount> {
        if let Some(declared) = self.declared
            && declared != mount.version
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "`{}` is KV version {}, and the policy says {}",
                    mount.path,
                    mount.version.name(),
                    declared.name()
                ),
            )
            .with_advice(format!(
                "set kv-version = \"{}\", or leave it out",
                mount.version.name()
            )));
        }
        *known = Some(Known {
            mount: mount.clone(),
            asked: Some(Instant::now()),
        });
        Ok(mount)
    }

    async fn ask(&self, wire: &Wire, request: &Request) -> Result<Mount> {
        let answer = ask(wire, request, &self.path).await?;
        let about: Wrapped = answer.json()?;
        let Data {
            path,
            kind,
            options,
        } = about.data;
        let path = path.trim_matches('/').to_owned();
        if !matches!(kind.as_str(), "kv" | "generic") {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("what is mounted at `{path}` is `{kind}`, and no key-value engine"),
            )
            .with_advice("name the mount of a kv engine, or set engine = \"leased\" for credentials made at each reading"));
        }
        let version = options.and_then(|options| options.version);
        let version = match version.as_deref() {
            Some("2") => KvVersion::Two,
            _ => KvVersion::One,
        };
        // People copy the API's path: `secret/data` is the mount `secret`.
        let rest = self
            .path
            .strip_prefix(&path)
            .unwrap_or(&self.path)
            .trim_start_matches('/');
        let is_part = version == KvVersion::Two && [DATA, METADATA].contains(&rest);
        if !rest.is_empty() && !is_part {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the engine is mounted at `{path}`, not at `{}`", self.path),
            )
            .with_advice(format!(
                "end the store's url in `{path}`, and begin the routes' `path` with `{rest}/`"
            )));
        }
        Ok(Mount { path, version })
    }
}

/// Asks what is mounted at `path` or above it: a question that needs no right but some right below it.
///
/// # Errors
/// `PermissionDenied` where the server does not tell, as for a path where nothing is mounted.
pub(crate) async fn ask(wire: &Wire, request: &Request, path: &str) -> Result<Answer> {
    let call = crate::http::Call::new(Method::GET, format!("sys/internal/ui/mounts/{path}"));
    let answer = wire.ask(request, call).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::PermissionDenied,
            format!("nothing is mounted at `{path}`, or the token's policies allow nothing below it"),
        )
        .with_advice("check the mount, the namespace and the token's policies; where the question itself is forbidden, declare `kv-version`")
    })?;
    if answer.is_success() {
        Ok(answer)
    } else {
        Err(answer.refusal())
    }
}

fn ends_with(path: &str, part: &str) -> bool {
    path.strip_suffix(part)
        .is_some_and(|rest| rest.ends_with('/'))
}

#[derive(Deserialize)]
struct Wrapped {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    version: Option<String>,
}
