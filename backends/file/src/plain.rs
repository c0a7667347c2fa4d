//! The clear-text store: `ROOT/SCOPE/NAME`, each file the bare value, as QEMU's `file=` reads it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Error, ErrorKind, GetOptions, ListOptions, Metadata,
    Page, PutMode, PutOptions, Result, Secret, SecretBytes, SecretPath, SecretWriter,
};
use rustix::fs::Stat;

use crate::MAX_VALUE;
use crate::change;
use crate::config;
use crate::cursor::Cursor;
use crate::encrypted::not_made;
use crate::error::{corrupt, io_error};
use crate::list;
use crate::lock::Lock;
use crate::names::Naming;
use crate::store::{Engine, Reader, not_root};
use crate::tree::Folder;

const NAMING: Naming = Naming::Bare;

/// A clear-text store.
#[derive(Debug)]
pub(crate) struct Plain {
    settings: config::Plain,
}

impl Plain {
    pub(crate) fn new(settings: config::Plain) -> Self {
        Self { settings }
    }

    /// The root; none where it has not been made and need not be.
    fn root(&self) -> Result<Option<Folder>> {
        match Folder::root(&self.settings.root)? {
            None if !self.settings.create => Err(not_made(&self.settings.root)),
            root => Ok(root),
        }
    }

    fn cursor(&self) -> Result<Option<Cursor>> {
        Ok(self.root()?.map(Cursor::new))
    }
}

/// The store open for reading; nothing is open where it has not been made.
struct Reading(Option<Cursor>);

impl Reader for Reading {
    fn get(&mut self, path: &SecretPath, _: &GetOptions) -> Result<Secret> {
        read(self.0.as_mut().ok_or_else(absent)?, path)
    }
}

impl Engine for Plain {
    fn capabilities(&self) -> Capabilities {
        let can = Capability::READ
            | Capability::WRITE
            | Capability::CREATE
            | Capability::DELETE
            | Capability::LIST
            | Capability::GENERATE;
        Capabilities::new(can, MAX_VALUE)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Reading(self.cursor()?)))
    }

    fn stat(&self, path: &SecretPath, _: &GetOptions) -> Result<Metadata> {
        let mut cursor = self.cursor()?.ok_or_else(absent)?;
        let (_, stat) = open(&mut cursor, path)?;
        Ok(metadata(&stat))
    }

    fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let root = match self.root()? {
            Some(root) => root,
            None => Folder::make_root(&self.settings.root)?,
        };
        let lock = Lock::acquire(&root, options.request.deadline)?;
        let mut cursor = Cursor::new(root.again()?);
        let place = NAMING.place(path);
        if options.mode == PutMode::Create
            && let Some(folder) = cursor.go(&place.folders)?
            && folder.open_file(&place.file)?.is_some()
        {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "there is such a secret already",
            ));
        }
        change::write(lock, &root, &mut cursor, &place, value.expose())?;
        let (_, stat) = open(&mut cursor, path)?;
        Ok(metadata(&stat))
    }

    fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        let Some(root) = self.root()? else {
            return Ok(());
        };
        let lock = Lock::acquire(&root, options.request.deadline)?;
        let mut cursor = Cursor::new(root);
        let place = NAMING.place(path);
        if cursor.go(&place.folders)?.is_some() {
            change::remove(lock, &mut cursor, &place)?;
        }
        Ok(())
    }

    fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        match self.root()? {
            Some(root) => list::list(root, NAMING, prefix, options),
            None => Ok(Page::default()),
        }
    }

    fn probe(&self) -> Result<()> {
        self.root().map(drop)
    }
}

fn read(cursor: &mut Cursor, path: &SecretPath) -> Result<Secret> {
    not_root(path)?;
    let (mut file, stat) = open(cursor, path)?;
    let place = cursor.here().path().join(NAMING.place(path).file);
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > MAX_VALUE {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{} is over the limit of {MAX_VALUE} bytes", place.display()),
        ));
    }
    let value = SecretBytes::try_init_with(size, |value| file.read_exact(value))
        .map_err(|error| changed(&place, error))?;
    // Only ours are replaced whole; what somebody writes in place must not be given out in part.
    let mut more = SecretWriter::with_limit(MAX_VALUE);
    more.read_all(&mut file)?;
    if !more.is_empty() {
        return Err(changed(&place, io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Secret::new(value, metadata(&stat)))
}

fn open(cursor: &mut Cursor, path: &SecretPath) -> Result<(File, Stat)> {
    let place = NAMING.place(path);
    match cursor.go(&place.folders)? {
        Some(folder) => folder.open_file(&place.file)?.ok_or_else(absent),
        None => Err(absent()),
    }
}

fn absent() -> Error {
    Error::new(ErrorKind::NotFound, "no such secret")
}

fn changed(file: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => corrupt(file, "changed its length while it was read"),
        _ => io_error("reading", file, error),
    }
}

fn metadata(stat: &Stat) -> Metadata {
    let mut metadata = Metadata::default();
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    metadata.created = u64::try_from(stat.st_mtime)
        .ok()
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds));
    metadata
}
