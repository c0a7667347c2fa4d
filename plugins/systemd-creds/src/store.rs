//! The contract, over files and a program.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutMode, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    SecretStore, SecretStoreExt as _, StoreConfig, law, page, wiping_stack,
};
use rustix::fs::Access;
use rustix::io::Errno;
use tokio::sync::Semaphore;

use crate::config::{SCHEME, Settings};
use crate::envelope::SealedTo;
use crate::error::{absent, internal};
use crate::folder::Folder;
use crate::program::{Ended, Program};
use crate::{MAX_VALUE, PROGRAMS, envelope, names};

const CAN: Capability = Capability::READ
    .union(Capability::WRITE)
    .union(Capability::CREATE)
    .union(Capability::DELETE)
    .union(Capability::LIST)
    .union(Capability::GENERATE);

/// The most that systemd encrypts: others may have written more than the store does.
const LARGEST: usize = 1024 * 1024;
/// The most that a credential of this store's takes, encrypted and in Base64.
const LARGEST_SEALED: usize = MAX_VALUE * 2;
/// How long a run of the program may take: a TPM can be slow, and busy.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a request waits for its turn: those before it end by the limit, unless the kernel itself
/// holds them.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where systemd keeps the host's key.
const HOST_KEY: &str = "/var/lib/systemd/credential.secret";

/// A store of credentials encrypted by `systemd-creds`.
///
/// Needs a tokio runtime. Files and programs are waited for on threads of their own; an abandoned
/// write ends with the old value or the new one.
pub struct SystemdCredsStore {
    descriptor: Descriptor,
    engine: Arc<Engine>,
    threads: Arc<Semaphore>,
}

/// What the store does, one step after the other.
#[derive(Debug)]
struct Engine {
    settings: Settings,
    program: Program,
}

impl SystemdCredsStore {
    /// Opens a store. Does no I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        let location = format!("{SCHEME}:{}", settings.folder.display());
        let program = Program::new(settings.program.clone(), LIMIT);
        Ok(Self {
            descriptor: Descriptor::new(&config.name, SCHEME, location),
            engine: Arc::new(Engine { settings, program }),
            threads: Arc::new(Semaphore::new(PROGRAMS as usize)),
        })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.threads).acquire_owned();
        let turn = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "all of the store's programs are at work and none comes to its end",
            )
            .with_advice("see whether systemd-creds answers when it is run by hand")
        })?;
        let turn = turn.map_err(|_| internal("the store's threads are closed"))?;
        let engine = Arc::clone(&self.engine);
        let work = move || {
            let _turn = turn;
            wiping_stack(|| work(&engine))
        };
        let done = tokio::task::spawn_blocking(work).await;
        // What a panic said stays out: it could be anything.
        done.unwrap_or_else(|_| Err(internal("the store's thread ended early")))
    }
}

