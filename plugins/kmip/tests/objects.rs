//! What lies on the server, seen by another client of it: PyKMIP's own.

mod support;

use keyhaul_core::registry::Value;
use keyhaul_core::{ErrorKind, GetOptions, SecretPath, SecretStore, SecretStoreExt as _};
use keyhaul_servers::PyKmip;
use support::{Files, delete, get, hex, path, put, server, store, store_of, value};

/// A client of a test's own, and its store.
struct Client {
    files: Files,
    store: std::sync::Arc<dyn SecretStore>,
}

impl Client {
    fn new(name: &str) -> Self {
        Self::with(name, &[])
    }

    fn with(name: &str, more: &[(&str, Value)]) -> Self {
        Self::on(server(), name, more)
    }

    fn on(server: &PyKmip, name: &str, more: &[(&str, Value)]) -> Self {
        let files = server.client(name);
        let store = store(&server.url(), &server.ca_path(), &files, more);
        Self { files, store }
    }

    /// Runs PyKMIP's client as the same one, on the shared server.
    fn ask(&self, arguments: &[&str]) -> String {
        server().ask(&self.files, arguments)
    }

    async fn put(&self, at: &str, value: &str) {
        put(&*self.store, at, value).await;
    }

    /// Why there is nothing to be read.
    async fn refused(&self, at: &str) -> ErrorKind {
        get(&*self.store, at).await.expect_err("refused").kind()
    }
}

#[tokio::test]
async fn what_another_client_registered_is_read_listed_and_replaced() {
    let client = Client::new("reader");
    client.ask(&["register", "secret", "web01/root", &hex(b"hunter2\n")]);
    let key: Vec<u8> = (0..32).collect();
    client.ask(&["register", "key", "web01/disk", &hex(&key)]);
    assert_eq!(value(&*client.store, "web01/root").await, "hunter2\n");
    let came = get(&*client.store, "web01/disk").await;
    assert_eq!(came.expect("read").value.expose(), key);
    let listed = client.store.list_all(&SecretPath::root()).await;
    assert_eq!(
        listed.expect("listed"),
        [path("web01/disk"), path("web01/root")]
    );

    client.put("web01/disk", "another").await;
    assert_eq!(value(&*client.store, "web01/disk").await, "another");
    let lies = client.ask(&["get", "web01/disk"]);
    assert_eq!(lies, format!("SecretData {}", hex(b"another")));
}

#[tokio::test]
async fn what_keyhaul_writes_another_client_reads() {
    let client = Client::new("writer");
    client.put("web01/root", "").await;
    assert_eq!(client.ask(&["get", "web01/root"]), "SecretData");
    client.put("web01/root", "tr\u{e4}umerei\0").await;
    let expected = format!("SecretData {}", hex("tr\u{e4}umerei\0".as_bytes()));
    assert_eq!(client.ask(&["get", "web01/root"]), expected);
    assert_eq!(client.ask(&["count", "web01/root"]), "1");
    let gone = delete(&*client.store, "web01/root");
    gone.await.expect("deleted");
    assert_eq!(client.ask(&["count", "web01/root"]), "0");
}

#[tokio::test]
async fn of_several_objects_of_one_name_keyhauls_counts_and_the_next_write_clears_the_others() {
    let client = Client::new("twice");
    client.put("a", "ours").await;
    client.ask(&["register", "secret", "a", &hex(b"theirs")]);
    client.ask(&["register", "secret", "a", &hex(b"theirs too")]);
    assert_eq!(client.ask(&["count", "a"]), "3");
    assert_eq!(value(&*client.store, "a").await, "ours");
    let listed = client.store.list_all(&SecretPath::root()).await;
    assert_eq!(listed.expect("listed"), [path("a")]);
    client.put("a", "new").await;
    assert_eq!(
        client.ask(&["get", "a"]),
        format!("SecretData {}", hex(b"new"))
    );

    client.ask(&["register", "secret", "a", &hex(b"theirs")]);
    let gone = delete(&*client.store, "a");
    gone.await.expect("deleted");
    assert_eq!(client.ask(&["count", "a"]), "0");
}

#[tokio::test]
async fn an_active_object_is_read_and_is_revoked_before_it_is_destroyed() {
    let client = Client::new("active");
    for name in ["deleted", "replaced"] {
        client.ask(&["register", "secret", name, &hex(b"hunter2")]);
        client.ask(&["activate", name]);
        assert_eq!(value(&*client.store, name).await, "hunter2");
        // The control: the server does not destroy it as it is.
        assert!(client.ask(&["destroy", name]).contains("PERMISSION_DENIED"));
    }
    let gone = delete(&*client.store, "deleted");
    gone.await.expect("deleted");
    assert_eq!(client.ask(&["count", "deleted"]), "0");
    client.put("replaced", "new").await;
    assert_eq!(client.ask(&["count", "replaced"]), "1");
}

