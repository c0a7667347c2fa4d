//! The contract, by a plugin's answers.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use keyhaul_core::{
    Alphabet, Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions,
    ListOptions, Metadata, Page, PutMode, PutOptions, Recipe, Request, Result, Secret, SecretBytes,
    SecretPath, SecretStore,
};

use crate::config::Settings;
use crate::law::{self, need};
use crate::said::Said;
use crate::session::Session;
use crate::supervisor::Supervisor;
use crate::wire::{LONGEST_PAGE, Line, Reply};

/// A store that a program of someone else's serves.
#[derive(Debug)]
pub struct ProcessStore {
    descriptor: Descriptor,
    supervisor: Arc<Supervisor>,
}

impl ProcessStore {
    pub(crate) fn new(descriptor: Descriptor, settings: Settings) -> Self {
        Self {
            descriptor,
            supervisor: Arc::new(Supervisor::new(settings)),
        }
    }

    /// What the program says of itself, which is started where it does not run.
    ///
    /// # Errors
    /// Why it cannot be started, or its options are not taken.
    pub async fn said(&self, request: &Request) -> Result<Said> {
        let session = self.supervisor.session(request.deadline).await?;
        Ok(Said::from(session.talk.hello()?))
    }

    /// The plugin, running, and able to do all of `wanted`.
    async fn plugin(&self, request: &Request, wanted: Capability) -> Result<Plugin> {
        let session = self.supervisor.session(request.deadline).await?;
        let can = law::capabilities(session.talk.hello()?.capabilities);
        need(can.can, wanted)?;
        Ok(Plugin { session, can })
    }

    async fn read_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let plugin = match self.plugin(&options.request, law::to_get(options)).await {
            Ok(plugin) => plugin,
            Err(error) => return paths.iter().map(|_| Err(error.duplicate())).collect(),
        };
        let batch = plugin
            .session
            .talk
            .hello()
            .ok()
            .and_then(|hello| hello.batch);
        match batch {
            Some(size) => {
                let fit = BATCH_BYTES / plugin.can.max_value.max(1);
                let chunks = paths.chunks(size.min(MOST_PATHS).min(fit.max(1)));
                let answers = join_all(chunks.map(|paths| plugin.get_batch(paths, options)));
                answers.await.into_iter().flatten().collect()
            }
            None => join_all(paths.iter().map(|path| plugin.get(path, options))).await,
        }
    }
}

/// The most paths of one request, whatever a plugin says: its line has an end.
const MOST_PATHS: usize = 256;

/// How many bytes the values of one request may have: they are held until the last has come.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A running plugin and what can be asked of it.
struct Plugin {
    session: Arc<Session>,
    can: Capabilities,
}

impl Plugin {
    async fn ask(
        &self,
        request: &Request,
        line: Line,
        value: Option<&SecretBytes>,
    ) -> Result<Reply> {
        let line = line.asker(request);
        self.session.ask(request.deadline, line, value).await
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        law::not_root(path)?;
        let line = reading(Line::new("get").text("path", path.as_str()), options);
        secret(self.ask(&options.request, line, None).await?)
    }