impl Engine {
    fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let name = names::name(path)?;
        let folder = self.folder()?.ok_or_else(absent)?;
        let sealed = folder.read(&name)?.ok_or_else(absent)?;
        let sealed_to = envelope::sealed_to(&sealed.bytes)?;
        let deadline = options.request.deadline;
        let value = match self.decrypt(&name, None, &sealed.bytes, deadline)? {
            Ended::Well(value) => value,
            Ended::Badly(said) => {
                // Its exit status does not say why. At the beginning of time nothing has expired.
                match self.decrypt(&name, Some("--timestamp=@0"), &sealed.bytes, deadline)? {
                    Ended::Well(value) if options.expired => value,
                    Ended::Well(_) => {
                        return Err(Error::new(ErrorKind::NotFound, "the secret has expired")
                            .with_advice("write it anew, or ask for it although it has expired"));
                    }
                    Ended::Badly(_) => return Err(self.not_opened(&name, sealed_to, said)),
                }
            }
        };
        Ok(Secret::new(value, metadata(sealed.written)))
    }

    fn stat(&self, path: &SecretPath) -> Result<Metadata> {
        let name = names::name(path)?;
        let folder = self.folder()?.ok_or_else(absent)?;
        folder.stat(&name)?.map(metadata).ok_or_else(absent)
    }

    fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::not_root(path)?;
        let name = names::name(path)?;
        let folder = match self.folder()? {
            Some(folder) => folder,
            None => Folder::make(&self.settings.folder)?,
        };
        let only_new = options.mode == PutMode::Create;
        if only_new && folder.stat(&name)?.is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "there is such a secret already",
            ));
        }
        let named = format!("--name={name}");
        let key = format!("--with-key={}", self.settings.key);
        let ended = self.program.run(
            &["encrypt", &named, &key, "-", "-"],
            value.expose(),
            LARGEST_SEALED,
            options.request.deadline,
        )?;
        let sealed = match ended {
            Ended::Well(sealed) => sealed,
            Ended::Badly(said) => return Err(self.not_sealed(said)),
        };
        // What this store would not read, it does not write.
        envelope::sealed_to(sealed.expose())?;
        folder.write(&name, sealed.expose(), only_new)?;
        Ok(metadata(folder.stat(&name)?.flatten()))
    }

    fn delete(&self, path: &SecretPath) -> Result<()> {
        law::not_root(path)?;
        let name = names::name(path)?;
        match self.folder()? {
            Some(folder) => folder.remove(&name),
            None => Ok(()),
        }
    }

    fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let Some(folder) = self.folder()? else {
            return Ok(Page::default());
        };
        let names = folder.names()?;
        page::of(
            names.iter().filter_map(|name| names::path(name)),
            prefix,
            options,
        )
    }

    /// The program is there and answers, and the folder is there.
    fn probe(&self) -> Result<()> {
        self.folder()?;
        match self.program.run(&["--version"], b"", LARGEST, None)? {
            Ended::Well(_) => Ok(()),
            Ended::Badly(said) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{} does not work", self.settings.program.display()),
            )
            .with_source(said)),
        }
    }

    fn decrypt(
        &self,
        name: &str,
        time: Option<&str>,
        sealed: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Ended> {
        let named = format!("--name={name}");
        let mut arguments = vec!["decrypt", &named, "--newline=no"];
        arguments.extend(time);
        arguments.extend(["-", "-"]);
        self.program.run(&arguments, sealed, LARGEST, deadline)
    }

    /// The folder; none where it has not been made and need not be.
    fn folder(&self) -> Result<Option<Folder>> {
        let path = &self.settings.folder;
        match Folder::open(path)? {
            None if !self.settings.create => Err(Error::new(
                ErrorKind::Unavailable,
                format!("there is no folder {}", path.display()),
            )
            .with_advice(format!(
                "mount what it lies on, or make it: install -d -m 0700 {}; `create = true` makes it with the first write",
                path.display()
            ))),
            folder => Ok(folder),
        }
    }

    fn not_opened(&self, name: &str, sealed_to: SealedTo, said: String) -> Error {
        let error = if sealed_to.needs_host_key()
            && let Some(error) = no_host_key()
        {
            error
        } else if sealed_to.needs_tpm2() && !self.has_tpm2() {
            Error::new(
                ErrorKind::Unavailable,
                format!("the credential {name} is sealed to a TPM2, and this machine has none that systemd can use"),
            )
            .with_advice("`systemd-creds has-tpm2` says what is missing: firmware, driver or libraries")
        } else {
            self.damaged(name, sealed_to)
        };
        error.with_source(said)
    }

    fn damaged(&self, name: &str, sealed_to: SealedTo) -> Error {
        let program = self.settings.program.display();
        let advice = if sealed_to.needs_tpm2() {
            "it is sealed to a state of this machine's TPM2, which firmware or Secure Boot's keys may have changed, or it was encrypted on another host, or is damaged: restore it from a backup, or set the secret anew"
        } else {
            "it was encrypted on another host, or for another name, or is damaged: restore it from a backup, or set the secret anew"
        };
        Error::new(
            ErrorKind::Corrupt,
            format!("{program} does not open the credential {name}"),
        )
        .with_advice(advice)
    }

    fn has_tpm2(&self) -> bool {
        let asked = self
            .program
            .run(&["has-tpm2", "--quiet"], b"", LARGEST, None);
        matches!(asked, Ok(Ended::Well(_)))
    }

    fn not_sealed(&self, said: String) -> Error {
        // Where there is no host's key, the program makes one: that is no reason.
        no_right_to_the_key()
            .unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("{} encrypts nothing", self.settings.program.display()),
                )
                .with_advice("what it says stands below; `key` chooses what it seals to")
            })
            .with_source(said)
    }
}

/// Why what is sealed to the host's key does not open, where that is the key's fault.
fn no_host_key() -> Option<Error> {
    match rustix::fs::access(HOST_KEY, Access::EXISTS) {
        Err(Errno::NOENT) => Some(
            Error::new(
                ErrorKind::Unavailable,
                format!("this host has no key for credentials: {HOST_KEY} is not there"),
            )
            .with_advice(format!(
                "if /var is not mounted yet, mount it; if the host was set up anew, restore {HOST_KEY} from a backup, or set the secrets anew"
            )),
        ),
        _ => no_right_to_the_key(),
    }
}

/// The likeliest reason for whoever is not root.
fn no_right_to_the_key() -> Option<Error> {
    let denied = rustix::fs::access(HOST_KEY, Access::READ_OK) == Err(Errno::ACCESS);
    denied.then(|| {
        Error::new(
            ErrorKind::PermissionDenied,
            "only root may use this host's key for credentials",
        )
        .with_advice("run keyhaul as root; from version 256 on, systemd can do it for others")
    })
}

impl fmt::Debug for SystemdCredsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemdCredsStore({})", self.descriptor)
    }
}

#[async_trait]
impl SecretStore for SystemdCredsStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(CAN, MAX_VALUE))
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        let (path, options) = (path.clone(), options.clone());
        self.on_thread(move |engine| engine.get(&path, &options))
            .await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        self.get_each(paths, options, PROGRAMS as usize).await
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        law::need(CAN, law::to_get(options))?;
        law::not_root(path)?;
        let path = path.clone();
        self.on_thread(move |engine| engine.stat(&path)).await
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(value.len(), MAX_VALUE)?;
        let (path, options) = (path.clone(), options.clone());
        // The thread can outlive the caller, so it owns a copy, in memory as well kept.
        let value = SecretBytes::copy_from(value.expose());
        self.on_thread(move |engine| engine.put(&path, &value, &options))
            .await
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        law::need(CAN, law::to_put(options))?;
        law::fits(recipe.length(), MAX_VALUE)?;
        let (path, recipe, options) = (path.clone(), *recipe, options.clone());
        self.on_thread(move |engine| engine.put(&path, &recipe.make()?, &options))
            .await
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        law::need(CAN, law::to_delete(options))?;
        let path = path.clone();
        self.on_thread(move |engine| engine.delete(&path)).await
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        page::check(options)?;
        let (prefix, options) = (prefix.clone(), options.clone());
        self.on_thread(move |engine| engine.list(&prefix, &options))
            .await
    }

    async fn probe(&self) -> Result<()> {
        self.on_thread(Engine::probe).await
    }
}

fn metadata(written: Option<SystemTime>) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.created = written;
    metadata
}
