//! A store's logins, through its contract alone, at a real OpenBao.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use keyhaul_core::registry::Options;
use keyhaul_core::{
    Capability, Error, ErrorKind, GetOptions, SecretBytes, SecretPath, SecretStore, StoreConfig,
};
use keyhaul_servers::OpenBao;
use keyhaul_vault::{Question, VaultStore, login, logout, question};
use serde_json::json;

fn server() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = OpenBao::dev();
        server.write(
            "secret/data/web01/root",
            &json!({"data": {"value": "hunter2"}}),
        );
        let hcl = "path \"secret/data/web01/*\" { capabilities = [\"read\"] }";
        server.policy("web01", hcl);
        server
    })
}

/// A store of the shared server, as the policy declares it.
fn config(auth: &[(&str, &str)]) -> StoreConfig {
    let auth = Options::at("keyhaul.toml:2:1", auth.iter().copied());
    let options = Options::at("keyhaul.toml:2:1", [("auth", auth)]);
    let address = server().address().replace("http://", "vault+http://");
    StoreConfig::new(
        "site",
        &format!("{address}/secret"),
        options,
        "keyhaul.toml:1:1",
    )
    .expect("a store")
}

fn private(folder: &Path, name: &str, text: &str) -> String {
    use std::io::Write;
    let path = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = file.open(&path).expect("opened");
    file.write_all(text.as_bytes()).expect("written");
    format!("file:{}", path.display())
}

async fn read(store: &VaultStore, path: &str) -> Result<Vec<u8>, Error> {
    let path = SecretPath::new(path).expect("a path");
    let secret = store.get(&path, &GetOptions::default()).await?;
    Ok(secret.value.expose().to_vec())
}

/// What the system denies on the way is not taken for the server's refusal of the mount.
#[tokio::test]
async fn a_credential_that_others_can_read_is_refused_by_its_name() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let source = private(folder.path(), "token", server().root_token());
    let config = config(&[("method", "token"), ("token", &source)]);
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path().join("token"), permissions).expect("set");
    };
    mode(0o644);
    let store = VaultStore::open(&config).expect("a store");
    let error = read(&store, "web01/root").await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("has mode 0644"), "{error}");
    let advice = error.advice().expect("advice");
    assert!(advice.starts_with("chmod 0600 "), "{advice}");
    // The control.
    mode(0o600);
    assert_eq!(read(&store, "web01/root").await.expect("read"), b"hunter2");
}

#[tokio::test]
async fn a_store_logs_in_once_and_a_revoked_token_fails_no_request() {
    let folder = tempfile::tempdir().expect("folder");
    let server = server();
    server.enable_auth("approle", "approle");
    let role_id = server.approle("approle", "web01", &json!({"token_policies": ["web01"]}));
    let config = config(&[
        ("method", "approle"),
        ("role-id", &private(folder.path(), "role-id", &role_id)),
        (
            "secret-id",
            &private(
                folder.path(),
                "secret-id",
                &server.secret_id("approle", "web01"),
            ),
        ),
    ]);
    let store = VaultStore::open(&config).expect("opened");
    store.probe().await.expect("probed");
    assert_eq!(read(&store, "web01/root").await.expect("read"), b"hunter2");
    let accessors = || {
        let reply = server.request("LIST", "auth/token/accessors", server.root_token(), None);
        let keys = reply.json["data"]["keys"].as_array().cloned();
        keys.expect("accessors")
    };
    // Whatever the store holds dies in the middle.
    let mut revoked = 0;
    for accessor in accessors() {
        let body = json!({"accessor": accessor});
        // What was revoked just now, as the token of a probe, can be listed and not be there.
        let looked = server.request(
            "POST",
            "auth/token/lookup-accessor",
            server.root_token(),
            Some(&body),
        );
        if looked.json["data"]["path"] == "auth/approle/login" {
            server.write("auth/token/revoke-accessor", &body);
            revoked += 1;
        }
    }
    assert!(revoked > 0, "the store holds a token");
    assert_eq!(read(&store, "web01/root").await.expect("read"), b"hunter2");
    let error = read(&store, "web02/root").await.expect_err("no right");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(
        error.message().contains("secret/data/web02/root"),
        "{error}"
    );
}

#[tokio::test]
async fn a_probe_leaves_a_wrapped_secret_id_to_be_spent() {
    let folder = tempfile::tempdir().expect("folder");
    let server = server();
    server.enable_auth("approle", "wrapped");
    let role_id = server.approle("wrapped", "web01", &json!({"token_policies": ["web01"]}));
    let wrapping = server.wrapped_secret_id("wrapped", "web01", "10m");
    let config = config(&[
        ("method", "approle"),
        ("mount", "wrapped"),
        ("role-id", &private(folder.path(), "role-id", &role_id)),
        (
            "wrapped-secret-id",
            &private(folder.path(), "wrapped", &wrapping),
        ),
    ]);
    for _ in 0..2 {
        let store = VaultStore::open(&config).expect("opened");
        store.probe().await.expect("unspent");
        // As `keyhaul check` goes on to ask.
        let can = store.capabilities().await.expect("what every version can");
        assert!(can.has(Capability::READ) && !can.has(Capability::VERSIONS));
    }
    // A login spends it, and all that follow use what it kept.
    assert_eq!(question(&config).expect("asked"), Question::Nothing);
    login(&config, None).await.expect("logged in");
    for _ in 0..2 {
        let store = VaultStore::open(&config).expect("opened");
        store.probe().await.expect("the kept login");
        let can = store.capabilities().await.expect("asked");
        assert!(can.has(Capability::VERSIONS));
        assert_eq!(read(&store, "web01/root").await.expect("read"), b"hunter2");
    }
    assert!(logout(&config).await.expect("logged out"));
    let store = VaultStore::open(&config).expect("opened");
    let error = store.probe().await.expect_err("spent");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let error = read(&store, "web01/root").await.expect_err("spent");
    assert!(error.message().contains("used already"), "{error}");
}

#[tokio::test]
async fn a_person_logs_in_for_the_day_and_out_again() {
    let server = server();
    server.enable_auth("userpass", "people");
    let options = json!({"token_policies": ["web01"], "token_ttl": "8h"});
    server.userpass("people", "ada", "correct horse", &options);
    let config = config(&[
        ("method", "userpass"),
        ("mount", "people"),
        ("username", "ada"),
    ]);
    let open = || VaultStore::open(&config).expect("opened");
    let error = read(&open(), "web01/root").await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert_eq!(
        question(&config).expect("asked"),
        Question::Password("ada".to_owned())
    );
    let wrong = SecretBytes::copy_from(b"wrong horse");
    let error = login(&config, Some(wrong)).await.expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!format!("{error:?}").contains("wrong horse"));
    let right = SecretBytes::copy_from(b"correct horse");
    let made = login(&config, Some(right)).await.expect("logged in");
    assert!(made.policies.contains(&"web01".to_owned()) && made.renewable);
    assert_eq!(read(&open(), "web01/root").await.expect("read"), b"hunter2");
    let can = open().capabilities().await.expect("asked");
    assert!(can.has(Capability::READ));
    assert!(logout(&config).await.expect("logged out"));
    let error = read(&open(), "web01/root").await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}
