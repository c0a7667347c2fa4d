//! What the store does, one step after the other. All of it blocks.

use std::time::SystemTime;

use keyhaul_core::{
    Error, ErrorKind, GetOptions, ListOptions, Metadata, Page, PutMode, PutOptions, Result, Secret,
    SecretBytes, SecretPath, law, page,
};

use crate::config::Settings;
use crate::error::absent;
use crate::folder::Folder;
use crate::names;
use crate::sealer::Sealer;

/// Credentials in their folder.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    sealer: Sealer,
}

impl Engine {
    pub(crate) fn new(settings: Settings) -> Self {
        let sealer = Sealer::new(&settings);
        Self { settings, sealer }
    }

    pub(crate) fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let name = names::name(path)?;
        let folder = self.folder()?.ok_or_else(absent)?;
        let sealed = folder.read(&name)?.ok_or_else(absent)?;
        let deadline = options.request.deadline;
        let value = self
            .sealer
            .open(&name, &sealed.bytes, options.expired, deadline)?;
        Ok(Secret::new(value, metadata(sealed.written)))
    }

    pub(crate) fn stat(&self, path: &SecretPath) -> Result<Metadata> {
        let name = names::name(path)?;
        let folder = self.folder()?.ok_or_else(absent)?;
        folder.stat(&name)?.map(metadata).ok_or_else(absent)
    }

    pub(crate) fn put(
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
        let sealed = self.sealer.seal(&name, value, options.request.deadline)?;
        folder.write(&name, sealed.expose(), only_new)?;
        Ok(metadata(folder.stat(&name)?.flatten()))
    }

    pub(crate) fn delete(&self, path: &SecretPath) -> Result<()> {
        law::not_root(path)?;
        let name = names::name(path)?;
        match self.folder()? {
            Some(folder) => folder.remove(&name),
            None => Ok(()),
        }
    }

    pub(crate) fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
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
    pub(crate) fn probe(&self) -> Result<()> {
        self.folder()?;
        self.sealer.works()
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
}

fn metadata(written: Option<SystemTime>) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.created = written;
    metadata
}
