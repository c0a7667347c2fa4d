//! The suite over the reference store, whole and restricted.

use std::sync::Arc;

use keyhaul_conformance::{Handles, report, run};
use keyhaul_core::{Capability, Field, MemoryStore, SecretStore};

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_keeps_the_contract() {
    let trials = run(async || Handles::same(Arc::new(MemoryStore::new("memory")))).await;
    assert!(trials >= 50, "only {trials} trials ran");
}

fn with_fields() -> MemoryStore {
    MemoryStore::new("maps").with_fields(Field::new("value").expect("plain letters"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_with_fields_keeps_the_contract() {
    let without = run(async || Handles::same(Arc::new(MemoryStore::new("memory")))).await;
    let with = run(async || Handles::same(Arc::new(with_fields()))).await;
    // The trial of the law is one less, those of fields are nine more.
    assert_eq!(with, without + 8);
}

/// Each capability missing by itself, then a few sets that a real store has.
#[tokio::test(flavor = "multi_thread")]
async fn restricted_stores_keep_the_law() {
    let alone = Capability::all().iter().map(|one| Capability::all() - one);
    let sets = [
        Capability::empty(),
        Capability::READ,
        Capability::READ | Capability::LIST,
        Capability::READ | Capability::WRITE,
        Capability::READ | Capability::CREATE | Capability::DELETE,
        Capability::READ | Capability::WRITE | Capability::UPDATE,
        Capability::WRITE,
        Capability::CREATE | Capability::GENERATE | Capability::DELETE | Capability::LIST,
        Capability::GENERATE | Capability::CREATE | Capability::READ,
        // As Vault's KV v1: maps, and nothing that keeps a field's siblings.
        Capability::READ | Capability::WRITE | Capability::FIELDS | Capability::DELETE,
        Capability::READ | Capability::CREATE | Capability::FIELDS,
    ];
    let work = alone.chain(sets).map(|can| async move {
        let store = with_fields().with_capabilities(can);
        let store: Arc<dyn SecretStore> = Arc::new(store);
        let report = report(store).await;
        assert!(report.is_ok(), "with {:?}: {report}", can.names());
        report.trials.len()
    });
    let trials = futures_util::future::join_all(work).await;
    // Without any capability, the law's own trials are left.
    assert!(trials.iter().all(|trials| *trials >= 10), "{trials:?}");
}

/// A service where no one may do all: a node reads, an operator writes, a manager manages.
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_tried_together() {
    let report = report(roles::handles()).await;
    assert!(report.is_ok(), "{report}");
    assert!(report.trials.len() >= 50, "{report}");
}

mod roles {
    use futures_util::future::BoxFuture;
    use keyhaul_core::layers::{Call, Layer};
    use keyhaul_core::{Error, ErrorKind, Operation, Result};

    use super::*;

    /// Has a store do only what this allows.
    #[derive(Debug)]
    struct Role(Capability);

    pub(super) fn handles() -> Handles {
        let store = Arc::new(MemoryStore::new("service"));
        let role = |can| -> Arc<dyn SecretStore> { Role(can).over(store.clone()) };
        Handles {
            reader: role(Capability::READ),
            writer: role(Capability::WRITE),
            manager: role(Capability::DELETE),
        }
    }

    impl Layer for Role {
        async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
        where
            T: Send + 'a,
            F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
        {
            let right = match call.operation {
                Operation::Get | Operation::Stat => Capability::READ,
                Operation::Put => Capability::WRITE,
                Operation::Generate | Operation::Delete | Operation::List => Capability::DELETE,
                _ => Capability::empty(),
            };
            if !self.0.contains(right) {
                return Err(Error::new(ErrorKind::PermissionDenied, "not this role's"));
            }
            attempt().await
        }
    }
}
