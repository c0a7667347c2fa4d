//! What a 403 means: no right, or no longer a token.

use super::*;

#[tokio::test]
async fn what_is_denied_stays_denied_after_one_lookup() {
    let files = Files::new();
    let method = approle(&files, "ar-denied", &json!({"token_policies": ["reader"]}));
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    read(&http, &identity, "apps/web").await.expect("opened");
    assert_eq!(count(&proxy, LOOKUP), 0, "what works is not asked about");
    let error = read(&http, &identity, "other/web")
        .await
        .expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(count(&proxy, LOOKUP), 1);
    assert_eq!(count(&proxy, "POST /v1/auth/ar-denied/login"), 1);
}

#[tokio::test]
async fn a_revoked_token_of_the_policy_is_told_dead_unless_its_source_has_another() {
    let files = Files::new();
    let (proxy, http) = watched();
    let server = server();
    let first = server.token(&["reader"], "1h");
    let source = files.write("token", &first);
    let identity = identity(&http, method(&[("method", "token"), ("token", &source)]));
    read(&http, &identity, "apps/web").await.expect("opened");
    server.revoke(&first);
    let error = read(&http, &identity, "apps/web").await.expect_err("dead");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("revoked"), "{error}");
    assert!(!format!("{error:?}").contains(&first));
    assert_eq!(count(&proxy, LOOKUP), 1);
    // An agent writes the next token into the same file.
    files.write("token", &server.token(&["reader"], "1h"));
    read(&http, &identity, "apps/web").await.expect("opened");
}

#[tokio::test]
async fn a_token_that_is_used_up_is_told_so_and_a_login_is_made_again() {
    let files = Files::new();
    let server = server();
    let http = http(server.address());
    let made = server.token_with(&json!({"policies": ["reader"], "num_uses": 2}));
    let source = files.write("token", made["client_token"].as_str().expect("a token"));
    let plain = identity(&http, method(&[("method", "token"), ("token", &source)]));
    for _ in 0..2 {
        read(&http, &plain, "apps/web").await.expect("a use");
    }
    let error = read(&http, &plain, "apps/web").await.expect_err("used up");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("used up"), "{error}");

    let role = json!({"token_policies": ["reader"], "token_num_uses": 2});
    let logged_in = identity(&http, approle(&files, "ar-uses", &role));
    for _ in 0..5 {
        read(&http, &logged_in, "apps/web")
            .await
            .expect("a new login");
    }
}

#[tokio::test]
async fn a_token_that_may_not_look_itself_up_is_told_alive_all_the_same() {
    let files = Files::new();
    let role = json!({"token_policies": ["reader"], "token_no_default_policy": true});
    let method = approle(&files, "ar-blind", &role);
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    for _ in 0..3 {
        let error = read(&http, &identity, "other/web")
            .await
            .expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    let login = "POST /v1/auth/ar-blind/login";
    assert_eq!(count(&proxy, login), 1);
    // And dead when it is.
    server().revoke(&text(&identity.token(None).await.expect("held")));
    read(&http, &identity, "apps/web")
        .await
        .expect("a new login");
    assert_eq!(count(&proxy, login), 2);
}

#[tokio::test]
async fn a_probe_tells_living_tokens_from_dead_ones() {
    let files = Files::new();
    let server = server();
    let (proxy, http) = watched();
    let token = server.token(&[], "1h");
    let source = files.write("token", &token);
    let plain = || identity(&http, method(&[("method", "token"), ("token", &source)]));
    plain().probe(None).await.expect("alive");
    assert_eq!(proxy.requests(), [LOOKUP]);
    server.revoke(&token);
    let error = plain().probe(None).await.expect_err("dead");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let logging_in = approle(&files, "ar-probe", &json!({}));
    identity(&http, logging_in)
        .probe(None)
        .await
        .expect("logged in");
}
