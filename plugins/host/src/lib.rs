//! Plugins that are libraries: how one is loaded, and how it is called.
//!
//! ```toml
//! [stores.hsm]
//! url     = "plugin:///usr/lib/keyhaul/libkeyhaul_hsm.so"
//! sha256  = "…"                                  # as sha256sum prints it; optional
//! options = { slot = 1, pin = "file:/etc/keyhaul/pin" }
//! ```
//!
//! # What is loaded
//!
//! A library runs with all that this process may. So it is loaded only from an absolute path without
//! symbolic links, where the file and every folder above it belong to root or to us and nobody else can
//! write them. The file is read once, into sealed memory; its digest is taken there; and that memory is
//! what is loaded. A library is never unloaded.
//!
//! # What it may do
//!
//! - **Block.** It runs on a few threads of its own, at most 16 for each library and pin. Who waits stops at
//!   the deadline; a call that does not come back keeps its thread, and with eight of those all stores of
//!   this plugin are `Unavailable` until some come back. Other plugins' stores do not notice, and the
//!   process can end.
//! - **Answer nonsense.** Texts are cleaned and cut, lengths and counts have limits, an answer that is given
//!   twice, too late or from another thread is refused, and unknown statuses are `Internal`. Pointers to where
//!   there is no memory are errors, since it is the kernel that follows them.
//! - **Crash.** That cannot be caught. A library that writes where it should not, calls `exit` or `abort`,
//!   throws a C++ exception out of a function, raises a signal, gives a function's address that is none, or
//!   hangs in a destructor as the process ends, does so to this process. One that hangs while it is loaded,
//!   in a constructor, holds a lock of the dynamic linker: no other plugin is loaded any more. And it can
//!   read all memory that this process can. A plugin that is a process can do none of this.
//!
//! Capabilities are held to here, so that no plugin has to: what a store does not name, or has no
//! function for, is `Unsupported` and never asked.

mod attributes;
mod calls;
mod config;
mod declared;
mod digest;
mod instance;
mod lanes;
mod lent;
mod library;
mod log;
mod place;
mod plugin;
mod rule;
mod sink;
mod store;
#[cfg(test)]
mod testing;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Descriptor, Result, SecretStore, StoreConfig, StoreFactory};

pub use declared::Declared;
pub use digest::Digest;
pub use rule::Rule;
pub use store::PluginStore;

use config::Settings;
use library::Library;
use plugin::Plugin;

/// Makes stores of plugins: `plugin`.
#[derive(Clone, Default)]
pub struct PluginFactory {
    plugins: Arc<Mutex<Vec<Arc<Plugin>>>>,
}

/// What is known of a loaded plugin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The file.
    pub path: PathBuf,
    /// What it held when it was loaded.
    pub digest: Digest,
    /// What the plugin calls itself.
    pub name: String,
    /// Its version, in its own words.
    pub version: String,
    /// What it is, in one line.
    pub summary: String,
    /// The version of the interface that it was built for: major and minor.
    pub interface: (u16, u16),
    /// The functions that its table has, in the interface's words and order.
    pub functions: Vec<&'static str>,
    /// What it takes in the policy.
    pub options: Vec<Declared>,
}

/// What came of holding a library to the rules.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The rules that it passed, from the first on. The next one is what it was refused by.
    pub passed: Vec<Rule>,
    /// What it says of itself, or why it is refused.
    pub outcome: Result<Loaded>,
}

impl PluginFactory {
    /// The plugins that were loaded so far.
    pub fn loaded(&self) -> Vec<Loaded> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = plugins.iter().filter_map(|plugin| plugin.loaded());
        loaded.map(|library| Loaded::from(&**library)).collect()
    }

    /// Loads the plugin that a store of the policy names, as the store's first request would; the
    /// stores of this factory then share it. Opens no store. Blocks.
    ///
    /// # Errors
    /// `InvalidConfig` where the store's url or pin is wrong, and the rule that the library breaks;
    /// with the store's place.
    pub fn load(&self, config: &StoreConfig) -> Result<Loaded> {
        let library = Settings::new(config)
            .and_then(|settings| self.plugin(&settings.path, settings.pin).library());
        let library = library.map_err(|error| error.with_place(&config.place))?;
        Ok(Loaded::from(&*library))
    }

    /// Loads the plugin at `path` without a policy, by the same rules, and opens no store. Blocks.
    ///
    /// It is loaded anew each time, and stays loaded: its constructors run, and its entry. [`examine`]
    /// of one factory loads it once.
    ///
    /// [`examine`]: Self::examine
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn inspect(path: &Path, pin: Option<&Digest>) -> Result<Loaded> {
        Self::default().examine(path, pin.copied()).outcome
    }

    /// The same, told rule by rule. Stores of this plugin that are opened later have it loaded.
    pub fn examine(&self, path: &Path, pin: Option<Digest>) -> Inspection {
        let mut passed = Vec::new();
        let plugin = self.plugin(path, pin);
        let library = plugin.library_by(&mut passed);
        let outcome = library.map(|library| Loaded::from(&*library));
        if outcome.is_ok() {
            passed = Rule::ALL.to_vec();
        }
        Inspection { passed, outcome }
    }

    /// The plugin of this file and pin, which is one however many stores it has.
    fn plugin(&self, path: &Path, pin: Option<Digest>) -> Arc<Plugin> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = plugins.iter().find(|plugin| plugin.is(path, pin.as_ref())) {
            return known.clone();
        }
        let plugin = Arc::new(Plugin::new(path.to_owned(), pin));
        plugins.push(plugin.clone());
        plugin
    }
}

impl StoreFactory for PluginFactory {
    fn schemes(&self) -> &[&'static str] {
        &[config::SCHEME]
    }

    fn summary(&self) -> &'static str {
        "a plugin: a library that is loaded into this process"
    }

    fn options(&self) -> &[OptionSpec] {
        config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        let settings = Settings::new(config)?;
        let plugin = self.plugin(&settings.path, settings.pin);
        let descriptor = Descriptor::new(&config.name, config::SCHEME, config.url.as_str());
        let place = config.place.clone();
        Ok(Arc::new(PluginStore::new(
            descriptor,
            plugin,
            settings.options,
            place,
        )))
    }
}

impl std::fmt::Debug for PluginFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.loaded().iter().map(|loaded| &loaded.path))
            .finish()
    }
}

impl From<&Library> for Loaded {
    fn from(library: &Library) -> Self {
        Self {
            path: library.path.clone(),
            digest: library.digest,
            name: library.name.clone(),
            version: library.version.clone(),
            summary: library.summary.clone(),
            interface: (library.table.head.major, library.table.head.minor),
            functions: library.functions(),
            options: library.options.clone(),
        }
    }
}