    async fn get_batch(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        // The root is no secret, and not for the plugin to decide about.
        let asked: Vec<_> = paths.iter().filter(|path| !path.is_root()).collect();
        let texts = asked.iter().map(|path| path.as_str());
        let line = reading(Line::new("get-many").texts("paths", texts), options);
        let line = line.asker(&options.request);
        let deadline = options.request.deadline;
        let answers = match asked.len() {
            0 => Ok(Vec::new()),
            count => self.session.ask_many(deadline, line, count).await,
        };
        let mut answers = answers.map(Vec::into_iter);
        let each = paths.iter().map(|path| {
            law::not_root(path)?;
            match &mut answers {
                Ok(answers) => answers
                    .next()
                    .unwrap_or_else(|| Ok(Reply::default()))
                    .and_then(secret),
                Err(error) => Err(error.duplicate()),
            }
        });
        each.collect()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for ProcessStore {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let request = Request::default();
        let plugin = self.plugin(&request, Capability::empty()).await?;
        Ok(plugin.can)
    }

    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let plugin = self.plugin(&options.request, law::to_get(options)).await?;
        plugin.get(path, options).await
    }

    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        match paths {
            [] => Vec::new(),
            paths => self.read_many(paths, options).await,
        }
    }

    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let plugin = self.plugin(&options.request, law::to_get(options)).await?;
        law::not_root(path)?;
        let line = reading(Line::new("stat").text("path", path.as_str()), options);
        Ok(plugin.ask(&options.request, line, None).await?.metadata)
    }

    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let plugin = self.plugin(&options.request, law::to_put(options)).await?;
        law::not_root(path)?;
        law::fits(value.len(), plugin.can.max_value)?;
        let line = writing(
            Line::new("put").text("path", path.as_str()),
            options,
            plugin.can,
        );
        Ok(plugin
            .ask(&options.request, line, Some(value))
            .await?
            .metadata)
    }

    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let wanted = Capability::GENERATE | law::to_put(options);
        let plugin = self.plugin(&options.request, wanted).await?;
        law::not_root(path)?;
        law::fits(recipe.length(), plugin.can.max_value)?;
        let own = plugin.session.talk.hello()?.capabilities;
        if !own.has(Capability::GENERATE) {
            // Where the plugin cannot make a value, the host can.
            return self.put(path, &recipe.make()?, options).await;
        }
        let line = Line::new("generate")
            .text("path", path.as_str())
            .text("alphabet", alphabet(recipe)?)
            .number("length", recipe.length() as u128);
        let line = writing(line, options, plugin.can);
        Ok(plugin.ask(&options.request, line, None).await?.metadata)
    }

    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let plugin = self
            .plugin(&options.request, law::to_delete(options))
            .await?;
        law::not_root(path)?;
        let line = Line::new("delete")
            .text("path", path.as_str())
            .maybe("version", options.version.as_ref().map(|v| v.as_str()))
            .flag("force", options.force);
        plugin.ask(&options.request, line, None).await?;
        Ok(())
    }

    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        let plugin = self.plugin(&options.request, Capability::LIST).await?;
        if options.limit == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidReference,
                "a page has at least 1 entry",
            ));
        }
        let line = Line::new("list")
            .text("prefix", prefix.as_str())
            .flag("shallow", options.shallow)
            .number("limit", entries(options) as u128)
            .maybe("after", options.after.as_deref());
        let reply = plugin.ask(&options.request, line, None).await?;
        page(reply, prefix, options)
    }

    async fn probe(&self) -> Result<()> {
        let request = Request::default();
        let plugin = self.plugin(&request, Capability::empty()).await?;
        plugin.ask(&request, Line::new("probe"), None).await?;
        Ok(())
    }
}

/// The most entries of the page that is asked for.
fn entries(options: &ListOptions) -> usize {
    options.limit.unwrap_or(LONGEST_PAGE).min(LONGEST_PAGE)
}

fn secret(reply: Reply) -> Result<Secret> {
    let value = reply.value;
    let value = value.ok_or_else(|| corrupt("the plugin's answer has no value"))?;
    Ok(Secret::new(value, reply.metadata))
}

fn reading(line: Line, options: &GetOptions) -> Line {
    line.maybe("version", options.version.as_ref().map(|v| v.as_str()))
        .maybe("field", options.field.as_ref().map(|f| f.as_str()))
        .flag("expired", options.expired)
}

fn writing(line: Line, options: &PutOptions, can: Capabilities) -> Line {
    let (mode, version) = match &options.mode {
        PutMode::Create => ("create", None),
        PutMode::Update(version) => ("update", Some(version.as_str())),
        _ => ("overwrite", None),
    };
    let labels = options.labels.iter();
    let id = options
        .idempotency
        .filter(|_| can.has(Capability::IDEMPOTENT));
    line.text("mode", mode)
        .maybe("version", version)
        .maybe("field", options.field.as_ref().map(|f| f.as_str()))
        .pairs(
            "labels",
            labels.map(|(key, value)| (key.as_str(), value.as_str())),
        )
        .time("expires", options.expires)
        .maybe("idempotency", id.map(|id| id.to_string()).as_deref())
}

fn alphabet(recipe: &Recipe) -> Result<&'static str> {
    match recipe.alphabet() {
        Alphabet::Alphanumeric => Ok("alphanumeric"),
        Alphabet::Bytes => Ok("bytes"),
        Alphabet::Hex => Ok("hex"),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "the protocol has no word for this alphabet",
        )),
    }
}

/// The page, where it is one of what was asked.
pub(crate) fn page(reply: Reply, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
    let paths = |texts: Vec<String>| -> Result<Vec<SecretPath>> {
        let mut paths = Vec::with_capacity(texts.len());
        for text in texts {
            let path = SecretPath::new(text)
                .ok()
                .filter(|path| path.is_below(prefix));
            let path =
                path.ok_or_else(|| corrupt("the plugin lists what is no path below the prefix"))?;
            if paths.last().is_some_and(|last| *last >= path) {
                return Err(corrupt("the plugin's listing is not in byte order"));
            }
            paths.push(path);
        }
        Ok(paths)
    };
    let (secrets, folders) = (paths(reply.secrets)?, paths(reply.folders)?);
    let count = secrets.len() + folders.len();
    if count > entries(options) || (!options.shallow && !folders.is_empty()) {
        return Err(corrupt("the plugin lists more than it was asked for"));
    }
    // Else whoever follows it never comes to an end.
    if reply.next.is_some() && (count == 0 || reply.next == options.after) {
        return Err(corrupt(
            "the plugin's page has a next one, and does not go on",
        ));
    }
    Ok(Page::new(secrets, folders, reply.next))
}

fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what).with_advice("tell the plugin's author")
}
