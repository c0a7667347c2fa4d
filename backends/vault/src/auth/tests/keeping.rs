//! Where tokens are found, and logins that outlast a process.

use std::process::Command;

use keyhaul_core::SecretBytes;

use super::super::Question;
use super::super::login::{log_in as login, log_out as logout, question_of as question};
use super::*;

/// A userpass user of the shared server without a password in the policy.
fn user(mount: &str) -> Method {
    server().enable_auth("userpass", mount);
    let options = json!({"token_policies": ["reader"], "token_ttl": "1h"});
    server().userpass(mount, "ada", "hunter2", &options);
    method(&[
        ("method", "userpass"),
        ("mount", mount),
        ("username", "ada"),
    ])
}

fn nowhere() -> Environment {
    Environment::of(&[])
}

fn password() -> Option<SecretBytes> {
    Some(SecretBytes::copy_from(b"hunter2"))
}

/// In the second process, the first one's server.
const SECOND: &str = "KEYHAUL_TEST_SECOND_PROCESS";

#[tokio::test]
async fn a_kept_login_serves_the_next_process_until_logout_revokes_it() {
    if let Ok(address) = std::env::var(SECOND) {
        let keys = [
            ("method", "userpass"),
            ("mount", "up-kept"),
            ("username", "ada"),
        ];
        let http = http(&address);
        let identity = identity(&http, method(&keys));
        read(&http, &identity, "apps/web").await.expect("opened");
        return;
    }
    let method = user("up-kept");
    let http = http(server().address());
    let nobody = identity(&http, method.clone());
    let error = nobody.token(None).await.expect_err("not logged in");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("keyhaul login"))
    );

    assert_eq!(question(&method), Question::Password("ada".to_owned()));
    let made = login(&http, &method, &nowhere(), password())
        .await
        .expect("logged in");
    assert_eq!(made.policies, ["default", "reader"]);
    let left = made
        .expires
        .expect("a lease")
        .duration_since(std::time::SystemTime::now());
    assert!(
        left.is_ok_and(|left| left > Duration::from_secs(3500) && left < Duration::from_secs(3601))
    );

    // Another process, once in this session and once in one of its own.
    let name = "auth::tests::keeping::a_kept_login_serves_the_next_process_until_logout_revokes_it";
    let program = std::env::current_exe().expect("this program");
    for session in [false, true] {
        let mut second = if session {
            let mut keyctl = Command::new("keyctl");
            keyctl.args(["session", "-"]).arg(&program);
            keyctl
        } else {
            Command::new(&program)
        };
        let output = second
            .args(["--exact", name])
            .env(SECOND, server().address())
            .output()
            .unwrap_or_else(|error| {
                panic!("keyctl is not installed: scripts/setup test ({error})")
            });
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }

    let kept = text(
        &identity(&http, method.clone())
            .token(None)
            .await
            .expect("kept"),
    );
    assert!(logout(&http, &method).await.expect("logged out"));
    let reply = server().request("GET", "apps/web", &kept, None);
    assert_eq!(reply.status, 403, "revoked");
    assert!(!logout(&http, &method).await.expect("nothing left"));
    identity(&http, method).token(None).await.expect_err("gone");
}

#[tokio::test]
async fn a_kept_login_that_is_dead_is_dropped() {
    let method = user("up-dropped");
    let http = http(server().address());
    login(&http, &method, &nowhere(), password())
        .await
        .expect("logged in");
    let store = identity(&http, method.clone());
    let token = text(&store.token(None).await.expect("kept"));
    server().revoke(&token);
    let error = read(&http, &store, "apps/web").await.expect_err("dead");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("the kept login"), "{error}");
    assert!(!logout(&http, &method).await.expect("dropped already"));
}

#[tokio::test]
async fn a_kept_login_ends_with_its_lease() {
    let server = server();
    server.enable_auth("userpass", "up-short");
    let options = json!({"token_policies": ["reader"], "token_ttl": "2s"});
    server.userpass("up-short", "ada", "hunter2", &options);
    let method = method(&[
        ("method", "userpass"),
        ("mount", "up-short"),
        ("username", "ada"),
    ]);
    let http = http(server.address());
    login(&http, &method, &nowhere(), password())
        .await
        .expect("logged in");
    identity(&http, method.clone())
        .token(None)
        .await
        .expect("kept");
    until("the kernel forgets it", async || {
        identity(&http, method.clone()).token(None).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_second_login_revokes_the_first_and_a_wrong_password_keeps_it() {
    let method = user("up-twice");
    let http = http(server().address());
    let try_with = async |password: &[u8]| {
        let password = Some(SecretBytes::copy_from(password));
        login(&http, &method, &nowhere(), password).await
    };
    let kept = async || {
        text(
            &identity(&http, method.clone())
                .token(None)
                .await
                .expect("kept"),
        )
    };
    try_with(b"hunter2").await.expect("logged in");
    let first = kept().await;
    let error = try_with(b"hunter3").await.expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert_eq!(kept().await, first);
    try_with(b"hunter2").await.expect("logged in");
    assert_ne!(kept().await, first);
    assert_eq!(
        server().request("GET", "apps/web", &first, None).status,
        403
    );
    assert!(logout(&http, &method).await.expect("logged out"));
}

#[tokio::test]
async fn a_token_is_looked_for_in_its_places_in_order() {
    let files = Files::new();
    let server = server();
    // An address of its own: kept logins are told apart by it.
    let proxy = Proxy::to(server.address());
    let http = http(&format!("http://{}", proxy.address()));
    let home = files.path().to_str().expect("a path");
    let found = async |variables: &[(&str, &str)]| {
        let environment = Environment::of(variables);
        let identity = Identity::new(Arc::clone(&http), Method::found(), environment);
        identity.token(None).await.map(|token| text(&token))
    };
    let error = found(&[("HOME", home)]).await.expect_err("none");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    for place in ["$BAO_TOKEN", "$VAULT_TOKEN", "kept login", "~/.vault-token"] {
        assert!(error.message().contains(place), "{error}");
    }

    files.write(".vault-token", "from-the-file\n");
    assert_eq!(
        found(&[("HOME", home)]).await.expect("found"),
        "from-the-file"
    );
    assert_eq!(question(&Method::found()), Question::Token);
    let token = server.token(&["reader"], "1h");
    let answer = Some(SecretBytes::copy_from(token.as_bytes()));
    login(&http, &Method::found(), &nowhere(), answer)
        .await
        .expect("kept");
    let variables = [
        ("HOME", home),
        ("BAO_TOKEN", ""),
        ("VAULT_TOKEN", "from-vault"),
    ];
    assert_eq!(
        found(&variables)
            .await
            .expect("kept: BAO_TOKEN hides VAULT_TOKEN"),
        token
    );
    assert_eq!(found(&variables[2..]).await.expect("found"), "from-vault");
    assert_eq!(
        found(&[("BAO_TOKEN", "from-bao"), ("VAULT_TOKEN", "from-vault")])
            .await
            .expect("found"),
        "from-bao"
    );
    assert!(logout(&http, &Method::found()).await.expect("logged out"));

    let path = files.path().join(".vault-token");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path, open).expect("mode");
    let error = found(&[("HOME", home)]).await.expect_err("loose");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}
