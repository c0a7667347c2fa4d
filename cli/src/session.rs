//! What a command works with: the policy that holds, the backends, and a deadline.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::layers::{AuditSink, JsonLinesSink};
use keyhaul_core::policy::{self, Location};
use keyhaul_core::registry::Registry;
use keyhaul_core::resolver::Resolver;
use keyhaul_core::{Error, ErrorKind, Policy, Request, Result};
use keyhaul_plugin_host::PluginFactory;

use crate::failure::Outcome;
use crate::global::Global;
use crate::process;

/// A resolver by the policy that holds, and the runtime it runs on.
pub struct Session {
    pub resolver: Resolver,
    id: Arc<str>,
    actor: Arc<str>,
    patience: Duration,
    deadline: OnceCell<Option<Instant>>,
    // Taken when dropped, and at no other time.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Session {
    /// Reads the policy. Opens no store.
    pub fn open(global: &Global) -> Outcome<Self> {
        let policy = Policy::load(&location(global)?)?;
        // Made here, so that the words of -v and the audit have the same.
        let id = keyhaul_core::random::hex(8)?;
        tracing::info!(request = id, policy = policy.name, "policy read");
        let resolver = resolver(policy)?;
        let runtime = runtime()?;
        Ok(Self {
            resolver,
            id: id.into(),
            actor: actor().into(),
            patience: global.deadline,
            deadline: OnceCell::new(),
            runtime: Some(runtime),
        })
    }

    /// Who asks, and until when. The time runs from the first call on: a person who is asked for a
    /// value is not hurried.
    pub fn request(&self) -> Request {
        let deadline = self
            .deadline
            .get_or_init(|| Instant::now().checked_add(self.patience));
        Request::default()
            .id(Some(self.id.clone()))
            .actor(Some(self.actor.clone()))
            .deadline(*deadline)
    }

    /// Runs to the end what asks a server outside of the resolver, but not past the deadline.
    pub fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = self.request().deadline;
        self.wait(async {
            let Some(deadline) = deadline else {
                return work.await;
            };
            match tokio::time::timeout_at(deadline.into(), work).await {
                Ok(done) => done,
                Err(_) => Err(Error::new(ErrorKind::Timeout, "the deadline passed")
                    .with_advice("give it longer by --deadline")),
            }
        })
    }

    /// Runs to the end what asks the stores.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => unreachable!("the runtime is taken by drop alone"),
        }
    }
}

impl Drop for Session {
    /// Leaves behind what a store still blocks in: its time limit has passed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a command's stores run on.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    // One thread: a second one is started by a store that blocks, and only then.
    // It may still be ending when QEMU is started, and must take no signal then.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        // An epoll and an eventfd, for stores behind a socket.
        .enable_io()
        .on_thread_start(process::take_no_signals)
        .build();
    runtime.map_err(|error| Error::io("the async runtime", error))
}

/// A resolver by a policy, with its audit. Opens no store.
pub fn resolver(policy: Policy) -> Outcome<Resolver> {
    resolver_with(policy, PluginFactory::default())
}

/// The same, with what loads libraries.
pub fn resolver_with(policy: Policy, plugins: PluginFactory) -> Outcome<Resolver> {
    let audit = match &policy.audit {
        Some(path) => Some(Arc::new(JsonLinesSink::open(path)?) as Arc<dyn AuditSink>),
        None => None,
    };
    Ok(Resolver::new(policy, registry_with(plugins), audit)?)
}

/// Every backend that this program knows.
pub fn registry() -> Registry {
    registry_with(PluginFactory::default())
}

fn registry_with(plugins: PluginFactory) -> Registry {
    Registry::new()
        .with(keyhaul_file::FileFactory)
        .with(keyhaul_keyring::KeyringFactory)
        .with(plugins)
        .with(keyhaul_plugin_process::ProcessFactory)
        .with(keyhaul_remote::client::RemoteFactory)
        .with(keyhaul_vault::VaultFactory)
}

/// The policy that holds: the one that is named or found, or the embedded default.
pub fn location(global: &Global) -> Result<Location> {
    match policy::locate(global.config.as_deref()) {
        Some(location) => Ok(location),
        None => embedded_default(),
    }
}

/// One encrypted file store under the user's data folder that serves everything, so that the tool
/// works on a bare machine. The identity lies apart from the data, where a backup of the data does
/// not carry it along.
fn embedded_default() -> Result<Location> {
    let data = base_folder("XDG_DATA_HOME", ".local/share")?.join("keyhaul/secrets");
    let identity = base_folder("XDG_STATE_HOME", ".local/state")?.join("keyhaul/identity");
    let url = url::Url::from_file_path(&data).map_err(|()| {
        Error::new(
            ErrorKind::InvalidConfig,
            "the user's data folder is no absolute path",
        )
    })?;
    let identity = identity.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidConfig,
            "the user's state folder is not UTF-8",
        )
        .with_advice("write a policy file and name it by --config")
    })?;
    // What JSON writes as a string, TOML reads as one.
    let literal = |text: &str| serde_json::Value::from(text).to_string();
    let text = format!(
        "version = 1\n[stores.default]\nurl = {}\nidentity = {}\ncreate = true\n[[routes]]\nmatch = \"**\"\nstore = \"default\"\n",
        literal(url.as_str()),
        literal(&format!("file:{identity}")),
    );
    Ok(Location::Embedded {
        name: "the embedded default policy".to_owned(),
        text,
    })
}

/// One of the user's folders: that of `variable`, or the usual one below `$HOME`.
pub fn base_folder(variable: &str, under_home: &str) -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
    };
    set(variable)
        .or_else(|| set("HOME").map(|home| home.join(under_home)))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                "no policy file, and no $HOME for the default one",
            )
            .with_advice("name a policy by --config, or set HOME")
        })
}

/// Who asks, as the audit shows it. Who that was before sudo, only the environment could tell,
/// which anybody can set.
fn actor() -> String {
    let uid = rustix::process::getuid().as_raw();
    format!("uid:{uid}")
}
