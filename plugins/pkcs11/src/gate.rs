//! Who may be inside a library at the same time: many readers, or one writer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The gate of one library. What it guards is outside of Rust.
pub(crate) type Gate = Arc<RwLock<()>>;

/// The gates of a factory's stores, by library.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<Mutex<BTreeMap<PathBuf, Gate>>>);

impl Gates {
    /// The gate of the library at `path`, by its name in the policy.
    pub(crate) fn of(&self, path: &Path) -> Gate {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(path.to_owned()).or_default())
    }
}
