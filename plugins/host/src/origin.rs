//! Files that libraries came from. What they were stays in this process for good, so it is known by
//! what was in the file, and never loaded twice.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::Digest;
use crate::lanes::Lanes;
use crate::library::{self, Library};
use crate::place::Sealed;
use crate::rule::{Broken, Rule};

/// All files that a library was ever loaded from.
#[derive(Default)]
pub(crate) struct Origins(Mutex<Vec<Arc<Origin>>>);

/// A file, the threads of all that was in it, and what that was.
pub(crate) struct Origin {
    pub(crate) path: PathBuf,
    pub(crate) lanes: Lanes,
    known: Mutex<Vec<Known>>,
    loading: Mutex<()>,
}

/// What a file held.
struct Known {
    digest: Digest,
    /// A refused one is in the process all the same: its constructors have run.
    outcome: Result<Arc<Library>, Broken>,
}

/// The one who loads from a file.
pub(crate) struct Loading<'a> {
    origin: &'a Origin,
    _turn: MutexGuard<'a, ()>,
}

impl Origins {
    /// The file at `path`.
    pub(crate) fn at(&self, path: &Path) -> Arc<Origin> {
        let mut origins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = origins.iter().find(|origin| origin.path == path) {
            return known.clone();
        }
        let origin = Arc::new(Origin {
            path: path.to_owned(),
            lanes: Lanes::new(),
            known: Mutex::default(),
            loading: Mutex::default(),
        });
        origins.push(origin.clone());
        origin
    }

    /// Whether something is being loaded.
    pub(crate) fn are_loading(&self) -> bool {
        let origins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = |origin: &Arc<Origin>| {
            matches!(origin.loading.try_lock(), Err(TryLockError::WouldBlock))
        };
        origins.iter().any(is_held)
    }

    /// The plugins among what was loaded.
    pub(crate) fn libraries(&self) -> Vec<Arc<Library>> {
        let origins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |origin: &Arc<Origin>| {
            let known = origin.known();
            let libraries = known.iter().filter_map(|known| known.outcome.as_ref().ok());
            libraries.cloned().collect::<Vec<_>>()
        };
        origins.iter().flat_map(of).collect()
    }
}

impl Origin {
    /// Waits until nobody else loads from here.
    pub(crate) fn one_at_a_time(&self) -> Loading<'_> {
        Loading {
            origin: self,
            _turn: self.loading.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loading<'_> {
    /// The library that was read: the one that is loaded, where it is. Blocks.
    ///
    /// # Errors
    /// The rule that it breaks, or broke when it was loaded.
    pub(crate) fn library(&self, sealed: Sealed) -> Result<Arc<Library>, Broken> {
        let digest = sealed.digest;
        if let Some(known) = self
            .origin
            .known()
            .iter()
            .find(|known| known.digest == digest)
        {
            return known.outcome();
        }
        let outcome = library::load(&self.origin.path, sealed).map(Arc::new);
        // What the linker refused is not there: the next one may fare better.
        if let Err(broken) = &outcome
            && broken.rule <= Rule::Loads
        {
            return outcome;
        }
        let known = Known { digest, outcome };
        let outcome = known.outcome();
        self.origin.known().push(known);
        outcome
    }
}

impl Known {
    fn outcome(&self) -> Result<Arc<Library>, Broken> {
        match &self.outcome {
            Ok(library) => Ok(library.clone()),
            Err(broken) => Err(broken.duplicate()),
        }
    }
}
