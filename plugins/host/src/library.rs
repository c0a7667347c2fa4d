//! A library in this process: loaded once, checked, and never unloaded.

use std::ffi::c_void;
use std::fmt;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_plugin_abi as abi;
use libloading::os::unix::{Library as Object, RTLD_LOCAL, RTLD_NOW};

use crate::declared::{Declared, declared};
use crate::elf::is_cut_short;
use crate::place::Sealed;
use crate::rule::{Broken, Rule};
use crate::{Digest, lent, log};

/// A loaded plugin: our own copy of its table, and what is known of it.
pub(crate) struct Library {
    pub(crate) table: abi::Plugin,
    pub(crate) options: Vec<Declared>,
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
}

impl Library {
    /// The functions that its table has.
    pub(crate) fn functions(&self) -> Vec<&'static str> {
        let table = &self.table;
        let all = [
            ("open", table.open.is_some()),
            ("close", table.close.is_some()),
            ("capabilities", table.capabilities.is_some()),
            ("get", table.get.is_some()),
            ("get_many", table.get_many.is_some()),
            ("stat", table.stat.is_some()),
            ("put", table.put.is_some()),
            ("generate", table.generate.is_some()),
            ("remove", table.remove.is_some()),
            ("list", table.list.is_some()),
            ("probe", table.probe.is_some()),
        ];
        let there = all.into_iter().filter(|(_, is_there)| *is_there);
        there.map(|(name, _)| name).collect()
    }
}

/// Loads what was read, and asks it for its table.
///
/// # Errors
/// The rule that is broken: `InvalidConfig` where it is no library or lacks the entry, `Unsupported`
/// where the plugin's interface is not ours, or the plugin refuses this host. By a rule behind
/// [`Rule::Loads`] it stays loaded all the same.
pub(crate) fn load(path: &Path, sealed: Sealed) -> Result<Library, Broken> {
    let digest = sealed.digest;
    let loaded = entry(sealed).and_then(|entry| {
        let table = shown(entry)?;
        read(path, digest, table).map_err(|error| Rule::Table.broken(error))
    });
    let library = loaded.map_err(|Broken { rule, error }| {
        let error = error.with_place(path.display());
        rule.broken(error)
    })?;
    tracing::info!(
        path = %path.display(),
        digest = %library.digest,
        name = library.name,
        version = library.version,
        "plugin loaded"
    );
    Ok(library)
}

/// Maps the library and finds its entry.
fn entry(sealed: Sealed) -> Result<abi::Entry, Broken> {
    if is_cut_short(&sealed.memory) {
        let rule = "the plugin is no library that can be loaded: its end is missing";
        let error = Error::new(ErrorKind::InvalidConfig, rule);
        return Err(Rule::Loads.broken(error.with_advice("it was copied by half: install it anew")));
    }
    let memory = format!("/proc/self/fd/{}", sealed.memory.as_raw_fd());
    // SAFETY: this runs the library's initialisers, with all that we may. That it is the one that
    // was meant, and nobody else's to write, has been checked on these very bytes.
    let object = unsafe { Object::open(Some(memory), RTLD_NOW | RTLD_LOCAL) };
    let object = object.map_err(|error| {
        let rule = "the plugin is no library that can be loaded";
        let advice = "a program's url begins with plugin+exec://; what a library lacks, ldd shows";
        let error = Error::new(ErrorKind::InvalidConfig, rule).with_source(error);
        Rule::Loads.broken(error.with_advice(advice))
    })?;
    // The dynamic linker knows libraries by the path they came by. It must not see this one again
    // for other bytes, so the descriptor stays open for good, as the library stays loaded: also one
    // that turns out to be no plugin.
    let _ = sealed.memory.into_raw_fd();
    // SAFETY: the interface gives the symbol of this name this type.
    let entry = unsafe { object.get::<abi::Entry>(abi::ENTRY.to_bytes_with_nul()) };
    let entry = entry.map(|symbol| *symbol).map_err(|error| {
        let rule = "the library is no plugin: it lacks keyhaul_plugin_entry";
        Rule::Entry.broken(Error::new(ErrorKind::InvalidConfig, rule).with_source(error))
    });
    // Its threads and what it registered would outlive its code otherwise.
    std::mem::forget(object);
    entry
}

/// The table that the entry shows.
fn shown(entry: abi::Entry) -> Result<abi::Plugin, Broken> {
    // SAFETY: the symbol is the plugin's entry, whose type its name stands for; it is asked for a
    // table, and what it answers is looked at with care.
    let shown = unsafe { entry(log::host()) };
    if shown.is_null() {
        let rule = "the plugin refuses this host, as one of another version";
        return Err(Rule::Accepts.broken(Error::new(ErrorKind::Unsupported, rule)));
    }
    lent::table("the plugin's table", shown).map_err(|error| Rule::Interface.broken(error))
}

/// What the table says.
fn read(path: &Path, digest: Digest, table: abi::Plugin) -> Result<Library> {
    let needed = [
        ("open", table.open.is_some()),
        ("close", table.close.is_some()),
        ("capabilities", table.capabilities.is_some()),
    ];
    if let Some((name, _)) = needed.iter().find(|(_, is_there)| !is_there) {
        let rule = format!("the plugin's table has no function `{name}`, which each has");
        return Err(Error::new(ErrorKind::Unsupported, rule));
    }
    Ok(Library {
        options: declared(&table)?,
        path: path.to_owned(),
        digest,
        name: lent::name("the plugin's name", table.name)?,
        version: lent::lasting("the plugin's version", table.version)?,
        summary: lent::lasting("the plugin's summary", table.summary)?,
        table,
    })
}

/// What `open` of a plugin gave. Opaque.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handle(pub(crate) *mut c_void);

// SAFETY: it is the plugin's, who is called from many threads by contract.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path)
            .field("digest", &self.digest)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
