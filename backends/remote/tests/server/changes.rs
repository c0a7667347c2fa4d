//! Changes whose end comes late: after their callers, and after the audit can hold it.

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use keyhaul_core::{GetOptions, SecretPath, SecretStore as _};
use keyhaul_remote::protocol::{ServiceAnswer, path};

use super::site::Site;

const LATE: &str = "its caller waited no longer";

async fn holds(site: &Site, secret: &str) -> bool {
    let path = SecretPath::new(secret).expect("a path");
    let found = site.store.inner.stat(&path, &GetOptions::default()).await;
    found.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_ends_after_what_outlived_its_caller_and_has_it_recorded() {
    let mut site = Site::start().await;
    let operator = site.operator();
    let service: ServiceAnswer = operator.get(path::SERVICE).await.json();
    let body = operator.sealed(&service.key, "web01/slow", b"late");
    let headers = [
        ("content-type", "application/json"),
        ("keyhaul-timeout-ms", "300"),
    ];
    let sent = operator.send(Method::POST, path::WRITE, &headers, Some(body.to_string()));
    assert_eq!(sent.await.expect("an answer").kind(), "Timeout");
    drop(operator);

    let store = std::sync::Arc::clone(&site.store);
    let mut end = Box::pin(site.end());
    let early = tokio::time::timeout(Duration::from_secs(1), &mut end).await;
    assert!(early.is_err(), "the store is at it still");
    store.slow.add_permits(1);
    let begun = Instant::now();
    end.as_mut().await.expect("in good order");
    drop(end);
    assert!(begun.elapsed() < Duration::from_secs(10), "it was awaited");
    assert!(holds(&site, "web01/slow").await);
    let audit = site.audit();
    assert!(audit.contains(LATE), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_done_is_told_as_done_though_the_audit_cannot_hold_its_end() {
    let site = Site::start().await;
    let operator = site.operator();
    let asked = site.asked();
    let write = operator.write("web01/slow", b"correct horse");
    let spoil = async {
        while site.store.asked.load(Ordering::SeqCst) == asked {
            tokio::task::yield_now().await;
        }
        // It has begun. A log that somebody else writes is one that the service cannot go on in.
        let audit = site.folder.path().join("audit.jsonl");
        let file = std::fs::File::options().append(true).open(audit);
        file.expect("the audit").write_all(b"x").expect("written");
        site.store.slow.add_permits(1);
    };
    let (answer, ()) = tokio::join!(write, spoil);
    assert_eq!(answer.kind(), "Internal");
    let told = answer.text();
    assert!(told.contains("it is done, and must not be"), "{told}");
    assert!(holds(&site, "web01/slow").await);

    // The control: what cannot even begin is not done, and no such thing is said.
    let answer = operator.write("web01/other", b"correct horse").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let told = answer.text();
    assert!(!told.contains("it is done"), "{told}");
    assert!(!holds(&site, "web01/other").await);
}