#[tokio::test]
async fn objects_of_other_kinds_are_not_the_stores() {
    let client = Client::new("kinds");
    client.ask(&["register", "opaque", "a", &hex(b"hunter2")]);
    assert_eq!(client.refused("a").await, ErrorKind::NotFound);
    let listed = client.store.list_all(&SecretPath::root()).await;
    assert!(listed.expect("listed").is_empty());
    client.put("a", "ours").await;
    assert_eq!(value(&*client.store, "a").await, "ours");
    let gone = delete(&*client.store, "a");
    gone.await.expect("deleted");
    assert_eq!(client.ask(&["count", "a"]), "1");
}

#[tokio::test]
async fn prefixes_and_groups_keep_stores_apart() {
    let text = |text: &str| Value::Text(text.to_owned());
    let bare = Client::new("apart");
    let prefixed = Client::with("apart", &[("prefix", text("keyhaul/"))]);
    let grouped = Client::with("apart", &[("group", text("vms"))]);
    bare.put("a", "bare").await;
    prefixed.put("a", "prefixed").await;
    grouped.put("b", "grouped").await;
    assert_eq!(value(&*prefixed.store, "a").await, "prefixed");
    assert_eq!(value(&*bare.store, "keyhaul/a").await, "prefixed");
    assert_eq!(value(&*bare.store, "b").await, "grouped");
    assert_eq!(grouped.refused("a").await, ErrorKind::NotFound);
    let root = SecretPath::root();
    let all = bare.store.list_all(&root).await.expect("listed");
    assert_eq!(all, [path("a"), path("b"), path("keyhaul/a")]);
    let listed = prefixed.store.list_all(&root).await.expect("listed");
    assert_eq!(listed, [path("a")]);
    let listed = grouped.store.list_all(&root).await.expect("listed");
    assert_eq!(listed, [path("b")]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_refused() {
    // A server of its own: everybody finds what is shown.
    let server = PyKmip::start();
    let client = |name| Client::on(&server, name, &[]);
    let (owner, other) = (client("owner"), client("other"));
    let value_hex = hex(b"hunter2");
    server.ask(&owner.files, &["register", "secret", "hidden", &value_hex]);
    let shown = ["register", "secret", "shown", &value_hex, "shown"];
    server.ask(&owner.files, &shown);
    // By the server's default policy nobody else finds it.
    assert_eq!(other.refused("hidden").await, ErrorKind::NotFound);
    // By this one everybody does, and may not have it.
    assert_eq!(other.refused("shown").await, ErrorKind::PermissionDenied);
    let gone = delete(&*other.store, "shown");
    let error = gone.await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("client-cert"))
    );
    for name in ["hidden", "shown"] {
        assert_eq!(value(&*owner.store, name).await, "hunter2");
    }
}

#[tokio::test]
async fn many_secrets_are_listed_in_pages_and_read_at_once() {
    let client = Client::new("many");
    let paths: Vec<_> = (0..60).map(|n| path(&format!("vm{n:03}/root"))).collect();
    for at in &paths {
        client.put(at.as_str(), at.as_str()).await;
    }
    let listed = client.store.list_all(&SecretPath::root()).await;
    assert_eq!(listed.expect("listed"), paths);
    let came = client.store.get_many(&paths, &GetOptions::default()).await;
    for (at, came) in paths.iter().zip(came) {
        assert_eq!(came.expect("read").value.expose(), at.as_str().as_bytes());
    }
}

#[tokio::test]
async fn probing_reaches_the_server_and_every_version_works() {
    store_of("prober").probe().await.expect("reached");
    for version in ["1.1", "1.3", "1.4"] {
        let client = Client::with("prober", &[("version", Value::Text(version.into()))]);
        client.store.probe().await.expect(version);
        client.put("a", version).await;
        assert_eq!(value(&*client.store, "a").await, version);
    }
}

#[tokio::test]
async fn a_value_can_be_registered_as_a_symmetric_key() {
    let key = ("register", Value::Text("symmetric-key".into()));
    let client = Client::with("keys", &[key]);
    // As an AES key has, and as none has.
    for text in ["0123456789abcdef", "hunter2", "x"] {
        client.put("a", text).await;
        assert_eq!(value(&*client.store, "a").await, text);
        let lies = client.ask(&["get", "a"]);
        assert_eq!(lies, format!("SymmetricKey {}", hex(text.as_bytes())));
    }
    let listed = client.store.list_all(&SecretPath::root()).await;
    assert_eq!(listed.expect("listed"), [path("a")]);
}
