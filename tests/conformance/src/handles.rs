//! The handles a backend is tried through.

use std::sync::Arc;

use keyhaul_core::{Capability, SecretStore};

/// One place where secrets live, by the roles that may act on it.
///
/// Most stores are one handle for everything: [`Handles::same`]. A key service has no role that
/// may do all, so each request goes through the handle whose role it is:
///
/// | handle    | asked to                          | its word counts for |
/// |-----------|-----------------------------------|---------------------|
/// | `reader`  | `get`, `get_many`, `stat`         | READ, VERSIONS, FIELDS |
/// | `writer`  | `put`                             | WRITE, CREATE, UPDATE, LABELS, EXPIRY, IDEMPOTENT |
/// | `manager` | `generate`, `delete`, `list`      | GENERATE, GENERATES_REMOTELY, DELETE, LIST |
#[derive(Clone, Debug)]
pub struct Handles {
    /// Reads values and metadata.
    pub reader: Arc<dyn SecretStore>,
    /// Writes values.
    pub writer: Arc<dyn SecretStore>,
    /// Has values made, lists and deletes.
    pub manager: Arc<dyn SecretStore>,
}

impl Handles {
    /// One handle for every role.
    pub fn same(store: Arc<dyn SecretStore>) -> Self {
        Self {
            reader: store.clone(),
            writer: store.clone(),
            manager: store,
        }
    }

    /// Each handle with its role's name.
    pub(crate) fn named(&self) -> [(&'static str, &Arc<dyn SecretStore>); 3] {
        [
            ("reader", &self.reader),
            ("writer", &self.writer),
            ("manager", &self.manager),
        ]
    }
}

impl From<Arc<dyn SecretStore>> for Handles {
    fn from(store: Arc<dyn SecretStore>) -> Self {
        Self::same(store)
    }
}

/// What the reader's capabilities are asked about.
pub(crate) const READS: Capability = Capability::READ
    .union(Capability::VERSIONS)
    .union(Capability::FIELDS);

/// What the manager's capabilities are asked about.
pub(crate) const MANAGES: Capability = Capability::DELETE
    .union(Capability::LIST)
    .union(Capability::GENERATE)
    .union(Capability::GENERATES_REMOTELY);
