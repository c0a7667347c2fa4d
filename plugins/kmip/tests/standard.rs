//! Servers that keep rules of the standard that PyKMIP does not keep of itself.

mod support;

use std::sync::Arc;

use keyhaul_core::{
    ErrorKind, PutOptions, SecretBytes, SecretPath, SecretStore, SecretStoreExt as _,
};
use keyhaul_servers::KmipRule::{self, DestroyedStay, NoSearch, UniqueNames};
use keyhaul_servers::PyKmip;
use support::{Files, delete, get, hex, path, put, store, value};

struct Strict {
    server: PyKmip,
    files: Files,
    store: Arc<dyn SecretStore>,
}

impl Strict {
    fn new(rules: &[KmipRule]) -> Self {
        let server = PyKmip::strict(rules);
        let files = server.client("x");
        let store = store(&server.url(), &server.ca_path(), &files, &[]);
        Self {
            server,
            files,
            store,
        }
    }

    /// Runs PyKMIP's client.
    fn ask(&self, arguments: &[&str]) -> String {
        self.server.ask(&self.files, arguments)
    }

    async fn listed(&self) -> Vec<SecretPath> {
        let listed = self.store.list_all(&SecretPath::root()).await;
        listed.expect("listed")
    }

    async fn is_absent(&self, at: &str) -> bool {
        let got = get(&*self.store, at).await;
        got.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

#[tokio::test]
async fn where_a_name_is_one_objects_a_value_is_replaced_and_takes_the_name_over() {
    let strict = Strict::new(&[UniqueNames]);
    // The control: the server refuses a second object of a name, by number 7.
    let theirs = ["register", "secret", "theirs", &hex(b"theirs")];
    strict.ask(&theirs);
    assert_eq!(strict.ask(&theirs), "INVALID_FIELD");
    for text in ["one", "two", "three"] {
        for at in ["ours", "theirs"] {
            put(&*strict.store, at, text).await;
            assert_eq!(value(&*strict.store, at).await, text);
        }
        assert_eq!(strict.listed().await, [path("ours"), path("theirs")]);
    }
    for at in ["ours", "theirs"] {
        let lies = strict.ask(&["get", at]);
        assert_eq!(lies, format!("SecretData {}", hex(b"three")));
    }
    assert_eq!(strict.ask(&["everything"]), "2");
    for at in ["ours", "theirs"] {
        let gone = delete(&*strict.store, at).await;
        gone.expect("deleted");
        assert!(strict.is_absent(at).await);
    }
}

#[tokio::test]
async fn what_was_destroyed_and_stays_is_no_secret_and_its_name_no_hindrance() {
    let strict = Strict::new(&[UniqueNames, DestroyedStay]);
    for text in ["one", "two"] {
        for _ in 0..2 {
            put(&*strict.store, "a", text).await;
            assert_eq!(value(&*strict.store, "a").await, text);
            assert_eq!(strict.listed().await, [path("a")]);
        }
        for _ in 0..2 {
            let gone = delete(&*strict.store, "a").await;
            gone.expect("deleted, or not there");
            assert!(strict.is_absent("a").await);
            assert!(strict.listed().await.is_empty());
        }
    }
    // The control: each of the four is there, and the name is the first's.
    assert_eq!(strict.ask(&["everything"]), "4");
    assert_eq!(strict.ask(&["count", "a"]), "1");
    assert_eq!(strict.ask(&["destroy", "a"]), "PERMISSION_DENIED");
}

#[tokio::test]
async fn a_server_that_finds_by_name_alone_keeps_the_older_value() {
    let strict = Strict::new(&[UniqueNames, NoSearch]);
    put(&*strict.store, "a", "one").await;
    let two = SecretBytes::copy_from(b"two");
    let (at, options) = (path("a"), PutOptions::default());
    let again = strict.store.put(&at, &two, &options).await;
    let error = again.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("delete the secret first"))
    );
    assert_eq!(value(&*strict.store, "a").await, "one");
    assert_eq!(strict.ask(&["everything"]), "1");
    // What the advice says.
    let gone = delete(&*strict.store, "a").await;
    gone.expect("deleted");
    put(&*strict.store, "a", "two").await;
    assert_eq!(value(&*strict.store, "a").await, "two");
}
