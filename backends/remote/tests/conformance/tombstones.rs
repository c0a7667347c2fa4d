//! Secrets of several fields that are deleted: hidden with all of them, brought back with all of
//! them, or replaced without any.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyhaul_core::{
    ErrorKind, Field, GetOptions, ListOptions, MemoryStore, PutMode, PutOptions, Request, Result,
    SecretBytes, SecretPath, SecretStore,
};
use keyhaul_remote::client::{RemoteStore, Service};
use keyhaul_remote::protocol::{DeleteRequest, GrantRequest, RestoreRequest};

use crate::service::Live;
use crate::{SOFTLY, openbao};

const FIELDS: [(&str, &str); 3] = [
    ("key", "AQBfcmFuZG9t"),
    ("passphrase", "correct horse"),
    ("user", "client.web01"),
];

/// A service over some store, with a secret of several fields that a node reads.
struct Ground {
    live: Live,
    manager: Service,
    operator: RemoteStore,
    node: RemoteStore,
}

impl Ground {
    async fn over(store: Arc<dyn SecretStore>) -> Self {
        let live = Live::over(store, SOFTLY).await;
        let ground = Self {
            manager: live.service("manager"),
            operator: live.service("operator").store(),
            node: live.service("node").store(),
            live,
        };
        let grant = GrantRequest {
            scope: "web01".into(),
            node: "one".into(),
            names: Vec::new(),
            expires: None,
            if_epoch: None,
        };
        let granted = ground.manager.grant(&grant, &Request::default()).await;
        granted.expect("granted");
        ground.put_all().await;
        ground
    }

    async fn put_all(&self) {
        let map = all().to_string();
        let written = self.put(Field::all(), &map, PutMode::Overwrite).await;
        written.expect("written");
    }

    async fn put(&self, field: Field, value: &str, mode: PutMode) -> Result<()> {
        let value = SecretBytes::copy_from(value.as_bytes());
        let options = PutOptions::default().mode(mode).field(Some(field));
        self.operator.put(&ceph(), &value, &options).await.map(drop)
    }

    /// What the node reads of a field: a text, or why not.
    async fn field(&self, name: &str) -> Result<String, ErrorKind> {
        let options = GetOptions::default().field(Some(field(name)));
        let secret = self.node.get(&ceph(), &options).await;
        secret.map(text).map_err(|error| error.kind())
    }

    /// All of them, as one.
    async fn whole(&self) -> Result<serde_json::Value, ErrorKind> {
        let options = GetOptions::default().field(Some(Field::all()));
        let secret = self.node.get(&ceph(), &options).await;
        let json = |secret| serde_json::from_str(&text(secret)).expect("JSON");
        secret.map(json).map_err(|error| error.kind())
    }

    async fn delete(&self) {
        let delete = DeleteRequest {
            secret: "web01/ceph".into(),
            version: None,
            force: true,
        };
        let done = self.manager.delete(&delete, &Request::default()).await;
        let until = done.expect("deleted").restorable_until;
        assert!(until.is_some(), "it is deleted for good");
    }

    async fn restore(&self) -> Result<()> {
        let secret = "web01/ceph".into();
        let request = RestoreRequest { secret };
        let done = self.manager.restore(&request, &Request::default()).await;
        done.map(drop)
    }

    async fn listed(&self) -> Vec<String> {
        let scope = SecretPath::new("web01").expect("a path");
        let page = self.manager.store();
        let page = page.list(&scope, &ListOptions::default()).await;
        let secrets = page.expect("listed").secrets;
        secrets.iter().map(SecretPath::to_string).collect()
    }

    #[track_caller]
    fn is_all(whole: Result<serde_json::Value, ErrorKind>) {
        assert_eq!(whole, Ok(all()));
    }
}

fn all() -> serde_json::Value {
    serde_json::json!(BTreeMap::from(FIELDS))
}

fn ceph() -> SecretPath {
    SecretPath::new("web01/ceph").expect("a path")
}

fn field(name: &str) -> Field {
    Field::new(name).expect("plain letters")
}

fn text(secret: keyhaul_core::Secret) -> String {
    String::from_utf8(secret.value.expose().to_vec()).expect("text")
}

async fn every_field_is_hidden_and_comes_back(store: Arc<dyn SecretStore>) {
    let ground = Ground::over(store).await;
    let stat = || async {
        let stat = ground.node.stat(&ceph(), &GetOptions::default()).await;
        stat.map(|metadata| metadata.version)
            .map_err(|error| error.kind())
    };
    Ground::is_all(ground.whole().await);
    let version = stat().await;
    ground.delete().await;
    for (name, _) in FIELDS {
        assert_eq!(ground.field(name).await, Err(ErrorKind::NotFound), "{name}");
    }
    assert_eq!(ground.whole().await, Err(ErrorKind::NotFound));
    assert_eq!(stat().await, Err(ErrorKind::NotFound));
    assert_eq!(ground.listed().await, Vec::<String>::new());

    ground.restore().await.expect("restored");
    for (name, value) in FIELDS {
        assert_eq!(ground.field(name).await.as_deref(), Ok(value), "{name}");
    }
    Ground::is_all(ground.whole().await);
    assert_eq!(stat().await, version);
    assert_eq!(ground.listed().await, ["web01/ceph"]);
    ground.live.end().await;
}

async fn a_field_written_in_its_place_brings_no_sibling_back(store: Arc<dyn SecretStore>) {
    let ground = Ground::over(store).await;
    // The control: where nothing is deleted, the siblings stay.
    let written = ground.put(field("user"), "client.a", PutMode::Overwrite);
    written.await.expect("written");
    assert_eq!(ground.field("key").await.as_deref(), Ok(FIELDS[0].1));

    for (mode, value) in [
        (PutMode::Overwrite, "client.b"),
        (PutMode::Create, "client.c"),
    ] {
        ground.delete().await;
        let written = ground.put(field("user"), value, mode).await;
        written.expect("written");
        assert_eq!(ground.field("user").await.as_deref(), Ok(value));
        for name in ["key", "passphrase"] {
            assert_eq!(ground.field(name).await, Err(ErrorKind::NotFound), "{name}");
        }
        assert_eq!(ground.whole().await, Ok(serde_json::json!({"user": value})));
        let nothing = ground.restore().await.expect_err("nothing is deleted");
        assert_eq!(nothing.kind(), ErrorKind::NotFound);
        ground.put_all().await;
    }
    ground.live.end().await;
}

fn memory() -> Arc<dyn SecretStore> {
    Arc::new(MemoryStore::new("behind").with_fields(field("passphrase")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_over_the_memory_store() {
    every_field_is_hidden_and_comes_back(memory()).await;
    a_field_written_in_its_place_brings_no_sibling_back(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_over_openbao() {
    let (_server, store) = openbao();
    every_field_is_hidden_and_comes_back(store).await;
    let (_server, store) = openbao();
    a_field_written_in_its_place_brings_no_sibling_back(store).await;
}
