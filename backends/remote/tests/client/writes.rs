//! Writing: sealed to a server's key, which can change under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyhaul_core::{
    ErrorKind, IdempotencyId, PutMode, PutOptions, SecretBytes, SecretStore as _, Version,
};

use crate::keys::Keys;
use crate::path;
use crate::site::Site;
use crate::stage::{Said, Stage};

const WRITE: &str = "POST /v1/secrets/write";
const SERVICE: &str = "GET /v1/service";

async fn serving(site: &Site, keys: &Keys) -> Stage {
    let keys = keys.clone();
    Stage::new(site.tls(), move |asked| keys.answer(asked)).await
}

#[tokio::test]
async fn a_value_arrives_as_it_was_and_the_servers_key_is_asked_for_once() {
    let (site, keys) = (Site::new(), Keys::new());
    let stage = serving(&site, &keys).await;
    let store = site.store(&[stage.address().to_string()]);
    let every: Vec<u8> = (0..=255).collect();
    for (name, value) in [("web01/a", &every[..]), ("web01/b", b""), ("web01/c", b"c")] {
        let value = SecretBytes::copy_from(value);
        let put = store.put(&path(name), &value, &PutOptions::default()).await;
        assert_eq!(put.expect("written").version.expect("one").as_str(), "1");
        assert_eq!(keys.lock().values[name], value.expose());
    }
    assert_eq!((stage.asked(SERVICE), stage.asked(WRITE)), (1, 3));
}

#[tokio::test]
async fn a_server_that_was_started_anew_is_written_to_with_its_new_key() {
    let (site, keys) = (Site::new(), Keys::new());
    let stage = serving(&site, &keys).await;
    let store = site.store(&[stage.address().to_string()]);
    let (store, keys) = (&store, &keys);
    let put = |name: String| async move {
        let value = SecretBytes::copy_from(name.as_bytes());
        let done = store
            .put(&path(&name), &value, &PutOptions::default())
            .await;
        done.expect("written");
        assert_eq!(keys.lock().values[&name], name.as_bytes());
    };
    put("web01/before".into()).await;
    keys.restart();
    // All of them hold the old key.
    let many = (0..50).map(|index| put(format!("web01/s{index}")));
    futures_util::future::join_all(many).await;
    assert_eq!(keys.lock().written.len(), 51, "each was written once");
    keys.restart();
    put("web01/after".into()).await;
}

#[tokio::test]
async fn a_conflict_about_the_version_is_one_and_nothing_is_written_twice() {
    let (site, keys) = (Site::new(), Keys::new());
    keys.lock().refuses_writes = Some(ErrorKind::Conflict);
    let stage = serving(&site, &keys).await;
    let store = site.store(&[stage.address().to_string()]);
    let version = Version::new("7").expect("a version");
    let options = PutOptions::default().mode(PutMode::Update(version));
    let value = SecretBytes::copy_from(b"x");
    let error = store
        .put(&path("web01/a"), &value, &options)
        .await
        .expect_err("a conflict");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(stage.asked(WRITE), 1);
}

/// The question whether it is about the key may fail, too.
#[tokio::test]
async fn a_conflict_is_told_even_where_the_key_cannot_be_asked_for_again() {
    let (site, keys) = (Site::new(), Keys::new());
    keys.lock().refuses_writes = Some(ErrorKind::Conflict);
    let known = AtomicBool::new(false);
    let stage = Stage::new(site.tls(), move |asked| {
        if asked.target.ends_with("service") && known.swap(true, Ordering::SeqCst) {
            return Said::Nothing;
        }
        keys.answer(asked)
    });
    let stage = stage.await;
    let store = site.store(&[stage.address().to_string()]);
    let version = Version::new("7").expect("a version");
    let options = PutOptions::default().mode(PutMode::Update(version));
    let value = SecretBytes::copy_from(b"x");
    let put = store.put(&path("web01/a"), &value, &options).await;
    let error = put.expect_err("a conflict");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(stage.asked("GET /v1/service"), 2);
}

