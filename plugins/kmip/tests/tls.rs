//! Certificates, and which of them is wrong.

mod support;

use keyhaul_core::{Error, ErrorKind, GetOptions};
use keyhaul_servers::{Authority, Issued};
use support::scripted::{Reply, Scripted};
use support::{Files, path, server, store, try_store};

/// Why the shared server is not reached with these files.
async fn refused(ca: &std::path::Path, files: &Files) -> Error {
    let store = store(&server().url(), ca, files, &[]);
    store.probe().await.expect_err("refused")
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, Authority::new("another").pem()).expect("written");
    let error = refused(&ca, &server().client("tls")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.message().contains("authority"), "{error}");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("ca-cert"))
    );
}

#[tokio::test]
async fn certificates_that_a_server_does_not_believe_are_named() {
    let server = server();
    let ours = server.authority();
    let expired = ours.expired_client_of(&["urn:a"]);
    let for_servers = ours.server_of(&["urn:a"]);
    let of_others = Authority::new("another").client("tls");
    for (issued, words) in [
        (expired, "has expired"),
        (for_servers, "does not believe our certificate"),
        (of_others, "authority of our certificate"),
    ] {
        let error = refused(&server.ca_path(), &server.write(&issued)).await;
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
        assert!(error.message().contains(words), "{error:?}");
        assert!(error.advice().is_some());
    }
    // The control.
    let store = store(&server.url(), &server.ca_path(), &server.client("tls"), &[]);
    store.probe().await.expect("believed");
}

#[tokio::test]
async fn without_a_certificate_there_is_no_store() {
    let server = server();
    let (certificate, key) = server.client("tls");
    let nowhere = std::path::PathBuf::from("/nonexistent/kmip.crt");
    let error = refused(&server.ca_path(), &(nowhere, key.clone())).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("`client-cert`"), "{error}");
    // A key of another certificate.
    let other = server.client("tls").1;
    let error = refused(&server.ca_path(), &(certificate.clone(), other)).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("do not fit"), "{error}");
    // A key that others can read.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, mode).expect("set");
    let error = refused(&server.ca_path(), &(certificate, key)).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let bare = keyhaul_core::StoreConfig::new("kms", &server.url(), Default::default(), "p:1:1");
    let registry = keyhaul_core::Registry::new().with(keyhaul_kmip_store::KmipFactory);
    let error = registry.open(&bare.expect("valid")).expect_err("bare");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_once() {
    let server = server();
    let files = server.write(&server.authority().expired_client_of(&["urn:a"]));
    let store = store(&server.url(), &server.ca_path(), &files, &[]);
    let error = store.probe().await.expect_err("expired");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    let renewed = server.authority().client("tls");
    std::fs::write(&files.0, renewed.certificate_pem).expect("written");
    std::fs::write(&files.1, renewed.key_pem).expect("written");
    store.probe().await.expect("renewed");
}

#[tokio::test]
async fn a_servers_certificate_must_be_valid_and_of_its_name() {
    let server = server();
    let files = server.client("tls");
    let ours = server.authority();
    let cases: [(Issued, &str); 2] = [
        (ours.server(&["elsewhere.example.com"]), "another name"),
        (ours.expired_server(&["127.0.0.1"]), "has expired"),
    ];
    for (issued, words) in cases {
        let scripted = Scripted::start(&issued, |_| Reply::Stall).await;
        let store = try_store(&scripted.url(), &server.ca_path(), &files, &[]);
        let got = store.expect("a store");
        let got = got.get(&path("a"), &GetOptions::default()).await;
        let error = got.expect_err("not believed");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.message().contains(words), "{error:?}");
        assert_eq!(scripted.requests(), 0);
    }
}
