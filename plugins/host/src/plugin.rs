//! A plugin that the policy names: its file, its threads, and the library once it is loaded.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use keyhaul_core::Result;

use crate::lanes::Lanes;
use crate::library::Library;
use crate::{Digest, Rule, library, place};

/// A plugin, which all stores of the same file and pin share.
pub(crate) struct Plugin {
    path: PathBuf,
    pin: Option<Digest>,
    pub(crate) lanes: Lanes,
    loaded: OnceLock<Arc<Library>>,
    loading: Mutex<()>,
}

impl Plugin {
    pub(crate) fn new(path: PathBuf, pin: Option<Digest>) -> Self {
        Self {
            path,
            pin,
            lanes: Lanes::new(),
            loaded: OnceLock::new(),
            loading: Mutex::default(),
        }
    }

    /// Whether this is that file by that pin.
    pub(crate) fn is(&self, path: &Path, pin: Option<&Digest>) -> bool {
        self.path == path && self.pin.as_ref() == pin
    }

    /// The library where it is loaded.
    pub(crate) fn loaded(&self) -> Option<&Arc<Library>> {
        self.loaded.get()
    }

    /// The library, loaded by the first who asks. Blocks.
    ///
    /// # Errors
    /// The rule that it breaks. The next one tries anew.
    pub(crate) fn library(&self) -> Result<Arc<Library>> {
        self.library_by(&mut Vec::new())
    }

    /// The same, which tells the rules that it passed where it was not loaded before.
    ///
    /// # Errors
    /// As [`library`](Self::library).
    pub(crate) fn library_by(&self, passed: &mut Vec<Rule>) -> Result<Arc<Library>> {
        if let Some(library) = self.loaded() {
            return Ok(library.clone());
        }
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = self.loaded() {
            return Ok(library.clone());
        }
        let sealed = place::read(&self.path, self.pin.as_ref(), passed)?;
        let library = Arc::new(library::load(&self.path, sealed, passed)?);
        Ok(self.loaded.get_or_init(|| library).clone())
    }
}
