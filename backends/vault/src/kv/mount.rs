//! Which engine is mounted where: declared, or asked of the server and remembered.

use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Request, Result};
use reqwest::Method;
use serde::Deserialize;
use tokio::sync::Mutex;

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
    known: Mutex<Option<Known>>,
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
            known: Mutex::new(known),
        }
    }

    /// Whether [`get`](Self::get) need not ask.
    pub(super) async fn is_known(&self) -> bool {
        self.known.lock().await.is_some()
    }

    /// The mount. Asks the server where it is not known yet; others wait for the same answer.
    ///
    /// # Errors
    /// `InvalidConfig` where what is mounted there is no such engine, `PermissionDenied` where the
    /// server says nothing of it.
    pub(super) async fn get(&self, wire: &Wire, request: &Request) -> Result<Mount> {
        let mut known = self.known.lock().await;
        if let Some(known) = &*known {
            return Ok(known.mount.clone());
        }
        let mount = self.ask(wire, request).await?;
        self.remember(&mut known, mount)
    }

    /// The same before a write, which a wrong declaration would put where nobody looks for it: the
    /// server is asked once whether it agrees, where it tells.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) async fn get_sure(&self, wire: &Wire, request: &Request) -> Result<Mount> {
        let mut known = self.known.lock().await;
        match &*known {
            Some(Known {
                mount,
                asked: Some(_),
            }) => Ok(mount.clone()),
            Some(Known { mount, asked: None }) => match self.ask(wire, request).await {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(mount.clone()),
                asked => self.remember(&mut known, asked?),
            },
            None => {
                let mount = self.ask(wire, request).await?;
                self.remember(&mut known, mount)
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
        let mut known = self.known.lock().await;
        let current = known.clone();
        if let Some(Known {
            mount,
            asked: Some(asked),
        }) = current
            && asked.elapsed() < BELIEVED
        {
            return Ok((mount != *used).then_some(mount));
        }
        match self.ask(wire, request).await {
            Ok(mount) => {
                let mount = self.remember(&mut known, mount)?;
                Ok((mount != *used).then_some(mount))
            }
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
        let mut known = self.known.lock().await;
        let mount = self.ask(wire, request).await?;
        self.remember(&mut known, mount).map(drop)
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
