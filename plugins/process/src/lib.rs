//! keyhaul's stores from someone else's program.
//!
//! A store whose url is `plugin+exec:///PATH` is served by the program at that path. It is started
//! at the first request and speaks JSON, one object a line, over its stdin and stdout: a shell
//! script of thirty lines is enough.
//!
//! # What a misbehaving program can do
//!
//! Make its own store fail, and nothing else of keyhaul. It has a session and a process group of its
//! own, which is killed as a whole; no environment but a `PATH`; no descriptors but its three; no way to
//! new privileges; as much time as the policy gives it. A program that breaks the protocol, ends or says
//! nothing is killed, and started again at a later request, after a pause that doubles with each
//! failure. What it writes to its stderr goes to the log, less the values that have passed.
//!
//! It is no prison: a program runs as the user that keyhaul runs as, and can start another that
//! leaves the group. What it may reach, the policy can say and the kernel hold (`confine`): files by
//! Landlock, sockets, keys and what else leads past files by a filter of system calls. Whoever
//! can change the program can do as much as it, and so the host refuses one that others could change.
//!
//! Why not the C ABI alone? A library that crashes, hangs or leaks does so in keyhaul's own process.

mod calls;
mod config;
mod confined;
mod elf;
mod error;
mod fence;
mod fingerprint;
mod forms;
#[doc(hidden)]
pub mod fuzz;
mod keeper;
mod kept;
mod last_words;
mod law;
mod lines;
mod log;
mod options;
mod outbox;
mod reader;
mod redact;
mod requests;
mod said;
mod session;
mod store;
mod supervisor;
mod talk;
mod trust;
mod unescaped;
mod wire;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Descriptor, Result, SecretStore, StoreConfig, StoreFactory};

use crate::config::{OPTIONS, SCHEME, Settings};

pub use elf::is_library;
pub use said::{Inspection, Rule, Said, SaidOption, inspect};
pub use store::ProcessStore;

/// Makes stores of programs: `plugin+exec`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFactory;

impl ProcessFactory {
    /// As [`StoreFactory::open`], for those who want to know what the program says of itself.
    ///
    /// # Errors
    /// As there.
    pub fn store(&self, config: &StoreConfig) -> Result<ProcessStore> {
        let settings = Settings::new(config)?;
        let location = format!("{SCHEME}://{}", settings.program.display());
        let descriptor = Descriptor::new(&config.name, SCHEME, location);
        Ok(ProcessStore::new(descriptor, settings))
    }
}

impl StoreFactory for ProcessFactory {
    fn schemes(&self) -> &[&'static str] {
        &[SCHEME]
    }

    fn summary(&self) -> &'static str {
        "a program of your own, asked over its stdin and stdout"
    }

    fn options(&self) -> &[OptionSpec] {
        OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        // The plugin's own host has a limit on what is under way.
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(self.store(config)?))
    }
}
