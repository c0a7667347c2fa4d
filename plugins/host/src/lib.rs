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
//! what is loaded. A library is never unloaded, and loaded once: stores of one file share it as long as
//! the file has the same digest, also one that turned out to be no plugin.
//!
//! # What it may do
//!
//! - **Block.** It runs on a few threads of its own, at most 16 for each file. Who waits stops at
//!   the deadline; a call that does not come back keeps its thread, and with eight of those all stores of
//!   this file are `Unavailable` until some come back, also by a newer policy. Other plugins' stores do not
//!   notice, and the process can end: by `_exit`, since `exit` runs what the library has registered.
//!   **But not while it is loaded.** A constructor that hangs holds a lock of the system's linker, which each
//!   thread of Rust's takes as it begins, and `exit` takes too: little goes on then but `_exit`. Only a plugin
//!   that is a process is kept from that.
//! - **Answer nonsense.** Texts are cleaned and cut, lengths and counts have limits, an answer that is given
//!   twice, too late or from another thread is refused, and unknown statuses are `Internal`. Pointers to where
//!   there is no memory are errors, since it is the kernel that follows them.
//! - **Crash.** That cannot be caught. A library that writes where it should not, calls `exit` or `abort`,
//!   throws a C++ exception out of a function, raises a signal, or gives a function's address that is none,
//!   does so to this process. And it can read all memory that this process can. A plugin that is a process can
//!   do none of this.
//!
//! Capabilities are held to here, so that no plugin has to: what a store does not name, or has no
//! function for, is `Unsupported` and never asked.

mod answers;
mod attributes;
mod calls;
mod config;
mod contained;
mod copy;
mod credential;
mod declared;
mod digest;
mod elf;
mod instance;
mod lanes;
mod lent;
mod library;
mod listing;
mod log;
mod offered;
mod origin;
mod place;
mod plugin;
mod rule;
mod sink;
mod store;
#[cfg(test)]
mod testing;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Descriptor, Result, SecretStore, StoreConfig, StoreFactory};

pub use declared::Declared;
pub use digest::Digest;
pub use rule::Rule;
pub use store::PluginStore;

use config::Settings;
use library::Library;
use origin::Origins;
use plugin::{Files, Plugin};

/// Makes stores of plugins: `plugin`. Clones are one factory.
///
/// What it loads stays in the process. So a process has one, and [renews](Self::renewed) it for a policy
/// that it reads anew: two that know nothing of each other load one library twice.
#[derive(Clone, Default)]
pub struct PluginFactory {
    /// What was ever loaded.
    origins: Arc<Origins>,
    /// What the policy names.
    files: Arc<Files>,
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
    /// A factory for another policy, or a newer one. Its stores look at each file again: one that has
    /// not changed they share with this factory's, and one that has they load anew.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self {
            origins: self.origins.clone(),
            files: Arc::default(),
        }
    }

    /// The plugins that were loaded so far, also by those that this one was renewed from.
    pub fn loaded(&self) -> Vec<Loaded> {
        let libraries = self.origins.libraries();
        let loaded = libraries.iter().map(|library| Loaded::from(&**library));
        loaded.collect()
    }

    /// Whether a library is being loaded. Until that is done, which may be never, threads of this process
    /// that begin wait for a lock of the system's linker.
    pub fn is_loading(&self) -> bool {
        self.origins.are_loading()
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

    /// Loads the plugin at `path` without a policy, and tells rule by rule what came of it. Stores of
    /// this plugin that are opened later have it loaded. Opens none. Blocks.
    pub fn examine(&self, path: &Path, pin: Option<Digest>) -> Inspection {
        match self.plugin(path, pin).held_to_the_rules() {
            Ok(library) => Inspection {
                passed: Rule::ALL.to_vec(),
                outcome: Ok(Loaded::from(&*library)),
            },
            Err(broken) => Inspection {
                passed: broken.rule.passed(),
                outcome: Err(broken.error),
            },
        }
    }

    fn plugin(&self, path: &Path, pin: Option<Digest>) -> Plugin {
        self.files.plugin(&self.origins, path, pin)
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
        let plugin = Arc::new(self.plugin(&settings.path, settings.pin));
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
