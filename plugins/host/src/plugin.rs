//! A plugin that the policy names: its file, its threads, and the library once it is loaded.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use keyhaul_core::{Error, Result};

use crate::Digest;
use crate::lanes::Lanes;
use crate::library::Library;
use crate::origin::{Origin, Origins};
use crate::place;
use crate::rule::Broken;

/// A plugin as a store has it: a file, and the digest that it must have.
pub(crate) struct Plugin {
    pub(crate) lanes: Lanes,
    pin: Option<Digest>,
    file: Arc<File>,
}

/// The files that one policy names.
///
/// All stores of one file have the library that it was when the first of them asked, also where it has
/// changed meanwhile: two of its versions in one process know nothing of each other.
#[derive(Default)]
pub(crate) struct Files(Mutex<Vec<Arc<File>>>);

struct File {
    origin: Arc<Origin>,
    taken: OnceLock<Arc<Library>>,
}

impl Files {
    /// The plugin of this file and pin.
    pub(crate) fn plugin(&self, origins: &Origins, path: &Path, pin: Option<Digest>) -> Plugin {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files.iter().find(|file| file.origin.path == path).cloned();
        let file = known.unwrap_or_else(|| {
            let file = Arc::new(File {
                origin: origins.at(path),
                taken: OnceLock::new(),
            });
            files.push(file.clone());
            file
        });
        Plugin {
            lanes: file.origin.lanes.clone(),
            pin,
            file,
        }
    }
}

impl Plugin {
    /// The library, loaded by the first who asks. Blocks.
    ///
    /// # Errors
    /// The rule that it breaks. The next one looks anew.
    pub(crate) fn library(&self) -> Result<Arc<Library>> {
        self.held_to_the_rules().map_err(Error::from)
    }

    /// The same, with the rule.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn held_to_the_rules(&self) -> Result<Arc<Library>, Broken> {
        let File { origin, taken } = &*self.file;
        let fits = |library: &&Arc<Library>| self.pin.is_none_or(|pin| pin == library.digest);
        if let Some(library) = taken.get().filter(fits) {
            return Ok(library.clone());
        }
        let loading = origin.one_at_a_time();
        if let Some(library) = taken.get().filter(fits) {
            return Ok(library.clone());
        }
        let sealed = place::read(&origin.path, self.pin.as_ref())?;
        let library = loading.library(sealed)?;
        // Where another is taken, this one is what a pin asked for.
        Ok(taken.get().filter(fits).cloned().unwrap_or_else(|| {
            let _ = taken.set(library.clone());
            library
        }))
    }
}
