//! Tokens are renewed and replaced in time, by one request for all.

use keyhaul_servers::Mode;

use super::*;

const READ: &str = "GET /v1/apps/web";

#[tokio::test]
async fn a_token_is_renewed_at_two_thirds_of_its_lease_and_serves_on() {
    let files = Files::new();
    let role = json!({"token_policies": ["reader"], "token_ttl": "3s", "token_max_ttl": "1h"});
    let method = approle(&files, "ar-renew", &role);
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    let start = Instant::now();
    let first = identity.token(None).await.expect("logged in");
    until("two renewals", async || {
        read(&http, &identity, "apps/web").await.expect("opened");
        if start.elapsed() < Duration::from_millis(1900) {
            assert_eq!(count(&proxy, RENEWAL), 0, "too early");
        }
        count(&proxy, RENEWAL) >= 2
    })
    .await;
    // Past the first lease's end, it is the same token, and nobody logged in again.
    assert!(start.elapsed() > Duration::from_secs(3));
    let now = identity.token(None).await.expect("held");
    assert_eq!(text(&now), text(&first));
    assert_eq!(count(&proxy, "POST /v1/auth/ar-renew/login"), 1);
}

#[tokio::test]
async fn what_cannot_be_renewed_is_replaced_before_its_end() {
    let files = Files::new();
    // Batch tokens cannot be renewed; a service token cannot beyond its utmost end.
    for (mount, role) in [
        (
            "ar-batch",
            json!({"token_type": "batch", "token_ttl": "3s"}),
        ),
        ("ar-max", json!({"token_ttl": "3s", "token_max_ttl": "3s"})),
    ] {
        let mut role = role;
        role["token_policies"] = json!(["reader"]);
        let method = approle(&files, mount, &role);
        let (proxy, http) = watched();
        let identity = identity(&http, method);
        let login = format!("POST /v1/auth/{mount}/login");
        until("a third login", async || {
            read(&http, &identity, "apps/web").await.expect("opened");
            count(&proxy, &login) >= 3
        })
        .await;
        // None of the requests was refused in between.
        assert_eq!(count(&proxy, LOOKUP), 0, "{mount}");
    }
}

#[tokio::test]
async fn no_request_waits_for_a_renewal_that_hangs() {
    let files = Files::new();
    let role = json!({"token_policies": ["reader"], "token_ttl": "6s"});
    let method = approle(&files, "ar-hang", &role);
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    let first = identity.token(None).await.expect("logged in");
    proxy.set(Mode::Stall);
    until("a renewal that hangs", async || {
        let start = Instant::now();
        let token = identity.token(None).await.expect("held");
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(text(&token), text(&first));
        count(&proxy, RENEWAL) >= 1
    })
    .await;
    proxy.set(Mode::Pass);
    read(&http, &identity, "apps/web").await.expect("opened");
}

#[tokio::test]
async fn a_login_that_is_over_is_made_again_and_a_plain_token_is_told_dead() {
    let files = Files::new();
    let http = http(server().address());
    let role = json!({"token_policies": ["reader"], "token_ttl": "1s", "token_max_ttl": "1s"});
    let method = approle(&files, "ar-over", &role);
    let logged_in = identity(&http, method);
    let first = text(&logged_in.token(None).await.expect("logged in"));
    let plain = server().token(&["reader"], "1s");
    let source = files.write("token", &plain);
    let plain = identity(
        &http,
        super::method(&[("method", "token"), ("token", &source)]),
    );
    read(&http, &plain, "apps/web").await.expect("alive");
    until("both are over", async || {
        let dead = |token: &str| server().request("GET", "apps/web", token, None).status == 403;
        dead(&first) && dead(&std::fs::read_to_string(&source[5..]).expect("read"))
    })
    .await;
    read(&http, &logged_in, "apps/web")
        .await
        .expect("logged in again");
    let error = read(&http, &plain, "apps/web").await.expect_err("over");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("expired"), "{error}");
    assert!(error.message().contains(&source), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_with_a_token_revoked_in_the_middle_make_one_new_login() {
    let files = Files::new();
    let method = approle(&files, "ar-hundred", &json!({"token_policies": ["reader"]}));
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    let read_all = |number: usize| {
        let tasks: Vec<_> = (0..number)
            .map(|_| {
                let (http, identity) = (Arc::clone(&http), identity.clone());
                tokio::spawn(async move { read(&http, &identity, "apps/web").await })
            })
            .collect();
        async {
            for task in tasks {
                task.await.expect("ended").expect("opened");
            }
        }
    };
    let login = "POST /v1/auth/ar-hundred/login";
    read_all(50).await;
    assert_eq!(count(&proxy, login), 1, "one login for all");
    let first = text(&identity.token(None).await.expect("held"));
    // Some are under way while the token is revoked, and find it dead.
    let reading = read_all(100);
    let revoking = tokio::task::spawn_blocking(move || server().revoke(&first));
    tokio::join!(reading, async { revoking.await.expect("revoked") });
    read_all(50).await;
    assert_eq!(count(&proxy, login), 2, "one new login for all");
    assert!(count(&proxy, READ) > 200, "some asked twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_that_is_refused_is_tried_once_for_all_who_wait() {
    let files = Files::new();
    let method = approle(&files, "ar-refused", &json!({}));
    files.write("secret-id", "wrong");
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let identity = identity.clone();
            tokio::spawn(async move { identity.token(None).await })
        })
        .collect();
    for task in tasks {
        let error = task.await.expect("ended").expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    }
    assert_eq!(count(&proxy, "POST /v1/auth/ar-refused/login"), 1);
}

#[tokio::test]
async fn a_login_at_a_server_that_stalls_ends_with_the_deadline_and_can_be_repeated() {
    let files = Files::new();
    let method = approle(&files, "ar-stall", &json!({"token_policies": ["reader"]}));
    let (proxy, http) = watched();
    let identity = identity(&http, method);
    proxy.set(Mode::Stall);
    let start = Instant::now();
    let error = identity
        .token(Some(start + Duration::from_millis(200)))
        .await
        .expect_err("stalled");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
    proxy.set(Mode::Pass);
    read(&http, &identity, "apps/web").await.expect("opened");
}
