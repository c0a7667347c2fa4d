//! Redirects: followed where the policy trusts, and nowhere else.

use keyhaul_core::ErrorKind;

use super::*;

#[tokio::test]
async fn a_redirect_to_a_trusted_address_is_followed_with_method_token_and_body() {
    let server = dev();
    for status in [301, 302, 307, 308] {
        let location = format!("Location: {}/v1/secret/data/moved\r\n", server.address());
        let standby = Raw::answering(status, &location, "");
        let trusted = Value::Texts(vec![server.address().to_owned()]);
        let http = http(&standby.url(), [("trusted-addresses", trusted)]);
        let token = secret(server.root_token());
        let call = Call::new(Method::POST, "secret/data/moved").manner(with_token(&token));
        let value = format!(r#"{{"data":{{"value":"{status}"}}}}"#);
        http.ask(call.body(secret(&value)))
            .await
            .map(drop)
            .expect("followed");
        let stored = server.read("secret/data/moved").to_string();
        assert!(
            stored.contains(&format!(r#""value":"{status}""#)),
            "{stored}"
        );
    }
}

#[tokio::test]
async fn a_redirect_elsewhere_keeps_the_token_home() {
    let elsewhere = Raw::answering(200, "", "{}");
    let location = format!("Location: {}/v1/secret/x\r\n", elsewhere.url());
    let standby = Raw::answering(307, &location, "");
    let token = secret("hvs.hunter2");
    let call = || get("secret/x").manner(with_token(&token));

    let error = http(&standby.url(), [])
        .ask(call())
        .await
        .map(drop)
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&elsewhere.url()), "{error}");
    assert!(
        whole(&error).contains("trusted-addresses"),
        "{}",
        whole(&error)
    );
    assert!(elsewhere.seen().is_empty());
    assert!(
        standby.seen()[0].contains("hvs.hunter2"),
        "the token was sent home"
    );

    let trusted = Value::Texts(vec![elsewhere.url()]);
    let http = http(&standby.url(), [("trusted-addresses", trusted)]);
    http.ask(call()).await.map(drop).expect("followed");
    assert!(
        elsewhere.seen()[0].contains("hvs.hunter2"),
        "the control got it"
    );
}

#[tokio::test]
async fn what_looks_like_the_own_address_is_not() {
    for location in [
        "//evil.example/v1/x",
        "http://localhost@evil.example/v1/x",
        "https://127.0.0.1/v1/x",
        "http://127.0.0.1:1/v1/x",
        "ftp://127.0.0.1/",
        "data:,x",
        "",
    ] {
        let standby = Raw::answering(307, &format!("Location: {location}\r\n"), "");
        let error = http(&standby.url(), [])
            .ask(health())
            .await
            .map(drop)
            .expect_err(location);
        assert_eq!(
            error.kind(),
            ErrorKind::Unavailable,
            "{location}: {error:?}"
        );
        assert_eq!(standby.seen().len(), 1, "{location}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let circle = Raw::answering(307, "Location: /v1/sys/health\r\n", "");
    let error = http(&circle.url(), [])
        .ask(health())
        .await
        .map(drop)
        .expect_err("a circle");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(circle.seen().len(), redirect::MOST);
}
