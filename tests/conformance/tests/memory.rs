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
    use async_trait::async_trait;
    use keyhaul_core::{
        Capabilities, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
        Metadata, Page, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath,
    };

    use super::*;

    /// The same store, with only these operations allowed.
    #[derive(Debug)]
    struct Role(Arc<MemoryStore>, Capability);

    pub(super) fn handles() -> Handles {
        let store = Arc::new(MemoryStore::new("service"));
        let role = |can| -> Arc<dyn SecretStore> { Arc::new(Role(store.clone(), can)) };
        Handles {
            reader: role(Capability::READ),
            writer: role(Capability::WRITE),
            manager: role(Capability::DELETE),
        }
    }

    impl Role {
        fn allow(&self, right: Capability) -> Result<()> {
            if self.1.contains(right) {
                return Ok(());
            }
            Err(Error::new(ErrorKind::PermissionDenied, "not this role's"))
        }
    }

    #[async_trait]
    impl SecretStore for Role {
        fn descriptor(&self) -> &Descriptor {
            self.0.descriptor()
        }

        async fn capabilities(&self) -> Result<Capabilities> {
            self.0.capabilities().await
        }

        async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
            self.allow(Capability::READ)?;
            self.0.get(path, options).await
        }

        async fn get_many(&self, paths: &[SecretPath], o: &GetOptions) -> Vec<Result<Secret>> {
            match self.allow(Capability::READ) {
                Ok(()) => self.0.get_many(paths, o).await,
                Err(error) => paths.iter().map(|_| Err(error.duplicate())).collect(),
            }
        }

        async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
            self.allow(Capability::READ)?;
            self.0.stat(path, options).await
        }

        async fn put(&self, p: &SecretPath, v: &SecretBytes, o: &PutOptions) -> Result<Metadata> {
            self.allow(Capability::WRITE)?;
            self.0.put(p, v, o).await
        }

        async fn generate(&self, p: &SecretPath, r: &Recipe, o: &PutOptions) -> Result<Metadata> {
            self.allow(Capability::DELETE)?;
            self.0.generate(p, r, o).await
        }

        async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
            self.allow(Capability::DELETE)?;
            self.0.delete(path, options).await
        }

        async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
            self.allow(Capability::DELETE)?;
            self.0.list(prefix, options).await
        }

        async fn probe(&self) -> Result<()> {
            self.0.probe().await
        }
    }
}