/// A server whose key cannot be had has not been written to.
#[tokio::test]
async fn a_write_goes_elsewhere_where_the_key_cannot_be_had() {
    let (site, keys) = (Site::new(), Keys::new());
    let writable = serving(&site, &keys).await;
    let mute = Stage::new(site.tls(), |_| Said::Nothing).await;
    let addresses = [mute.address().to_string(), writable.address().to_string()];
    let value = SecretBytes::copy_from(b"x");
    // Each begins at one of the two at random: that all begin at the same has one in 2^19.
    for _ in 0..20 {
        let store = site.store(&addresses);
        let options = PutOptions::default();
        let put = store.put(&path("web01/a"), &value, &options).await;
        put.expect("written at the other");
    }
    assert!(mute.asked("GET /v1/service") > 0);
    assert_eq!(writable.asked(WRITE), 20);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_made_elsewhere_only_where_it_is_known_again() {
    // (an id, the service knows it again, written in the end)
    for (id, knows, expected) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let (site, keys) = (Site::new(), Keys::new());
        if !knows {
            keys.lock().can.retain(|word| *word != "idempotent");
        }
        let lost = Arc::new(AtomicBool::new(false));
        let mut stages = Vec::new();
        for _ in 0..2 {
            // Each its own key, as two processes have; the first to be written to loses its answer.
            let (own, lost) = (Keys::new(), Arc::clone(&lost));
            own.lock().can.clone_from(&keys.lock().can);
            let seen = own.clone();
            let stage = Stage::new(site.tls(), move |asked| {
                if asked.target.ends_with("write") && !lost.swap(true, Ordering::SeqCst) {
                    return Said::Nothing;
                }
                own.answer(asked)
            });
            stages.push((stage.await, seen));
        }
        let addresses: Vec<_> = stages
            .iter()
            .map(|(s, _)| s.address().to_string())
            .collect();
        let store = site.store(&addresses);
        let made = IdempotencyId::random().expect("an id");
        let options = PutOptions::default()
            .mode(PutMode::Create)
            .idempotency(id.then_some(made));
        let value = SecretBytes::copy_from(b"once");
        let put = store.put(&path("web01/a"), &value, &options).await;
        let asked: usize = stages.iter().map(|(stage, _)| stage.asked(WRITE)).sum();
        if expected {
            put.expect("written elsewhere");
            assert_eq!(asked, 2);
            let ids: Vec<_> = stages
                .iter()
                .flat_map(|(_, keys)| keys.lock().written.clone())
                .collect();
            assert_eq!(ids, [Some(made.to_string())]);
        } else {
            let error = put.expect_err("lost");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert_eq!(asked, 1);
        }
    }
}

#[tokio::test]
async fn what_is_no_reference_is_refused_before_anything_is_sent() {
    let (site, keys) = (Site::new(), Keys::new());
    let stage = serving(&site, &keys).await;
    let store = site.store(&[stage.address().to_string()]);
    let value = SecretBytes::copy_from(b"x");
    for name in [
        "web01",
        "web 01/a",
        "secret:web01/a",
        "web01/a?version=1",
        "web01/a#f",
        "web01/ä",
    ] {
        let path = path(name);
        let put = store.put(&path, &value, &PutOptions::default()).await;
        assert_eq!(put.expect_err(name).kind(), ErrorKind::InvalidReference);
        let gone = store.delete(&path, &Default::default()).await;
        assert_eq!(gone.expect_err(name).kind(), ErrorKind::InvalidReference);
        let stat = store.stat(&path, &Default::default()).await;
        assert_eq!(stat.expect_err(name).kind(), ErrorKind::InvalidReference);
    }
    assert_eq!(stage.connections(), 0);
}

#[tokio::test]
async fn the_longest_value_is_sent_and_one_that_is_longer_is_not() {
    let (site, keys) = (Site::new(), Keys::new());
    let stage = serving(&site, &keys).await;
    let store = site.store(&[stage.address().to_string()]);
    let put = async |length: usize| {
        let value = SecretBytes::init_with(length, |bytes| bytes.fill(b'x'));
        store
            .put(&path("web01/a"), &value, &PutOptions::default())
            .await
    };
    let error = put(1024 * 1024 + 1).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(stage.asked(WRITE), 0);
    put(1024 * 1024).await.expect("written");
    assert_eq!(keys.lock().values["web01/a"].len(), 1024 * 1024);
    // What cannot be done at all is that before it is too much.
    keys.lock().can.clear();
    let error = put(1024 * 1024 + 1).await.expect_err("neither");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
